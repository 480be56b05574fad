/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups of the database, by themselves: STORE/manifests/meta.db.backup, and the one before it with ".1".
 * One is written at the unmount, and while mounted at most every backup-interval seconds, each if something
 * has changed since the last. `ckptfs fsck --rebuild` goes back to them.
 *
 * A backup holds names, attributes, extents and small files. The bytes of other files are in the objects: one
 * that was deleted, or given back to the disk, after the backup does not come back with it.
 */
#ifndef CKPTFS_FS_BACKUP_H
#define CKPTFS_FS_BACKUP_H

#include <stdbool.h>

#include "base/cleanup.h"

#define BACKUP_DIRECTORY "manifests"
#define BACKUP_NEWEST    BACKUP_DIRECTORY "/meta.db.backup"
#define BACKUP_OLDER     BACKUP_NEWEST ".1"
#define BACKUP_NEW       BACKUP_NEWEST ".new"

struct filesystem;

/* Before the namespace is changed: finds out whether the last unmount left a backup of it. */
void backup_prepare(struct filesystem *fs);
/* Starts the thread, which works at the lowest priority; nothing on a read-only mount. */
errint backup_start(struct filesystem *fs);
/* Ends it. `write`: a last backup, when something has changed; otherwise the one in work is given up. A
 * failure is logged, and costs the backup only. Blocks. */
void backup_stop(struct filesystem *fs, bool write);

#endif
