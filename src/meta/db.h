/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One database connection for the namespace: transactions, statements with parameters, and a log whose sync
 * is a separate step. It is the only part of meta that knows which engine is behind it.
 *
 * The SQL is one text for every engine. Parameters are $1, $2, ..., and the first uses of them come in that
 * order. Tables are declared with INTEGER (64 bits), BLOB, TEXT and WITHOUT ROWID: an engine that calls these
 * otherwise, or needs no such hint, translates them in db_execute.
 *
 * A commit survives the death of the process, and a power cut only after db_log_sync: it never waits for a
 * disk. The log is emptied by db_checkpoint_begin, _copy and _end.
 *
 * Not thread-safe: the caller holds one lock around everything, except where a function says that it needs
 * none. Errors: -ENOSPC full, -EUCLEAN damaged or no database, -ENOMEM, -EROFS, -EIO anything else; logged
 * here, once.
 */
#ifndef CKPTFS_META_DB_H
#define CKPTFS_META_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct db;

/* Opens the database in the file `path`, made when `create`; else -ENOENT when it is not there. */
errint db_open(const char *path, bool create, struct db **out);
/* Closes and releases it, whatever is returned. `trim`: the log is copied into the database first. NULL is
 * allowed. */
errint db_close(struct db *db, bool trim);

/* -- transactions -----------------------------------------------------------------------------------------
 */

/* Starts a transaction that may write. */
errint db_begin(struct db *db);
/* On an error the transaction is still open: db_rollback. */
errint db_commit(struct db *db);
/* Nothing of the transaction remains; the connection can be used. Also where none is open. */
void db_rollback(struct db *db);

/* -- statements -------------------------------------------------------------------------------------------
 */

enum db_type { DB_TYPE_INTEGER, DB_TYPE_BLOB, DB_TYPE_TEXT };

/* A parameter. Bytes are not copied: they must stay until the statement has run or its rows are finished. */
struct db_value {
    enum db_type type;
    int64_t integer;
    const void *bytes;
    size_t length;
};

#define DB_INTEGER(number) ((struct db_value){.type = DB_TYPE_INTEGER, .integer = (int64_t)(number)})
#define DB_BLOB(data, size)                                                                                  \
    ((struct db_value){.type = DB_TYPE_BLOB, .bytes = (data), .length = (size_t)(size)})
#define DB_TEXT(string) ((struct db_value){.type = DB_TYPE_TEXT, .bytes = (string), .length = strlen(string)})

#define DB_VALUES(...)                                                                                       \
    (const struct db_value[]){__VA_ARGS__},                                                                  \
        sizeof((const struct db_value[]){__VA_ARGS__}) / sizeof(struct db_value)

/* The rows of a running statement; {0} holds none. */
struct db_rows {
    struct db *db;
    void *statement;
};

/*
 * db_run(db, text, value...) runs a statement that gives no rows; db_select(db, &rows, text, value...) starts
 * one that does. `text` must be constant and stay where it is: it is prepared once for the connection's life
 * and found again by its address. While its rows are not finished, the same text cannot be started again.
 */
#define db_run(db, text, ...)          db_run_values(db, text, DB_VALUES(__VA_ARGS__))
#define db_select(db, rows, text, ...) db_select_values(db, rows, text, DB_VALUES(__VA_ARGS__))

errint db_run_values(struct db *db, const char *text, const struct db_value *values, size_t count);
errint db_select_values(struct db *db, struct db_rows *rows, const char *text, const struct db_value *values,
                        size_t count);

/* Rows that the last db_run inserted, updated or deleted. */
uint64_t db_changed(const struct db *db);

/* The next row: 1, 0 after the last, or an error. */
int db_next(struct db_rows *rows);
/* Columns of the current row, from 0. Bytes stay valid until the next db_next or db_finish; NULL when empty.
 */
int64_t db_integer(const struct db_rows *rows, int column);
const void *db_bytes(const struct db_rows *rows, int column, size_t *length);
void db_finish(struct db_rows *rows);

#define cleanup_rows __attribute__((cleanup(db_finish)))

/* -- whole databases --------------------------------------------------------------------------------------
 */

/* Runs a text of several statements without parameters and without caching them (tables, upgrades). */
errint db_execute(struct db *db, const char *text);
/* Whether a table of this name exists: 1, 0 or an error. */
int db_has_table(struct db *db, const char *table);
/*
 * A copy of the database in three steps. _open makes ready for it; _begin, the only one that needs the lock,
 * decides which commit it is of. _write makes the file `path`, on stable storage when it returns. It has
 * passed the engine's own check (-EUCLEAN); an existing file is replaced. `stop` is asked after each small
 * step, and may sleep: true ends it with -ECANCELED. NULL: never. It blocks; others may commit meanwhile, but
 * the log cannot be emptied until _close. That is allowed at any time, and for NULL.
 */
struct db_copy;
errint db_copy_open(struct db *db, struct db_copy **out);
errint db_copy_begin(struct db_copy *copy);
errint db_copy_write(struct db_copy *copy, const char *path, bool (*stop)(void *context), void *context);
void db_copy_close(struct db_copy *copy);
/* All of them, for who is alone with the database. */
errint db_backup(struct db *db, const char *path, bool (*stop)(void *context), void *context);

/*
 * The engine's own check of all that the database has: `finding` for each complaint (the engine's words; some
 * hundred at most). The number of complaints, or an error. May be NULL.
 */
int db_check(struct db *db, void (*finding)(void *context, const char *text), void *context);
/* The same of a file that nobody has open: nothing is written, not even beside it. No database: -EUCLEAN. */
int db_check_file(const char *path, void (*finding)(void *context, const char *text), void *context);

/* -- the log ----------------------------------------------------------------------------------------------
 */

/* Bytes of commits in the log that were not yet moved into the database. */
size_t db_log_size(const struct db *db);
/* Bytes that the disk has for others than root; unknown: INT64_MAX. */
int64_t db_disk_free(const struct db *db);
/* How far the log has come, in units of the engine; 0 when it is empty. */
uint64_t db_log_commits(const struct db *db);

/* What was committed before the call is on stable storage afterwards. Needs no lock, and blocks. */
errint db_log_sync(struct db *db);

/*
 * Moves the log into the database in three steps: _begin marks its end, _copy (which needs no lock, blocks,
 * and may run while others commit) moves all up to there, and _end empties the log when nothing was committed
 * in between; else what is moved already is not moved again by the next round. `emptied` tells which it was:
 * then every commit before is on stable storage. Each _begin that returned 0 needs its _end.
 */
errint db_checkpoint_begin(struct db *db);
errint db_checkpoint_copy(struct db *db);
errint db_checkpoint_end(struct db *db, bool *emptied);
/* Whether db_checkpoint_end would empty the log now. */
bool db_checkpoint_is_whole(const struct db *db);

#endif
