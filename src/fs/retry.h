/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that found the disk full, while there is something in the trash: they are done again by a thread
 * of their own when the oldest entry of it was given up, and so on until they have room or the trash is
 * empty.
 *
 * Each function takes the request over, with copies of its arguments, and is true; or it is false, and the
 * caller answers ENOSPC: nothing can be given up, or memory is short.
 */
#ifndef CKPTFS_FS_RETRY_H
#define CKPTFS_FS_RETRY_H

#include "fs/filesystem.h"

bool retry_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                 const struct fuse_file_info *fi);
bool retry_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length);
bool retry_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                  const struct fuse_file_info *fi);
/* MKDIR, MKNOD and SYMLINK. */
bool retry_make(fuse_req_t request, const struct meta_new *new);

#endif
