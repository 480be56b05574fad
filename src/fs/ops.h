/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations that libfuse calls, a function each, and what they share. Each answers its request exactly
 * once, on the calling thread or later on a worker. Signatures are those of struct fuse_lowlevel_ops.
 */
#ifndef CKPTFS_FS_OPS_H
#define CKPTFS_FS_OPS_H

#include "base/clock.h"
#include "fs/filesystem.h"
#include "store/object.h"

/* Shared: the entry that a look-up or a creation answers with. */
void ops_fill_entry(struct filesystem *fs, const struct meta_inode *row, struct fuse_entry_param *entry);
/* Shared: whether a new name may be made: -EPERM for ours, -ENOSPC while the disk is full. */
errint ops_may_make(struct filesystem *fs, uint64_t parent, const char *name);
/* Shared: drops setuid, and setgid where the group may execute, and file capabilities, as a write does. */
errint ops_drop_privileges(fuse_req_t request, uint64_t ino);
/* Whether the group is one of the caller's; for root, and when it cannot be told: yes. */
bool ops_caller_has_group(fuse_req_t request, gid_t group);

/* ops_file.c */
void ops_open(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void ops_create(fuse_req_t, fuse_ino_t, const char *, mode_t, struct fuse_file_info *);
void ops_tmpfile(fuse_req_t, fuse_ino_t, mode_t, struct fuse_file_info *);
void ops_release(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void ops_flush(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void ops_poll(fuse_req_t, fuse_ino_t, struct fuse_file_info *, struct fuse_pollhandle *);
void ops_read(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void ops_write(fuse_req_t, fuse_ino_t, const char *, size_t, off_t, struct fuse_file_info *);
void ops_fsync(fuse_req_t, fuse_ino_t, int, struct fuse_file_info *);
void ops_fsync_directory(fuse_req_t, fuse_ino_t, int, struct fuse_file_info *);
void ops_fallocate(fuse_req_t, fuse_ino_t, int, off_t, off_t, struct fuse_file_info *);
void ops_lseek(fuse_req_t, fuse_ino_t, off_t, int, struct fuse_file_info *);
void ops_copy_file_range(fuse_req_t, fuse_ino_t, off_t, struct fuse_file_info *, fuse_ino_t, off_t,
                         struct fuse_file_info *, size_t, int);

/* ops_name.c */
void ops_lookup(fuse_req_t, fuse_ino_t, const char *);
void ops_forget(fuse_req_t, fuse_ino_t, uint64_t);
void ops_forget_multi(fuse_req_t, size_t, struct fuse_forget_data *);
void ops_mknod(fuse_req_t, fuse_ino_t, const char *, mode_t, dev_t);
void ops_mkdir(fuse_req_t, fuse_ino_t, const char *, mode_t);
void ops_symlink(fuse_req_t, const char *, fuse_ino_t, const char *);
void ops_link(fuse_req_t, fuse_ino_t, fuse_ino_t, const char *);
void ops_unlink(fuse_req_t, fuse_ino_t, const char *);
void ops_rmdir(fuse_req_t, fuse_ino_t, const char *);
void ops_rename(fuse_req_t, fuse_ino_t, const char *, fuse_ino_t, const char *, unsigned);

/* ops_attribute.c */
void ops_getattr(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void ops_setattr(fuse_req_t, fuse_ino_t, struct stat *, int, struct fuse_file_info *);
void ops_readlink(fuse_req_t, fuse_ino_t);
void ops_statfs(fuse_req_t, fuse_ino_t);
void ops_setxattr(fuse_req_t, fuse_ino_t, const char *, const char *, size_t, int);
void ops_getxattr(fuse_req_t, fuse_ino_t, const char *, size_t);
void ops_listxattr(fuse_req_t, fuse_ino_t, size_t);
void ops_removexattr(fuse_req_t, fuse_ino_t, const char *);

/* ops_directory.c */
void ops_opendir(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
void ops_readdir(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void ops_readdirplus(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
void ops_releasedir(fuse_req_t, fuse_ino_t, struct fuse_file_info *);

/* control.c */
void ops_ioctl(fuse_req_t, fuse_ino_t, unsigned, void *, struct fuse_file_info *, unsigned, const void *,
               size_t, size_t);

/* control_verify.c: answers the requests of a verification, perhaps later; false: it is none of them. */
bool control_verify(fuse_req_t, unsigned command, const void *in, size_t in_size, size_t out_size);

#endif
