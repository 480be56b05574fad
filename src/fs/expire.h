/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that lead to another inode than the kernel remembers. It looks up anew only the name that met ESTALE;
 * a file's other hard links have to be named to it, or they would go on showing the inode from before.
 */
#ifndef CKPTFS_FS_EXPIRE_H
#define CKPTFS_FS_EXPIRE_H

#include "fs/filesystem.h"

errint expire_start(struct filesystem *fs);
/* Finishes what is due; what is asked for later is answered without it. To be called while requests are still
 * served; a second call does nothing. */
void expire_stop(struct filesystem *fs);

/*
 * Has the kernel forget every name of `ino`, which were those of `former` (of that also how many it has), and
 * then answers the request with ESTALE. Returns at once: the kernel takes the lock of each name's directory
 * for it, which somebody who waits for us may hold. No request that holds a directory's lock itself (CREATE,
 * LINK and their kin) may be answered by this.
 */
void expire_names(fuse_req_t request, uint64_t ino, uint64_t former);

/* Has the kernel forget one name, which nothing has any more. Returns at once. */
void expire_name(struct filesystem *fs, const struct meta_name *name);

/*
 * Has the kernel look up one name of a directory anew, and all below it, and then answers the ioctl with
 * success. Otherwise as expire_names.
 */
void expire_name_for_ioctl(fuse_req_t request, uint64_t directory, const char *name, uint64_t ino);

#endif
