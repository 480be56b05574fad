/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups of the database, by themselves (store/copies.h), each with a journal of what is committed after it
 * (meta/journal.h). One is written at the unmount, and while mounted at most every backup-interval seconds,
 * each if something has changed since the last; and at once where there is no journal that goes on, or when
 * it has become larger than the database. `ckptfs fsck --rebuild` goes back to them.
 *
 * A backup holds names, attributes, extents and small files. The bytes of other files are in the objects:
 * nothing that the newest pair needs of them is given back to the disk.
 */
#ifndef CKPTFS_FS_BACKUP_H
#define CKPTFS_FS_BACKUP_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "store/store.h"

struct filesystem;

/* Before the database is opened: a pair that only one half has its name of gets the other. */
void backup_finish_rotation(const struct store *store);
/* Before the namespace is changed: finds out whether the last unmount left a backup of it. */
void backup_prepare(struct filesystem *fs);
/* Starts the thread, which works at the lowest priority; nothing on a read-only mount. */
errint backup_start(struct filesystem *fs);
/* Ends it. `write`: a last backup, when something has changed; otherwise the one in work is given up. A
 * failure is logged, and costs the backup only. Blocks. */
void backup_stop(struct filesystem *fs, bool write);

#endif
