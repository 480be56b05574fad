/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving back what no file covers: the dead chunks of objects that lost extents are punched, or, where the
 * disk cannot punch, the objects are repacked (repack.h). What is dead follows from the extents alone, and is
 * asked anew each time.
 */
#ifndef CKPTFS_FS_RECLAIM_H
#define CKPTFS_FS_RECLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/*
 * Looks after every object that is marked as shrunk. One that somebody has open or mapped is left for later.
 * The number of objects that are left, or a negative errno. Where the disk cannot punch, all is left to the
 * thread that repacks, which gets the ticket, and none is counted. For the thread that discards; blocks.
 */
int reclaim_run(struct filesystem *fs, uint64_t ticket);

struct reclaim_sum {
    uint64_t objects;
    int64_t bytes; /* as the disk keeps them */
};

/* What waits to be given back. */
struct reclaim_survey {
    bool (*stop)(void *context); /* asked between objects: true ends it with -ECANCELED */
    void *context;
    bool can_punch;            /* the disk */
    struct reclaim_sum punch;  /* dead chunks of objects that are still used */
    struct reclaim_sum held;   /* of those: somebody has the object open or mapped */
    struct reclaim_sum repack; /* of those, where the disk cannot punch: of objects that are to be repacked */
    struct reclaim_sum remove; /* objects that no file uses */
    struct reclaim_sum open;   /* deleted files that are still open, and what only they have */
    uint64_t unhashed;         /* objects that lost bytes and have no hashes yet */
};

/* Adds it all up; `stop`, `context` and `can_punch` are the caller's, all else is 0. Reads much, changes
 * nothing. */
errint reclaim_look(struct filesystem *fs, struct reclaim_survey *survey);

#endif
