/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_file_range(2): a clone where the source is sealed and the daemon serves the destination, or where the
 * disk can share blocks; else a copy, whose bytes are given back when the destination is sealed.
 */
#ifndef CKPTFS_FS_CLONE_H
#define CKPTFS_FS_CLONE_H

#include "fs/node.h"

/*
 * Copies up to `length` bytes: the number copied (0 at the source's end) or a negative errno. Takes the locks
 * itself. Both nodes are loaded; `to` has a writer.
 */
ssize_t clone_range(struct filesystem *fs, struct node *from, int64_t from_offset, struct node *to,
                    int64_t to_offset, int64_t length);

/*
 * After the seal of a file that was copied from another as a whole: when the bytes are still equal, the file
 * shares the other's and its own copy is freed. No lock is held.
 */
void clone_give_back(struct filesystem *fs, struct node *node, const struct node_copy *copy);

#endif
