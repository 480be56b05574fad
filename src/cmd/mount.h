/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting, for the command and for mount(8)'s helper.
 */
#ifndef CKPTFS_CMD_MOUNT_H
#define CKPTFS_CMD_MOUNT_H

#include <stdbool.h>

#include "cmd/mount_options.h"

/*
 * Mounts `store` on `mountpoint` and starts the keeper. In the background: returns when the mount answers. In
 * the foreground: when it has ended. Returns an exit code (cmd/exit.h); one line is logged for each problem.
 */
int mount_start(const char *store, const char *mountpoint, const struct mount_options *options,
                bool foreground);

#endif
