/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mounted filesystem as a command sees it: found in the mount table, asked through the mount. Asking
 * happens in a child process, because a daemon that hangs would keep the one that asks, beyond any signal.
 */
#ifndef CKPTFS_CMD_MOUNTED_H
#define CKPTFS_CMD_MOUNTED_H

#include "fs/mount_table.h"

/* How long a daemon may take to answer before a command gives up. */
#define MOUNTED_ANSWER_SECONDS 10

/*
 * The mount that `argument`, a mountpoint or a store, means. EXIT_FINE and *out, which lives as long as the
 * table (the caller releases that in any case); or the exit code after one line has been logged.
 */
int mounted_find(const char *argument, struct mount_table *table, const struct mount_entry **out);

/*
 * The status of a mount as JSON text, which the caller frees. EXIT_FINE, or the exit code after one line has
 * been logged.
 */
int mounted_ask_status(const struct mount_entry *entry, unsigned seconds, char **json);

/*
 * Asks by one of the ioctls of fs/control.h on the mount's root: `data`, of `size` bytes, goes there and
 * comes back. Otherwise as mounted_ask_status.
 */
int mounted_ask_ioctl(const struct mount_entry *entry, unsigned seconds, unsigned long command, void *data,
                      size_t size);
/* The same without a word: 0 or -errno. */
errint mounted_try_ioctl(const struct mount_entry *entry, unsigned seconds, unsigned long command, void *data,
                         size_t size);

#endif
