/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories in which a model file and the shards of the same model may lie: one directory, the one
 * above it, and the newest of those below and beside it; and in each pair of them, the pairs of a file and a
 * model in pieces, which are compared.
 */
#ifndef CKPTFS_FS_SHARE_VICINITY_H
#define CKPTFS_FS_SHARE_VICINITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

enum { VICINITY_KNOWN = 4096 };

/* Pairs that were looked at, as they were; the oldest are forgotten first. Starts as {0}; one thread's. */
struct vicinity_known {
    uint64_t pairs[VICINITY_KNOWN];
    size_t next;
};

/*
 * Looks at all pairs of which one side is in the directory. Blocks for long; no lock is held. 0, also where
 * there is nothing to compare; -EAGAIN or -EBUSY: something has to be looked at later; -ECANCELED: `stops`
 * said so.
 */
errint vicinity_share(struct filesystem *fs, uint64_t directory, struct vicinity_known *known,
                      bool (*stops)(struct filesystem *fs));

#endif
