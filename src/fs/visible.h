/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom the mount tells of a directory: a path says what the directories above it may hide.
 */
#ifndef CKPTFS_FS_VISIBLE_H
#define CKPTFS_FS_VISIBLE_H

#include "fs/filesystem.h"

/* Whether the user is root, or whoever mounted: they are told all, and may ask for what concerns the whole
 * store. */
bool visible_sees_all(uid_t uid);

/*
 * Whether whoever asks may list the directory, and search all above it; of a file, whether that holds for the
 * directory that it lies in. Who sees all may. The request is not answered yet. Reads /proc for
 * the groups of other users.
 */
bool visible_to_caller(fuse_req_t request, uint64_t ino);

#endif
