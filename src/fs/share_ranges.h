/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing ranges of files that are thought to have the same bytes, and re-pointing files where they do: the
 * tensors of a model file and what shards have of them (ckpt/counterpart.h). Bytes are compared, whatever
 * verify-on-share says; which side gives way is decided as for all that is shared (share_out.h).
 */
#ifndef CKPTFS_FS_SHARE_RANGES_H
#define CKPTFS_FS_SHARE_RANGES_H

#include <stdbool.h>

#include "ckpt/counterpart.h"

struct filesystem;

struct share_ranges {
    uint64_t whole;         /* the inode of the model file */
    uint32_t uid;           /* its owner; objects of others are left out unless share-owners=yes */
    const uint64_t *pieces; /* the inode of each file of the model in pieces; 0: none */
    size_t piece_count;
    const struct counterpart *ranges; /* whole_file is not looked at */
    size_t range_count;
};

/*
 * Blocks: reads both sides, in the background, with 2 MiB of memory and what the moves take. No lock is held
 * over a read. 0: all was looked at. -EAGAIN: an object was not hashed, or its file is not on stable storage;
 * -EBUSY: a file cannot be re-pointed now; in both cases what could be done is done. -ECANCELED: `stops` said
 * so.
 */
errint share_ranges(struct filesystem *fs, const struct share_ranges *request,
                    bool (*stops)(struct filesystem *fs));

#endif
