/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the mount that a checkpoint lies on. */
#include "cmd/assemble_mounted.h"

#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "fs/control.h"

bool assemble_is_mounted(int directory)
{
    struct statfs disk;
    return fstatfs(directory, &disk) == 0 && disk.f_type == FUSE_SUPER_MAGIC;
}

int64_t assemble_stored_bytes(int fd)
{
    struct control_usage usage;
    return ioctl(fd, CKPTFS_IOCTL_USAGE, &usage) == 0 ? (int64_t)usage.unique_bytes : -1;
}
