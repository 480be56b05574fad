/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying what is alive of an object into a new one: one live range behind the other, each chunk compared
 * with its hash before a byte of it is written. Blocks of zeros become holes.
 */
#ifndef CKPTFS_FS_REPACK_COPY_H
#define CKPTFS_FS_REPACK_COPY_H

#include <stdbool.h>

#include "fs/reclaim_plan.h"

struct repack_copy {
    struct filesystem *fs;
    uint64_t from, to;
    const struct reclaim_plan *plan; /* of `from` */
    bool (*stops)(struct filesystem *fs);
    /* What comes of it. */
    struct sums sums;        /* of `to`, with its root */
    struct meta_move *moves; /* plan->live_count of them, in the order of plan->live */
    size_t move_count;
    struct meta_range damaged; /* after -EUCLEAN: the chunk that is not what its hash says, or unreadable */
};

/*
 * Makes the object `to`, and brings its bytes to stable storage. -EUCLEAN: a chunk is damaged; -ECANCELED: it
 * was told to stop. After an error the file may be there, in part. The caller gives the copy to
 * repack_copy_release, whatever is returned. Blocks for as long as that takes.
 */
errint repack_copy_make(struct repack_copy *copy);
void repack_copy_release(struct repack_copy *copy);

#endif
