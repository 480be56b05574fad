/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel mount: attaching a /dev/fuse descriptor to a directory and taking it away again, as root by
 * system calls, as another user through fusermount3. Serving the mount is not this module's work.
 */
#ifndef CKPTFS_FS_MOUNT_H
#define CKPTFS_FS_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

enum mount_problem {
    MOUNT_FINE = 0,
    MOUNT_NO_FUSE, /* /dev/fuse or fusermount3 missing or not permitted */
    MOUNT_REFUSED, /* by the kernel or fusermount3 */
    MOUNT_FAILED,  /* anything else; the line says what */
};

struct mount_request {
    const char *store;      /* absolute: what mountinfo shows as the source */
    const char *mountpoint; /* absolute */
    bool allow_other;
    unsigned long flags; /* MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME */
};

/*
 * Whether this process can open the FUSE device at all, as root; others ask fusermount3, which knows by
 * itself. One line is logged for a problem.
 */
enum mount_problem mount_check_device(void);

/*
 * Mounts, always with default_permissions. On success *fuse_fd is the caller's, close-on-exec; requests wait
 * until somebody reads it. One line is logged for each problem.
 */
enum mount_problem mount_attach(const struct mount_request *request, int *fuse_fd);

/*
 * Unmounts: 0; -EBUSY while a process uses it; -EPERM when the mount is another user's; -EINVAL when nothing
 * is mounted there; -ENOENT when fusermount3 is missing. `lazy` detaches at once, and the mount ends with its
 * last user. Logs nothing. May block while the kernel writes mapped pages back through the daemon.
 */
errint mount_detach(const char *mountpoint, bool lazy);

#endif
