/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ckptfs export CHECKPOINT`: the mount is asked to export it to where its policy says.
 */
#ifndef CKPTFS_CMD_EXPORT_ASKED_H
#define CKPTFS_CMD_EXPORT_ASKED_H

#include <stdbool.h>

/*
 * Asks the mount that the directory lies on, waits, and prints where the export is, unless `quiet`. A signal
 * ends the waiting, not the export. The exit code, after one line that says why it is not EXIT_FINE.
 */
int export_asked(const char *path, bool quiet);

#endif
