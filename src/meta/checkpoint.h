/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the checkpoints in the namespace, a row for each directory that is one: so that a start
 * knows at once what was complete before it. A row goes with its directory. What the states mean is not known
 * here (fs/checkpoints.h). Otherwise as meta.h.
 */
#ifndef CKPTFS_META_CHECKPOINT_H
#define CKPTFS_META_CHECKPOINT_H

#include "meta/meta.h"

struct meta_checkpoint {
    uint64_t directory;
    uint64_t run;   /* the directory of the run; may be the same */
    unsigned state; /* fs/checkpoints.h */
    unsigned marks;
    int64_t step;      /* -1: not known */
    int64_t completed; /* when the look began that found it complete, or its newest file's time where that is
                          later; ns since the epoch; 0: never */
    int64_t bytes;     /* of all its files */
};

struct meta_checkpoint_change {
    const struct meta_checkpoint *row;
    bool forget; /* `row` tells the directory; else the row is made or replaced */
};

/* All of them, or none; a directory that is gone is passed over. */
errint meta_checkpoint_change(struct meta *meta, const struct meta_checkpoint_change *changes, size_t count);

/* Every row, by directory. The caller frees *out. */
errint meta_checkpoints(struct meta *meta, struct meta_checkpoint **out, size_t *count);

#endif
