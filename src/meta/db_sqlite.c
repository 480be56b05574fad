/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database engine of a store on one node: SQLite with a write-ahead log.
 *
 * Three connections. The *writer* does all the work. The *copier* moves the log into the database file. The
 * *pin* holds a read transaction while it does so. (A copy of the database has a fourth: db_sqlite_copy.c.)
 *
 * SQLite's synchronous=NORMAL would sync the log only at checkpoints, but for one place: the first commit
 * after the log was emptied syncs the log's new header before it overwrites old frames, while everybody
 * waits. Hence synchronous=OFF for the writer (its commits sync nothing at all) and NORMAL for the copier (it
 * syncs the log before it copies, and the database file when all is copied), with this rule in place of the
 * header's sync: *the log never restarts in place, it is only ever truncated to nothing.*
 *
 * - What the header's sync prevents: after a power cut the old header, valid, is followed by old frames up to
 *   some point, because new ones overwrote the rest. Replaying that would put old pages over newer ones.
 * - The writer restarts the log in place when all of it was copied and no reader uses it. The pin is such a
 *   reader: it is taken, under the caller's lock, before copying and given up, under that lock, after it; and
 *   in the same locked section the log is truncated if all of it was copied. So the writer never finds a log
 *   that is copied and unused. Where truncating fails, the writer goes back to NORMAL until it succeeds.
 * - After a truncation and a power cut, the file has either its old blocks with the old log, whole, since it
 * was synced before it was copied: replaying it changes nothing; or new blocks with a beginning of the new
 * log, whose frames are chained by checksums from the header on. A mixture would need a disk filesystem that
 * gives blocks to new data while a power cut can still bring their old file back; ext4, XFS and btrfs do not.
 * The truncated log is also synced at once, only not by those who commit.
 *
 * db_log_sync is fdatasync on a descriptor of the log of its own (SQLite's locks are on the other two files,
 * so it may be opened and closed freely). A commit is in the log when COMMIT returns, and it leaves the log
 * only by a truncation, which comes after both syncs of the copier. So it is on stable storage after the
 * fdatasync, whichever came first. The log's and the database's directory entries are synced when they are
 * opened.
 */
#include "meta/db.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "meta/db_sqlite.h"
#include "meta/db_sqlite_log.h"

enum {
    DB_CACHE_SLOTS = 256, /* a power of two, over twice the number of statements */
    DB_PAGE_CACHE_KIB = 24 * 1024,
    /* A change touches some ten pages, a few bytes in each, and all of each goes into the log. */
    DB_PAGE_SIZE = 1024,
    DB_FRAME_HEADER_SIZE = 24,
    DB_TELL_AGAIN_SECONDS = 5,
    DB_BUSY_MS = 5000, /* only somebody from outside can make us wait */
};

struct db_cached {
    const char *text;
    sqlite3_stmt *statement;
};

struct db {
    char *path;
    sqlite3 *writer;
    sqlite3 *copier; /* used without the lock, by one thread at a time */
    sqlite3 *pin;
    int log_fd;
    bool careful;          /* the writer syncs the log's header: truncating did not succeed */
    bool copied;           /* the last copy reached the end of the log */
    int log_frames;        /* after the last commit */
    int log_frames_pinned; /* at the last db_checkpoint_begin */
    _Atomic int told_code; /* the last failure that was logged, and when */
    _Atomic int64_t told_at;
    struct db_cached cache[DB_CACHE_SLOTS];
};

/* -- errors -----------------------------------------------------------------------------------------------
 */

/* SQLite takes a disk that cannot be read (it was pulled out, its filesystem shut down) for a damaged file.
 */
static bool db_disk_answers(const struct db *db)
{
    char byte;
    return db->log_fd < 0 || pread(db->log_fd, &byte, 1, 0) >= 0;
}

static errint db_errno(const struct db *db, sqlite3 *connection, int code)
{
    int system = connection ? sqlite3_system_errno(connection) : 0;
    switch (code & 0xff) {
    case SQLITE_FULL: return -ENOSPC;
    case SQLITE_NOMEM: return -ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return db_disk_answers(db) ? -EUCLEAN : -EIO;
    case SQLITE_READONLY: return -EROFS;
    case SQLITE_CANTOPEN: return system == ENOENT || system == EACCES ? -system : -EIO;
    case SQLITE_PERM: return -EACCES;
    case SQLITE_IOERR: return system == ENOSPC || system == EDQUOT ? -ENOSPC : -EIO;
    default: return -EIO;
    }
}

/* A disk that is full or gone fails everything, again and again: the same failure is told every few seconds.
 */
static bool db_was_told(struct db *db, int code)
{
    int64_t now = clock_monotonic(), last = atomic_load(&db->told_at);
    if (atomic_load(&db->told_code) == code && now - last < DB_TELL_AGAIN_SECONDS * CLOCK_NS_PER_SECOND)
        return true;
    atomic_store(&db->told_code, code);
    atomic_store(&db->told_at, now);
    return false;
}

errint db_sqlite_fail(struct db *db, sqlite3 *connection, int code, const char *doing)
{
    errint error = db_errno(db, connection, code);
    if (db_was_told(db, code))
        return error;
    const char *what = connection ? sqlite3_errmsg(connection) : sqlite3_errstr(code);
    if (error == -EIO && (code & 0xff) == SQLITE_CORRUPT)
        what = "the disk cannot be read";
    int system = connection && (code & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(connection) : 0;
    log_error("%s: %s%s%s (SQLite's error %d), in: %.60s", db->path, what, system ? ": " : "",
              system ? strerror(system) : "", code, doing);
    return error;
}

static errint db_pragma(struct db *db, sqlite3 *connection, const char *text)
{
    int code = sqlite3_exec(connection, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : db_sqlite_fail(db, connection, code, text);
}

/* -- open, close ------------------------------------------------------------------------------------------
 */

static int db_note_log(void *context, sqlite3 *connection, const char *name, int frames)
{
    (void)connection, (void)name;
    struct db *db = context;
    db->log_frames = frames;
    return SQLITE_OK;
}

static errint db_connect(struct db *db, bool create, const char *pragmas, sqlite3 **out)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (create ? SQLITE_OPEN_CREATE : 0);
    int code = sqlite3_open_v2(db->path, out, flags, db_sqlite_log_layer());
    if (code != SQLITE_OK) {
        errint error = db_errno(db, *out, code);
        if (error != -ENOENT)
            db_sqlite_fail(db, *out, code, "open");
        return error;
    }
    /* The copier never waits: it would make those wait who hold the lock for it. */
    sqlite3_busy_timeout(*out, out == &db->copier ? 0 : DB_BUSY_MS);
    return db_pragma(db, *out, pragmas);
}

static errint db_set_careful(struct db *db, bool careful)
{
    errint error =
        db_pragma(db, db->writer, careful ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = OFF");
    if (!error)
        db->careful = careful;
    return error;
}

/* Empties a log that is wholly copied. Where somebody from outside is in the way it stays, and that is no
 * error. */
static errint db_truncate_log(struct db *db, bool *emptied)
{
    int code = sqlite3_wal_checkpoint_v2(db->copier, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    *emptied = code == SQLITE_OK;
    if (code == SQLITE_OK) {
        db->log_frames = 0;
        return db->careful ? db_set_careful(db, false) : 0;
    }
    errint error = (code & 0xff) == SQLITE_BUSY ? 0 : db_sqlite_fail(db, db->copier, code, "empty the log");
    errint other = db->careful ? 0 : db_set_careful(db, true);
    return error ? error : other;
}

errint db_sqlite_sync_directory(const char *path)
{
    cleanup_free char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    const char *directory = dirname(copy);
    cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        errint error = -errno;
        log_error("%s: cannot sync the directory: %s", directory, strerror(errno));
        return error;
    }
    return 0;
}

static errint db_open_log(struct db *db)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s-wal", db->path) >= sizeof path)
        return -ENAMETOOLONG;
    db->log_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (db->log_fd < 0) {
        errint error = -errno;
        log_error("%s: cannot open the log: %s", path, strerror(errno));
        return error;
    }
    return db_sqlite_sync_directory(db->path);
}

errint db_sqlite_open_reader(struct db *db, sqlite3 **out)
{
    return db_connect(db, false, "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0", out);
}

static errint db_open_connections(struct db *db, bool create)
{
    char pragmas[320];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA page_size = %d; PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; PRAGMA "
             "wal_autocheckpoint = 0;"
             "PRAGMA temp_store = MEMORY; PRAGMA secure_delete = OFF; PRAGMA trusted_schema = OFF;"
             "PRAGMA cell_size_check = ON; PRAGMA cache_size = -%d",
             DB_PAGE_SIZE, DB_PAGE_CACHE_KIB);
    errint error = db_connect(db, create, pragmas, &db->writer);
    if (!error)
        error =
            db_connect(db, false, "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0", &db->copier);
    if (!error)
        error = db_connect(db, false, "PRAGMA wal_autocheckpoint = 0", &db->pin);
    if (!error) /* the first read makes or recovers the log, so that it can be opened and emptied */
        error = db_pragma(db, db->writer, "SELECT count(*) FROM sqlite_schema");
    if (!error)
        error = db_pragma(db, db->copier, "SELECT count(*) FROM sqlite_schema");
    if (error)
        return error;
    sqlite3_wal_hook(db->writer, db_note_log, db);
    sqlite3_db_config(db->writer, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_db_config(db->pin, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return db_open_log(db);
}

/* What is in the log although nothing was committed by this connection. */
static errint db_count_log(struct db *db)
{
    ssize_t frames = frames_count_committed(db->log_fd);
    if (frames >= 0)
        db->log_frames = (int)frames;
    return frames < 0 ? (errint)frames : 0;
}

errint db_open(const char *path, bool create, struct db **out)
{
    *out = NULL;
    struct db *db = calloc(1, sizeof *db);
    if (!db)
        return -ENOMEM;
    db->log_fd = -1;
    db->careful = true;
    db->path = strdup(path);
    errint error = db->path ? db_open_connections(db, create) : -ENOMEM;
    bool emptied = false;
    /* A full disk may not let the log into the database: that must not keep anybody from deleting something.
     */
    if (!error && (error = db_truncate_log(db, &emptied)) == -ENOSPC)
        error = 0;
    if (!error && !emptied)
        error = db_count_log(db);
    if (error) {
        db_close(db, false);
        return error;
    }
    *out = db;
    return 0;
}

errint db_close(struct db *db, bool trim)
{
    if (!db)
        return 0;
    errint error = 0;
    bool emptied;
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++)
        sqlite3_finalize(db->cache[i].statement);
    if (trim)
        error = db_truncate_log(db, &emptied);
    sqlite3_close(db->pin);
    sqlite3_close(db->writer);
    /* The last one to close removes the log, but only when it is emptied. */
    if (db->copier && (!trim || error))
        sqlite3_db_config(db->copier, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(db->copier);
    if (db->log_fd >= 0)
        close(db->log_fd);
    free(db->path);
    free(db);
    return error;
}

/* -- statements -------------------------------------------------------------------------------------------
 */

static bool db_parameters_in_order(sqlite3_stmt *statement, size_t count)
{
    int found = sqlite3_bind_parameter_count(statement);
    for (int i = 1; i <= found; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (!name || name[0] != '$' || atoi(name + 1) != i)
            return false;
    }
    return (size_t)found == count;
}

static errint db_prepare(struct db *db, struct db_cached *cached, const char *text, size_t count)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v3(db->writer, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
    if (code != SQLITE_OK)
        return db_sqlite_fail(db, db->writer, code, text);
    if (!db_parameters_in_order(statement, count)) {
        sqlite3_finalize(statement);
        log_error("%s: expected %zu parameters $1, $2, ... in order, found others in: %s", db->path, count,
                  text);
        return -EINVAL;
    }
    *cached = (struct db_cached){.text = text, .statement = statement};
    return 0;
}

static errint db_statement(struct db *db, const char *text, size_t count, sqlite3_stmt **out)
{
    size_t slot = ((uintptr_t)text * UINT64_C(0x9e3779b97f4a7c15)) >> 56;
    for (size_t i = 0; i < DB_CACHE_SLOTS; i++) {
        struct db_cached *cached = &db->cache[(slot + i) % DB_CACHE_SLOTS];
        errint error = cached->text ? 0 : db_prepare(db, cached, text, count);
        if (error)
            return error;
        if (cached->text == text) {
            *out = cached->statement;
            return 0;
        }
    }
    log_error("%s: more than %d statements", db->path, DB_CACHE_SLOTS);
    return -ENOMEM;
}

static int db_bind(sqlite3_stmt *statement, int index, const struct db_value *value)
{
    switch (value->type) {
    case DB_TYPE_INTEGER: return sqlite3_bind_int64(statement, index, value->integer);
    case DB_TYPE_TEXT:
        return sqlite3_bind_text64(statement, index, value->bytes, value->length, SQLITE_STATIC, SQLITE_UTF8);
    case DB_TYPE_BLOB: break;
    }
    /* A NULL pointer would bind NULL, which is not an empty blob. */
    return sqlite3_bind_blob64(statement, index, value->bytes ? value->bytes : "", value->length,
                               SQLITE_STATIC);
}

errint db_select_values(struct db *db, struct db_rows *rows, const char *text, const struct db_value *values,
                        size_t count)
{
    *rows = (struct db_rows){0};
    sqlite3_stmt *statement;
    errint error = db_statement(db, text, count, &statement);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++) {
        int code = db_bind(statement, (int)i + 1, &values[i]);
        if (code != SQLITE_OK)
            return db_sqlite_fail(db, db->writer, code, text);
    }
    *rows = (struct db_rows){.db = db, .statement = statement};
    return 0;
}

int db_next(struct db_rows *rows)
{
    int code = sqlite3_step(rows->statement);
    if (code == SQLITE_ROW)
        return 1;
    if (code == SQLITE_DONE)
        return 0;
    return db_sqlite_fail(rows->db, rows->db->writer, code, sqlite3_sql(rows->statement));
}

int64_t db_integer(const struct db_rows *rows, int column)
{
    return sqlite3_column_int64(rows->statement, column);
}

const void *db_bytes(const struct db_rows *rows, int column, size_t *length)
{
    const void *bytes = sqlite3_column_blob(rows->statement, column);
    *length = (size_t)sqlite3_column_bytes(rows->statement, column);
    return bytes;
}

void db_finish(struct db_rows *rows)
{
    if (rows->statement)
        sqlite3_reset(rows->statement);
    rows->statement = NULL;
}

errint db_run_values(struct db *db, const char *text, const struct db_value *values, size_t count)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select_values(db, &rows, text, values, count);
    return error ? error : db_next(&rows);
}

uint64_t db_changed(const struct db *db)
{
    return (uint64_t)sqlite3_changes64(db->writer);
}

/* -- transactions -----------------------------------------------------------------------------------------
 */

errint db_begin(struct db *db)
{
    return db_run(db, "BEGIN IMMEDIATE");
}

errint db_commit(struct db *db)
{
    return db_run(db, "COMMIT");
}

void db_rollback(struct db *db)
{
    /* A full disk or lack of memory may have rolled it back already. */
    if (!sqlite3_get_autocommit(db->writer))
        (void)db_run(db, "ROLLBACK"); /* fails only where there is nothing to roll back; logged there */
}

/* -- whole databases --------------------------------------------------------------------------------------
 */

errint db_execute(struct db *db, const char *text)
{
    return db_pragma(db, db->writer, text);
}

int db_has_table(struct db *db, const char *table)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(db, &rows, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1",
                             DB_TEXT(table));
    return error ? error : db_next(&rows);
}

/* -- the log ----------------------------------------------------------------------------------------------
 */

int db_sqlite_log_fd(const struct db *db)
{
    return db->log_fd;
}

const char *db_sqlite_path(const struct db *db)
{
    return db->path;
}

uint64_t db_log_commits(const struct db *db)
{
    return (uint64_t)db->log_frames;
}

size_t db_log_size(const struct db *db)
{
    return (size_t)db->log_frames * (DB_PAGE_SIZE + DB_FRAME_HEADER_SIZE);
}

errint db_log_sync(struct db *db)
{
    if (fdatasync(db->log_fd) < 0) {
        errint error = -errno;
        log_error("%s: cannot sync the log: %s", db->path, strerror(errno));
        return error;
    }
    /* A filesystem that is shut down during a sync may report success (seen on ext4 and XFS); it reads no
     * more. */
    if (db_disk_answers(db))
        return 0;
    log_error("%s: the disk went away while the log was synced", db->path);
    return -EIO;
}

int64_t db_disk_free(const struct db *db)
{
    struct statvfs disk;
    if (fstatvfs(db->log_fd, &disk) != 0)
        return INT64_MAX;
    return (int64_t)(disk.f_bavail * disk.f_frsize);
}

errint db_checkpoint_begin(struct db *db)
{
    db->copied = false;
    db->log_frames_pinned = db->log_frames;
    errint error = db_pragma(db, db->pin, "BEGIN; SELECT count(*) FROM sqlite_schema");
    if (error)
        sqlite3_exec(db->pin, "ROLLBACK", NULL, NULL, NULL);
    return error;
}

errint db_checkpoint_copy(struct db *db)
{
    int frames = 0, done = 0;
    int code = sqlite3_wal_checkpoint_v2(db->copier, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &done);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY)
        return db_sqlite_fail(db, db->copier, code, "copy the log into the database");
    db->copied = code == SQLITE_OK && frames == done;
    return 0;
}

bool db_checkpoint_is_whole(const struct db *db)
{
    return db->copied && db->log_frames == db->log_frames_pinned;
}

errint db_checkpoint_end(struct db *db, bool *emptied)
{
    *emptied = false;
    errint error = db_pragma(db, db->pin, "ROLLBACK");
    if (error || !db_checkpoint_is_whole(db))
        return error;
    return db_truncate_log(db, emptied);
}
