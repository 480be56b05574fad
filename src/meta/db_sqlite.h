/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SQLite engine share; only they include it. */
#ifndef CKPTFS_META_DB_SQLITE_H
#define CKPTFS_META_DB_SQLITE_H

#include <sqlite3.h>

#include "meta/db.h"

/* Logs what failed on `connection` (NULL: unknown), and gives the errno for it. Thread-safe. */
errint db_sqlite_fail(struct db *db, sqlite3 *connection, int code, const char *doing);
/* A further connection that only reads. The caller closes *out, on an error too. Needs no lock. */
errint db_sqlite_open_reader(struct db *db, sqlite3 **out);
/* The directory entry of the file `path` is on stable storage. */
errint db_sqlite_sync_directory(const char *path);

#endif
