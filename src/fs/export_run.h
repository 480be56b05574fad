/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of the `export` command: what it says goes into the log.
 */
#ifndef CKPTFS_FS_EXPORT_RUN_H
#define CKPTFS_FS_EXPORT_RUN_H

#include "fs/export.h"
#include "fs/export_order.h"

/*
 * Blocks until the command has ended. It is made to end when `end_fd` becomes readable, and when the mount is
 * gone from its mountpoint: only what the command has open keeps it then. The command's exit code, and in
 * `problem` the last line that it said; -ECANCELED: it was made to end; another negative errno: it could not
 * be run.
 */
int export_run(const struct export_order *order, enum export_reason reason, const char *mountpoint,
               int end_fd, char problem[EXPORT_PROBLEM_MAX]);

#endif
