/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole databases: copies, and SQLite's own check.
 *
 * A copy is made by a connection of its own inside one read transaction: it sees one commit, whatever is
 * committed meanwhile, and nobody waits for it. (SQLite's backup from the writer itself would begin again
 * each time the log is emptied.) While it reads, the log cannot be emptied, only grow; the caller's `stop`
 * looks after that.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "meta/db_sqlite.h"

enum { COPY_STEP_PAGES = 256 };

/* -- checking ---------------------------------------------------------------------------------------------
 */

int db_check(struct db *db, void (*finding)(void *context, const char *text), void *context)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(db, &rows, "PRAGMA integrity_check(100)");
    if (error)
        return error;
    int more, count = 0;
    while ((more = db_next(&rows)) > 0) {
        size_t length;
        const char *line = db_bytes(&rows, 0, &length);
        cleanup_free char *text = strndup(line ? line : "", length);
        if (!text)
            return -ENOMEM;
        if (strcmp(text, "ok") == 0)
            continue;
        count++;
        if (finding)
            finding(context, text);
    }
    return more < 0 ? more : count;
}

/* SQLite's URI for a file of that name which does not change: then it makes no log beside it. */
static char *check_make_uri(const char *path)
{
    static const char digits[] = "0123456789abcdef";
    static const char end[] = "?immutable=1";
    char *uri = malloc(5 + 3 * strlen(path) + sizeof end);
    if (!uri)
        return NULL;
    char *at = stpcpy(uri, "file:");
    for (const unsigned char *from = (const unsigned char *)path; *from; from++) {
        if (*from != '%' && *from != '?' && *from != '#') {
            *at++ = (char)*from;
            continue;
        }
        *at++ = '%';
        *at++ = digits[*from >> 4];
        *at++ = digits[*from & 15];
    }
    memcpy(at, end, sizeof end);
    return uri;
}

static int check_connection(sqlite3 *connection, void (*finding)(void *context, const char *text),
                            void *context)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(connection, "PRAGMA integrity_check(100)", -1, &statement, NULL);
    int count = 0;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : "ok";
        if (text && strcmp(text, "ok") == 0)
            continue;
        count++;
        if (finding && text)
            finding(context, text);
    }
    sqlite3_finalize(statement);
    switch (code & 0xff) {
    case SQLITE_DONE: return count;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return -EUCLEAN;
    case SQLITE_NOMEM: return -ENOMEM;
    default: return -EIO;
    }
}

int db_check_file(const char *path, void (*finding)(void *context, const char *text), void *context)
{
    cleanup_free char *uri = check_make_uri(path);
    if (!uri)
        return -ENOMEM;
    if (access(path, R_OK) < 0)
        return -errno;
    sqlite3 *connection = NULL;
    int code = sqlite3_open_v2(uri, &connection, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    int count = code == SQLITE_OK ? check_connection(connection, finding, context) : -EIO;
    sqlite3_close(connection);
    return count;
}

/* -- copying ----------------------------------------------------------------------------------------------
 */

struct db_copy {
    struct db *db;
    sqlite3 *source, *target;
    bool (*stop)(void *context);
    void *context;
    struct frames_place place;
    struct redo_file database; /* as it was, where that had all of the log */
    bool settled;
};

errint db_copy_open(struct db *db, struct db_copy **out)
{
    *out = NULL;
    struct db_copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    copy->db = db;
    errint error = db_sqlite_open_reader(db, &copy->source);
    /* The first read takes longer than the others. */
    if (!error &&
        sqlite3_exec(copy->source, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) != SQLITE_OK)
        error = db_sqlite_fail(db, copy->source, sqlite3_errcode(copy->source), "back up");
    if (error) {
        db_copy_close(copy);
        return error;
    }
    *out = copy;
    return 0;
}

void db_copy_close(struct db_copy *copy)
{
    if (!copy)
        return;
    sqlite3_close(copy->source);
    free(copy);
}

static errint copy_find_place(struct db_copy *copy)
{
    struct frames frames;
    uint64_t commits = db_log_commits(copy->db);
    copy->settled = commits == 0 || db_checkpoint_is_whole(copy->db);
    errint error = copy->settled ? redo_look_at(db_sqlite_path(copy->db), &copy->database) : 0;
    if (error || commits == 0)
        return error;
    int begun = frames_begin(&frames, db_sqlite_log_fd(copy->db));
    if (begun <= 0)
        return begun < 0 ? begun : -EIO;
    return frames_take_place(&frames, (uint32_t)commits, &copy->place);
}

errint db_copy_begin(struct db_copy *copy)
{
    int code = sqlite3_exec(copy->source, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    return code == SQLITE_OK ? copy_find_place(copy)
                             : db_sqlite_fail(copy->db, copy->source, code, "back up");
}

bool db_sqlite_copy_place(const struct db_copy *copy, struct frames_place *place, struct redo_file *database)
{
    *place = copy->place;
    *database = copy->database;
    return copy->settled;
}

static errint copy_run(struct db_copy *copy)
{
    sqlite3_backup *backup = sqlite3_backup_init(copy->target, "main", copy->source, "main");
    if (!backup)
        return db_sqlite_fail(copy->db, copy->target, sqlite3_errcode(copy->target), "back up");
    int code = SQLITE_OK;
    bool stopped = false;
    while (code == SQLITE_OK && !stopped) {
        code = sqlite3_backup_step(backup, COPY_STEP_PAGES);
        stopped = code == SQLITE_OK && copy->stop && copy->stop(copy->context);
    }
    int finished = sqlite3_backup_finish(backup);
    if (stopped)
        return -ECANCELED;
    if (code == SQLITE_DONE)
        code = finished;
    return code == SQLITE_OK ? 0 : db_sqlite_fail(copy->db, copy->target, code, "back up");
}

static errint copy_open_target(struct db_copy *copy, const char *path)
{
    int code = sqlite3_open_v2(path, &copy->target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    /* What a crash leaves is thrown away: the file gets its name after the caller's one sync. */
    if (code == SQLITE_OK)
        code = sqlite3_exec(copy->target, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL,
                            NULL);
    return code == SQLITE_OK ? 0 : db_sqlite_fail(copy->db, copy->target, code, "back up");
}

static errint copy_pages(struct db_copy *copy, const char *path)
{
    errint error = copy_open_target(copy, path);
    if (!error)
        error = copy_run(copy);
    int code = sqlite3_close(copy->target);
    copy->target = NULL;
    return error ? error : code == SQLITE_OK ? 0 : -EIO;
}

static errint copy_sync(const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Nobody else's business: small files' bytes are in it. */
static errint copy_create(const char *path)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : 0;
}

static errint copy_publish(const char *temporary, const char *path)
{
    errint error = copy_sync(temporary);
    int complaints = error ? 0 : db_check_file(temporary, NULL, NULL);
    if (complaints > 0)
        log_error("%s: the copy does not pass the database's own check", path);
    if (complaints)
        return complaints > 0 ? -EUCLEAN : complaints;
    if (!error && rename(temporary, path) < 0)
        error = -errno;
    return error ? error : db_sqlite_sync_directory(path);
}

errint db_copy_write(struct db_copy *copy, const char *path, bool (*stop)(void *context), void *context)
{
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.part", path) >= sizeof temporary)
        return -ENAMETOOLONG;
    copy->stop = stop;
    copy->context = context;
    errint error = copy_create(temporary);
    if (!error)
        error = copy_pages(copy, temporary);
    if (!error)
        error = copy_publish(temporary, path);
    if (!error)
        return 0;
    unlink(temporary);
    if (error != -ECANCELED)
        log_error("%s: cannot write the backup: %s", path, strerror(-error));
    return error;
}

errint db_backup(struct db *db, const char *path, bool (*stop)(void *context), void *context)
{
    struct db_copy *copy;
    errint error = db_copy_open(db, &copy);
    if (!error)
        error = db_copy_begin(copy);
    if (!error)
        error = db_copy_write(copy, path, stop, context);
    db_copy_close(copy);
    return error;
}
