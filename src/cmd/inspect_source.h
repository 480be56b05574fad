/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a checkpoint's configuration comes from when it has none of its own: on a mount, who lends it one; or
 * what is to be done about it.
 */
#ifndef CKPTFS_CMD_INSPECT_SOURCE_H
#define CKPTFS_CMD_INSPECT_SOURCE_H

#include "fs/models.h"

struct inspect_source {
    const char *name; /* "config.json" or "adapter_config.json" */
    bool mounted;     /* it is on a mount, whose view of the checkpoint may have it */
    enum models_source from;
    char *run; /* where nobody has it: the directory to give a template to; NULL: not known */
};

/* Of a checkpoint, a directory or a file in one. Fills `out`, which the caller releases in any case. */
void inspect_source_find(const char *path, bool adapter, struct inspect_source *out);
void inspect_source_release(struct inspect_source *source);

/* Whether a template would help. */
bool inspect_source_is_missing(const struct inspect_source *source);
/* Whether another directory lends it. */
bool inspect_source_is_lent(const struct inspect_source *source);
/* The word for JSON; NULL: nobody has it. */
const char *inspect_source_word(const struct inspect_source *source);
/* A line for people, without its end, which the caller frees. NULL: no memory. */
char *inspect_source_line(const struct inspect_source *source);

#endif
