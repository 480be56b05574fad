/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions of commands whose answers are worked out later, by the threads of report.h. Each function answers
 * the request exactly once; `room` is what the asker has for the answer, in bytes.
 */
#ifndef CKPTFS_FS_CONTROL_REPORT_H
#define CKPTFS_FS_CONTROL_REPORT_H

#include "fs/filesystem.h"

/* The mount's state as CKPTFS_IOCTL_STATUS gives it to this user, for people to read, with a line's end. The
 * caller frees *out. */
errint control_status_text(struct filesystem *fs, uid_t uid, char **out);
/* CKPTFS_IOCTL_USAGE. */
void control_usage(fuse_req_t request, uint64_t ino, size_t room);
/* CKPTFS_IOCTL_LIFE. */
void control_life(fuse_req_t request, uint64_t ino, size_t room);
/* CKPTFS_IOCTL_RECLAIM. */
void control_reclaim(fuse_req_t request, const void *in, size_t in_size, size_t room);
/* Takes the request over when the extended attribute is one of the figures of a file: true. */
bool control_answers_xattr(fuse_req_t request, uint64_t ino, const char *name, size_t room);

#endif
