/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions of commands whose answers are worked out later, by the threads of report.h. Each function answers
 * the request exactly once; `room` is what the asker has for the answer, in bytes.
 */
#ifndef CKPTFS_FS_CONTROL_REPORT_H
#define CKPTFS_FS_CONTROL_REPORT_H

#include <cjson/cJSON.h>

#include "fs/report.h"

/* What a request that concerns the whole store was given. */
struct control_asked {
    fuse_req_t request;
    const void *in;
    size_t in_size, room;
};
/* Takes a question of `size` bytes, which are those of the answer, too. -EPERM: only root and whoever mounted
 * may ask; -EINVAL. */
errint control_take(const struct control_asked *asked, void *out, size_t size);

/* The mount's state as CKPTFS_IOCTL_STATUS gives it to this user. NULL: no memory. The caller deletes it. */
cJSON *control_describe(struct filesystem *fs, uid_t uid);
/* The same, with saves under way, runs and space as far as whoever asks may know of them. For a thread of
 * reports. -ENOMEM; -ECANCELED: nobody waits any more. */
errint control_describe_all(struct report *report, cJSON **out);
/* CKPTFS_IOCTL_LARGEST. */
void control_largest(fuse_req_t request, size_t room);
/* CKPTFS_IOCTL_USAGE. */
void control_usage(fuse_req_t request, uint64_t ino, size_t room);
/* CKPTFS_IOCTL_WRITERS. */
void control_writers(fuse_req_t request, uint64_t ino, size_t room);

/* CKPTFS_IOCTL_LIFE. */
void control_life(fuse_req_t request, uint64_t ino, size_t room);
/* CKPTFS_IOCTL_RECLAIM. */
void control_reclaim(fuse_req_t request, const void *in, size_t in_size, size_t room);
/* CKPTFS_IOCTL_POLICY_SHOW and CKPTFS_IOCTL_POLICY_SET; these answer at once. */
void control_show_policy(fuse_req_t request, uint64_t directory, size_t room);
void control_set_policy(fuse_req_t request, uint64_t directory, const void *in, size_t length);
/* Whether whoever asks may set something for a directory: its owner and root may. -EPERM; -EROFS; -ENOTDIR.
 */
errint control_may_set(fuse_req_t request, uint64_t directory);
/* The same of a file or a directory. */
errint control_may_mark(fuse_req_t request, uint64_t ino);
/* CKPTFS_IOCTL_PAUSE. */
void control_pause(fuse_req_t request, const void *in, size_t in_size, size_t room);
/* CKPTFS_IOCTL_EVENTS; it answers at once. */
void control_events(fuse_req_t request, uint64_t directory, const void *in, size_t in_size, size_t room);
/* CKPTFS_IOCTL_TEMPLATE_PUT, _REMOVE and _SHOW, and CKPTFS_IOCTL_SOURCE; these answer at once. False: it is
 * none of them. */
bool control_template(fuse_req_t request, uint64_t directory, unsigned command, const void *in,
                      size_t in_size, size_t room);
/* CKPTFS_IOCTL_PIN, which answers at once, CKPTFS_IOCTL_MARKS and CKPTFS_IOCTL_KEEP. False: it is none of
 * them.
 */
bool control_keep(fuse_req_t request, uint64_t ino, unsigned command, const void *in, size_t in_size,
                  size_t room);
/* CKPTFS_IOCTL_ASSEMBLE; it answers at once. */
void control_assemble(fuse_req_t request, uint64_t ino, const void *in, size_t in_size, size_t room);
/* CKPTFS_IOCTL_EXPORT and CKPTFS_IOCTL_EXPORT_HALT; these answer at once. False: it is none of them. */
bool control_export(fuse_req_t request, uint64_t ino, unsigned command, const void *in, size_t in_size,
                    size_t room);
/* CKPTFS_IOCTL_TRASH_NEXT, which is answered at once, and CKPTFS_IOCTL_UNDELETE. */
void control_next_trash(fuse_req_t request, const void *in, size_t in_size, size_t room);
void control_undelete(fuse_req_t request, uint64_t directory, const void *in, size_t in_size);
void control_drop_trash(fuse_req_t request, const void *in, size_t in_size);
/* Takes the request over when the extended attribute is one of the figures of a file: true. */
bool control_answers_xattr(fuse_req_t request, uint64_t ino, const char *name, size_t room);

#endif
