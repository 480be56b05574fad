/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory on a mount, as a command asks about it: by ioctls on the directory itself (fs/control.h), so
 * that the kernel says who asks, and whether he may be there at all.
 */
#ifndef CKPTFS_CMD_DIRECTORY_H
#define CKPTFS_CMD_DIRECTORY_H

#include "base/cleanup.h"

/* Opens a directory that is on a mount of ckptfs. EXIT_FINE and a descriptor of the caller's; or the exit
 * code after one line has been logged. */
int directory_open(const char *path, int *fd);

/* Asks by an ioctl: 0 or an errno. */
int directory_ask(int fd, unsigned long command, void *data);

/* Logs one line about an errno of directory_ask. Returns the exit code. */
int directory_explain(const char *path, int error);

/* The path of the directory so many levels above, without symbolic links. NULL: it has no such, or no memory.
 * The caller frees it. */
char *directory_above(const char *path, unsigned levels);

#endif
