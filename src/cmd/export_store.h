/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of an export's sources, compared with the hashes that the store behind a mount has of them.
 */
#ifndef CKPTFS_CMD_EXPORT_STORE_H
#define CKPTFS_CMD_EXPORT_STORE_H

#include "ckpt/export.h"

/*
 * Has the mount that `path` lies on verify what the job reads. `*checked`: all of it was compared. It is not
 * where the path lies on no mount of ours, where the asker may not ask (only root and whoever mounted may),
 * and where a file has no hashes yet. EXIT_FINE; EXIT_DAMAGE_LEFT after a line for each file that is damaged;
 * or another exit code after a line.
 */
int export_store_check(const struct export_job *job, const char *path, bool *checked);

#endif
