/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs assemble` where the checkpoint, or the output, lies on a mount of ours. */
#ifndef CKPTFS_CMD_ASSEMBLE_MOUNTED_H
#define CKPTFS_CMD_ASSEMBLE_MOUNTED_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the open directory lies on a mount of ours. The mount is not asked. */
bool assemble_is_mounted(int directory);

/*
 * Bytes that a file of a mount's directory alone takes in the store: what was not shared. -1: not known.
 */
int64_t assemble_stored_bytes(int directory, const char *name);

/*
 * The path of the directory that stands for a checkpoint's in the view of the mount that it lies on, whether
 * it is there or not; NULL: it lies on no mount of ours, or in the view already, or no memory. The caller
 * frees it.
 */
char *assemble_view_of(const char *path);

/* The mountpoint of the mount of ours that a path lies on; NULL: none, or no memory. The caller frees it. */
char *assemble_mountpoint_of(const char *path);

/*
 * A name of a directory that does not depend on where its store is mounted: "STORE:PATH"; its path without
 * symbolic links where it lies on no mount of ours. NULL: no such directory, or no memory. The caller frees
 * it.
 */
char *assemble_origin_of(const char *path);

/*
 * Asks the mount to assemble the directory at `path` in its view, waits for it, and prints the view's path.
 * Without a handler, a signal ends the waiting, not the assembly. The exit code, after one line that says why
 * it is not EXIT_FINE; -1, and nothing is said, when it does not lie on a mount of ours.
 */
int assemble_in_view(const char *path);

#endif
