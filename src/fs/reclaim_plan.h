/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of an object is dead, and whether somebody sees the object: what punching and repacking both ask
 * first.
 */
#ifndef CKPTFS_FS_RECLAIM_PLAN_H
#define CKPTFS_FS_RECLAIM_PLAN_H

#include "meta/sharing.h"
#include "store/sums.h"

struct filesystem;

/* The dead ranges of an object, in whole chunks: a chunk with one live byte can still be verified. */
struct reclaim_plan {
    struct meta_range *at;
    size_t count;
    struct meta_range *live; /* what it was made from */
    size_t live_count;
    struct sums sums;
};

/* -ENOENT or -EUCLEAN without a good table of hashes; -EBUSY when the object is being written. The caller
 * gives `out`, which was {0}, to reclaim_plan_release, whatever is returned. Blocks. */
errint reclaim_plan_make(struct filesystem *fs, uint64_t object, struct reclaim_plan *out);
void reclaim_plan_release(struct reclaim_plan *plan);

/* The bytes of the dead ranges that the disk still keeps. `fd` is any descriptor of the object. */
int64_t reclaim_plan_count_kept(const struct reclaim_plan *plan, int fd);
/* The same of one range. */
int64_t reclaim_count_kept(int fd, const struct meta_range *range);

/* 0 when nobody sees the object from outside, by passthrough or in a mapping; else -EBUSY, also where nobody
 * can tell. */
errint reclaim_check_seen(struct filesystem *fs, uint64_t object);

#define cleanup_plan __attribute__((cleanup(reclaim_plan_release)))

#endif
