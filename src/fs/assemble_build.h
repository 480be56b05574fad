/* SPDX-License-Identifier: Apache-2.0 */
/* Making the assembled file of one directory: an inode without a name, whose extents are the shards'. */
#ifndef CKPTFS_FS_ASSEMBLE_BUILD_H
#define CKPTFS_FS_ASSEMBLE_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* An assembly that somebody asked for, and waits for. */
struct assemble_asked {
    void (*progress)(void *context, uint64_t directory, int64_t done, int64_t total); /* bytes */
    void *context;
    char
        reason[1000]; /* why nothing was assembled; "": it was, or the directory has such a file of its own */
};

/*
 * Reads the directory and assembles what it holds. 0 also where there is nothing that can be assembled;
 * `asked`: also what is not assembled unasked (NULL: nobody asked);
 * -EBUSY: a file is written, or not on stable storage yet; -EAGAIN: a save that goes over an older one seems
 * to be under way; -ECANCELED. Blocks for long; no lock is held.
 */
errint assemble_build(struct filesystem *fs, uint64_t directory, struct assemble_asked *asked,
                      bool (*stops)(struct filesystem *fs));

#endif
