/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing the objects of a sealed file and recording what was found, for share.h. No lock is held while an
 * object is read; what a writer has touched meanwhile is dropped.
 */
#ifndef CKPTFS_FS_SHARE_SUM_H
#define CKPTFS_FS_SHARE_SUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/node.h"

/* A file as it was when hashing began. */
struct share_view {
    bool ready; /* sealed, and nobody can write it */
    bool dirty;
    uint64_t changes;
    uint64_t whole; /* the object that is the file, or 0 */
    uint32_t uid;
};

enum { SHARE_RESTS = 64 };

/* When objects may be hashed again that were lately: what is changed in place, a log say, would be hashed as
 * a whole each time. Starts as {0}; one thread's. */
struct share_rests {
    struct {
        uint64_t object;
        int64_t until; /* clock_monotonic() */
    } at[SHARE_RESTS];
    size_t next;
    int64_t until; /* of the one that share_sum met last */
};

/* Looks at the file, under its lock. A file that is gone is not ready. */
errint share_look(struct filesystem *fs, struct node *node, struct share_view *view);

/*
 * Hashes the objects of the file that have no hashes yet. -EAGAIN: not before rests->until; -EBUSY: a writer
 * came; -ECANCELED: `stops` said so.
 */
errint share_sum(struct filesystem *fs, struct node *node, const struct share_view *view,
                 struct share_rests *rests, bool (*stops)(struct filesystem *fs));

#endif
