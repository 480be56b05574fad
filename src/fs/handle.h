/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open handles: choosing how an open is served, and counting who has a node open. The counts are the node's,
 * the handles themselves are in the state memory, so that a successor finds them.
 */
#ifndef CKPTFS_FS_HANDLE_H
#define CKPTFS_FS_HANDLE_H

#include "fs/filesystem.h"

/*
 * Opens a loaded regular file with open(2)'s `flags` (O_TRUNC included) for the request in work, fills fi.
 * The node gets a reference for the handle. The lock is held exclusively. -ESTALE: look the name up again;
 * -ENFILE.
 */
errint handle_open(struct filesystem *fs, struct node *node, int flags, struct fuse_file_info *fi);

/*
 * Loads a file that is about to be changed; what was assembled from it is withdrawn, and an assembled one is
 * a file like others from now on. -ESTALE: passthrough
 * readers hold its shared object, so its names were moved to a new inode, node->moved_to, for expire_names();
 * or it has no name. The lock is held exclusively.
 */
errint handle_prepare_change(struct filesystem *fs, struct node *node);

/* A directory. */
errint handle_open_directory(struct filesystem *fs, struct node *node, struct fuse_file_info *fi);

/* The same handle once more, for a request that the kernel sent again. False when it had made none. */
bool handle_reopen(struct filesystem *fs, struct fuse_file_info *fi);

/* The handle is gone (RELEASE, or a reply that the kernel did not take). Takes the node's lock; unknown fh:
 * nothing. */
void handle_close(struct filesystem *fs, uint64_t fh);

/* After a take-over: counts every handle of the state memory in its node again. */
errint handle_restore_all(struct filesystem *fs);

#endif
