/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that found the disk full, while something may be given up (fs/trash.h): they are done again by a
 * thread of their own when something was given up, or the disk has got room otherwise, and so on until they
 * have room, their caller is interrupted, or the time of the mount option full-timeout is over.
 *
 * Each function takes the request over, with copies of its arguments, and is true; or it is false, and the
 * caller answers ENOSPC: nothing can be given up, or memory is short.
 */
#ifndef CKPTFS_FS_RETRY_H
#define CKPTFS_FS_RETRY_H

#include "fs/filesystem.h"

/* Whether the write of so many bytes is to wait before the disk is full: the database needs the rest. */
bool retry_should_wait(struct filesystem *fs, int64_t size);
bool retry_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                 const struct fuse_file_info *fi);
bool retry_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length);
/* A file of a checkpoint gets its size before it is written: room is made for it, as far as there is any. */
bool retry_truncate(fuse_req_t request, fuse_ino_t ino, const struct stat *wanted, int set);
bool retry_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                  const struct fuse_file_info *fi);
/* MKDIR, MKNOD and SYMLINK. */
bool retry_make(fuse_req_t request, const struct meta_new *new);

#endif
