/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a directory can be mounted on, found out without touching what is mounted there.
 */
#ifndef CKPTFS_CMD_MOUNTPOINT_H
#define CKPTFS_CMD_MOUNTPOINT_H

/*
 * EXIT_FINE and the absolute path (the caller frees it), or the exit code after one line has been logged.
 * `store` is the absolute path of the store that is to be mounted: neither may lie within the other.
 */
int mountpoint_check(const char *path, const char *store, char **out);

#endif
