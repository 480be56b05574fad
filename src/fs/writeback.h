/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-back: brings what was written to stable storage without being asked, because neither sync(2) nor
 * syncfs(2) reaches a FUSE daemon. One thread starts the disk's work early, syncs what was closed, syncs what
 * stays open every few seconds, and records in the namespace what is safe. Also what fsync(2) does for one
 * file.
 */
#ifndef CKPTFS_FS_WRITEBACK_H
#define CKPTFS_FS_WRITEBACK_H

#include <stdint.h>

#include "fs/node.h"

errint writeback_start(struct filesystem *fs);
/* Ends the thread; `finish`: after syncing everything that is left. */
void writeback_stop(struct filesystem *fs, bool finish);

/* The node's file has, or may get, bytes that are not on stable storage. Its lock is held exclusively. */
void writeback_add(struct filesystem *fs, struct node *node);
/* A file was closed: its turn comes soon. */
void writeback_kick(struct filesystem *fs);

/*
 * Bytes that are on stable storage are about to change there, where they lie: the mark that says so (node.h,
 * `marked`) gets there first. 0 at once when it has; else blocks for a sync of the namespace. The node's lock
 * may be held.
 */
errint writeback_sync_mark(struct filesystem *fs, const struct node *node);

/* One file, now: its bytes, its size and its names are on stable storage when this returns. Blocks; no lock
 * held. */
errint writeback_sync_node(struct filesystem *fs, struct node *node);
/* The same for an fsync of it: bytes that an older file has too need not be written (stand_in.h). */
errint writeback_fsync_node(struct filesystem *fs, struct node *node);

/* A file that was synced is not in `files` any more; it is in `bytes` until the namespace has that on stable
 * storage, as every change of a name is. With 0 bytes a power cut would lose nothing. */
struct writeback_totals {
    uint64_t files;
    int64_t bytes; /* written, and not known to be on stable storage */
};
struct writeback_totals writeback_count(struct filesystem *fs);

#endif
