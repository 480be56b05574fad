/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who uses a mount, as far as /proc shows it to this user. Nothing on the mount itself is touched.
 */
#ifndef CKPTFS_CMD_HOLDERS_H
#define CKPTFS_CMD_HOLDERS_H

#include <stddef.h>

/*
 * Writes "process 12 (python3), 34 (bash)" for the first few processes that have a working directory, root,
 * program, open file or mapping below `mountpoint`; "" when none can be seen.
 */
void holders_describe(const char *mountpoint, char *out, size_t size);

/*
 * The same of one process for each mount namespace (a container has one) in which the mount with this device
 * number ("0:52", as mountinfo has it) is there.
 */
void holders_describe_copies(const char *device, char *out, size_t size);

#endif
