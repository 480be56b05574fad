/* SPDX-License-Identifier: Apache-2.0 */
/* The table of names. */
#include "ckpt/complete_markers.h"

#include <fnmatch.h>
#include <stddef.h>

const char complete_marker_latest[] = "latest_checkpointed_iteration.txt";

static const struct {
    const char *pattern;
    enum complete_marker marker;
    bool directory; /* also of a directory */
} markers[] = {
    {"checkpoint-is-incomplete.txt", MARKER_UNFINISHED, false}, /* transformers, JIT checkpoints */
    {"*_unfinished", MARKER_UNFINISHED, true},                  /* beside or in what is not finished */
    {"*-unfinished", MARKER_UNFINISHED, true},                  /* NeMo */
    {"*.incomplete", MARKER_UNFINISHED, true},                  /* downloads of the Hub; others */
    {"tmp-*", MARKER_UNFINISHED, true},                         /* transformers 4.36 to 4.39; others */
    {"*.orbax-checkpoint-tmp*", MARKER_UNFINISHED, true},       /* Orbax */
    {".tmp??????", MARKER_UNFINISHED, false},                   /* safetensors, before it renames */
    {".metadata.tmp", MARKER_UNFINISHED, false},                /* torch.distributed.checkpoint */
    {"commit_success.txt", MARKER_PROOF, false},                /* Orbax */
    {"STABLE", MARKER_PROOF, false},
    {"_SUCCESS", MARKER_PROOF, false},
};

enum complete_marker complete_marker_of(const char *name, bool directory)
{
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        if ((markers[i].directory || !directory) && fnmatch(markers[i].pattern, name, 0) == 0)
            return markers[i].marker;
    }
    return MARKER_NONE;
}
