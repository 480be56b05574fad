/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that trainers leave to say that a checkpoint is not complete, or that it is: one table. A name that
 * says "not yet" counts as long as it is there, and proves nothing when it is gone: several ranks share one
 * file, and each removes it when its own part is done.
 */
#ifndef CKPTFS_CKPT_COMPLETE_MARKERS_H
#define CKPTFS_CKPT_COMPLETE_MARKERS_H

#include <stdbool.h>

enum complete_marker {
    MARKER_NONE,
    MARKER_UNFINISHED, /* never complete while it is there */
    MARKER_PROOF,      /* complete, where the files themselves cannot tell */
};

/* What the name of a file in a checkpoint, or of the checkpoint's directory itself, says. */
enum complete_marker complete_marker_of(const char *name, bool directory);

/* The file beside checkpoints that holds the number of the last complete one: Megatron-LM's and verl's. */
extern const char complete_marker_latest[];

#endif
