/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copies of the database that a store keeps, and how new they are.
 *
 * STORE/manifests/meta.db.backup is a copy, and meta.db.journal what was committed after it; the pair before
 * has ".1" at its end. What is being made has ".new".
 */
#ifndef CKPTFS_STORE_COPIES_H
#define CKPTFS_STORE_COPIES_H

#define COPIES_DIRECTORY     "manifests"
#define COPIES_BACKUP        COPIES_DIRECTORY "/meta.db.backup"
#define COPIES_BACKUP_OLDER  COPIES_BACKUP ".1"
#define COPIES_BACKUP_NEW    COPIES_BACKUP ".new"
#define COPIES_JOURNAL       COPIES_DIRECTORY "/meta.db.journal"
#define COPIES_JOURNAL_OLDER COPIES_JOURNAL ".1"
#define COPIES_JOURNAL_NEW   COPIES_JOURNAL ".new"

enum { COPIES_TEXT_MAX = 96 };

/*
 * What a rebuild of the store `path` would do, for a message: "restores it as of 2026-11-26T10:00:00Z", or
 * that it has nothing to restore it from. By the times of the files: whether they are whole is not looked at.
 */
void copies_describe(const char *path, char text[COPIES_TEXT_MAX]);

#endif
