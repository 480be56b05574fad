/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes without a name, and objects that no file needs any more: removed by a thread of its own, objects
 * once the transaction that let go of them is on stable storage, in the database's journal too (else a power
 * cut, or a rebuild, could bring back a file whose bytes are gone). An interrupted removal is finished at the
 * next mount.
 */
#ifndef CKPTFS_FS_DISCARD_H
#define CKPTFS_FS_DISCARD_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/ids.h"

struct filesystem;

errint discard_start(struct filesystem *fs);
/* Ends the thread; `finish`: after removing what is queued. What is left is removed by the next daemon. */
void discard_stop(struct filesystem *fs, bool finish);

/* Queues the objects; the list stays the caller's. Does not block on I/O. */
void discard_objects(struct filesystem *fs, const struct ids *objects);
/* Objects may have lost extents: what no file covers any more is given back soon. Does not block on I/O. */
void discard_kick(struct filesystem *fs);
/* The same; returns when it is done, with what was queued before. Blocks for long. */
void discard_flush(struct filesystem *fs);
/* How often that was called, and how many of these calls have been followed up. */
void discard_progress(struct filesystem *fs, uint64_t *kicks, uint64_t *done);
/* Queues an inode without a name, which nobody uses, and what it is made of. */
void discard_inode(struct filesystem *fs, uint64_t ino);

#endif
