/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SQLite engine share; only they include it. */
#ifndef CKPTFS_META_DB_SQLITE_H
#define CKPTFS_META_DB_SQLITE_H

#include <sqlite3.h>

#include "meta/db.h"
#include "meta/db_sqlite_redo.h"

/* Logs what failed on `connection` (NULL: unknown), and gives the errno for it. Thread-safe. */
errint db_sqlite_fail(struct db *db, sqlite3 *connection, int code, const char *doing);
/* A further connection that only reads. The caller closes *out, on an error too. Needs no lock. */
errint db_sqlite_open_reader(struct db *db, sqlite3 **out);
/* A descriptor of the log, which stays the database's. */
int db_sqlite_log_fd(const struct db *db);
/* The file that the database was opened with. */
const char *db_sqlite_path(const struct db *db);
/*
 * The place in the log that a copy is of; zeros where the log was empty. True: all of the log was in the
 * database file, which was `database` then, so that another log may have begun since.
 */
bool db_sqlite_copy_place(const struct db_copy *copy, struct frames_place *place, struct redo_file *database);
/* The directory entry of the file `path` is on stable storage. */
errint db_sqlite_sync_directory(const char *path);

#endif
