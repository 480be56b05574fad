/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of a namespace, how they are made, and how those of an older version become these. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "meta/internal.h"

/*
 * Two things are said twice, since each saves an index that every create would have to write: an object that
 * is being written knows its file (owner), as the file knows its object; and nlink counts the rows of name.
 */
#define SCHEMA_SHARING                                                                                       \
    /* Hashed objects: the hash of all their chunks; shared: equal bytes elsewhere were looked after. */     \
    "CREATE TABLE summed (object INTEGER PRIMARY KEY, root BLOB NOT NULL, shared INTEGER NOT NULL);"         \
    "CREATE TABLE segment (object INTEGER NOT NULL, object_offset INTEGER NOT NULL,"                         \
    " length INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL, uid INTEGER NOT NULL,"           \
    " PRIMARY KEY (object, object_offset, length)) WITHOUT ROWID;"                                           \
    "CREATE INDEX segment_by_hash ON segment (low);" /* Objects that lost an extent and are still used: they \
                                                        may have bytes that nothing needs. */                \
    "CREATE TABLE shrunk (object INTEGER PRIMARY KEY);" /* Ranges whose bytes are not what the object's      \
                                                           hashes say. */                                    \
    "CREATE TABLE damage (object INTEGER NOT NULL, object_offset INTEGER NOT NULL,"                          \
    " length INTEGER NOT NULL, PRIMARY KEY (object, object_offset)) WITHOUT ROWID;"

/*
 * The totals: one row from a clean stop until the first change. Where there is none they are counted. The sum
 * of the files' sizes is in MiB and the rest, since it may be more than an integer holds.
 */
#define SCHEMA_TOTAL                                                                                         \
    "CREATE TABLE total (id INTEGER PRIMARY KEY, inodes INTEGER NOT NULL, objects INTEGER NOT NULL,"         \
    " dirty INTEGER NOT NULL, torn INTEGER NOT NULL, shadows INTEGER NOT NULL, mebibytes INTEGER NOT NULL,"  \
    " bytes INTEGER NOT NULL);"

/* Sums of files that were asked for; meta/checksum.h says what the basis is. */
#define SCHEMA_CHECKSUM                                                                                      \
    "CREATE TABLE checksum (ino INTEGER PRIMARY KEY, basis BLOB NOT NULL, sum BLOB NOT NULL);"

/* What directories show besides their names, and from which files below them it was made, with their mtimes.
 * The latter stay when it is withdrawn. */
#define SCHEMA_ASSEMBLED                                                                                     \
    "CREATE TABLE assembled (directory INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL,"          \
    " PRIMARY KEY (directory, name)) WITHOUT ROWID;"                                                         \
    "CREATE UNIQUE INDEX assembled_by_ino ON assembled (ino);"                                               \
    "CREATE TABLE assembled_input (directory INTEGER NOT NULL, path BLOB NOT NULL, input INTEGER NOT NULL,"  \
    " mtime INTEGER NOT NULL, PRIMARY KEY (directory, path)) WITHOUT ROWID;"                                 \
    "CREATE INDEX assembled_input_by_input ON assembled_input (input);"

/* Directories whose assembled file somebody removed, renamed or wrote to (meta/beside.h). */
#define SCHEMA_REMOVED "CREATE TABLE assembled_removed (directory INTEGER PRIMARY KEY);"

/* Instead of a file's unsynced bytes, a power cut leaves those of its stand-in (meta/stand_in.h). */
#define SCHEMA_STAND_IN                                                                                      \
    "CREATE TABLE stand_in (ino INTEGER PRIMARY KEY, hidden INTEGER NOT NULL);"                              \
    "CREATE UNIQUE INDEX stand_in_by_hidden ON stand_in (hidden);"

/* Settings of directories (meta/policy.h) and who set them, and where files lie that are lent
 * (meta/template.h). */
#define SCHEMA_POLICY                                                                                        \
    "CREATE TABLE policy (directory INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,"               \
    " uid INTEGER NOT NULL DEFAULT -1, gid INTEGER NOT NULL DEFAULT -1,"                                     \
    " PRIMARY KEY (directory, key)) WITHOUT ROWID;"                                                          \
    "CREATE TABLE template (directory INTEGER PRIMARY KEY, hidden INTEGER NOT NULL);"                        \
    "CREATE UNIQUE INDEX template_by_hidden ON template (hidden);"

/* What is known of the checkpoints (meta/checkpoint.h), and who wrote them (meta/writer.h). */
#define SCHEMA_CHECKPOINT                                                                                    \
    "CREATE TABLE checkpoint (directory INTEGER PRIMARY KEY, run INTEGER NOT NULL, state INTEGER NOT NULL,"  \
    " marks INTEGER NOT NULL, step INTEGER NOT NULL, completed INTEGER NOT NULL, bytes INTEGER NOT NULL);"   \
    "CREATE INDEX checkpoint_by_run ON checkpoint (run);"                                                    \
    "CREATE TABLE writer (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, pid INTEGER NOT NULL,"               \
    " started INTEGER NOT NULL, boot BLOB NOT NULL);"                                                        \
    "CREATE UNIQUE INDEX writer_by_run ON writer (run, pid, started, boot);"

/* What no policy removes (meta/pin.h). */
#define SCHEMA_PIN "CREATE TABLE pin (ino INTEGER PRIMARY KEY);"

/* All that format 5 has and format 4 had not. */
#define SCHEMA_LIFE SCHEMA_POLICY SCHEMA_REMOVED SCHEMA_CHECKPOINT SCHEMA_PIN SCHEMA_EVENT SCHEMA_TRASH

/* No table: a program of format 5 would read files that were shed (meta/shed.h) as zeros. And what the trash
 * shows under a name is found by an index. */
#define SCHEMA_SHED "CREATE INDEX IF NOT EXISTS trash_by_name ON trash (parent, name);"

/* What the daemon has told of last (meta/event.h). */
#define SCHEMA_EVENT                                                                                         \
    "CREATE TABLE event (sequence INTEGER PRIMARY KEY, directory INTEGER NOT NULL, uid INTEGER NOT NULL,"    \
    " pending INTEGER NOT NULL, text BLOB NOT NULL);"

/* What was removed of complete checkpoints (meta/trash.h): `kind` is an enum meta_trash_kind. */
#define SCHEMA_TRASH                                                                                         \
    "CREATE TABLE trash (ino INTEGER PRIMARY KEY, directory INTEGER NOT NULL, kind INTEGER NOT NULL,"        \
    " parent INTEGER NOT NULL, name BLOB NOT NULL, removed INTEGER NOT NULL, remover INTEGER NOT NULL,"      \
    " reason BLOB NOT NULL);"                                                                                \
    "CREATE INDEX trash_by_parent ON trash (parent);"                                                        \
    "CREATE INDEX trash_by_name ON trash (parent, name);"                                                    \
    "CREATE INDEX trash_by_directory ON trash (directory) WHERE directory <> 0;"

static const char schema_tables[] =
    "CREATE TABLE format (version INTEGER NOT NULL);"
    "CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
    /* One row: all smaller numbers are taken. clean: they are exact, nothing was given out since. */
    "CREATE TABLE counter (id INTEGER PRIMARY KEY, ino INTEGER NOT NULL, object INTEGER NOT NULL,"
    " cookie INTEGER NOT NULL, clean INTEGER NOT NULL);"
    /* One row: the last request of the kernel that changed something, and the inode that goes with it. */
    "CREATE TABLE answered (id INTEGER PRIMARY KEY, request INTEGER NOT NULL, ino INTEGER NOT NULL);"
    /* kind and state: enum meta_kind and meta_state; times in ns since the epoch. */
    "CREATE TABLE inode (ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL,"
    " uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL,"
    " atime INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, btime INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, state INTEGER NOT NULL, object INTEGER NOT NULL,"
    " synced_size INTEGER NOT NULL);"
    "CREATE INDEX inode_marked ON inode (state) WHERE state <> 0;"
    "CREATE INDEX inode_nameless ON inode (nlink) WHERE nlink = 0;"
    "CREATE TABLE name (parent INTEGER NOT NULL, name BLOB NOT NULL, cookie INTEGER NOT NULL,"
    " ino INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX name_by_cookie ON name (parent, cookie);"
    "CREATE INDEX name_by_ino ON name (ino);"
    "CREATE TABLE content (ino INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
    "CREATE TABLE extent (ino INTEGER NOT NULL, file_offset INTEGER NOT NULL, length INTEGER NOT NULL,"
    " object INTEGER NOT NULL, object_offset INTEGER NOT NULL, PRIMARY KEY (ino, file_offset))"
    " WITHOUT ROWID;"
    "CREATE INDEX extent_by_object ON extent (object, object_offset);"
    "CREATE TABLE object (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, owner INTEGER NOT NULL);"
    "CREATE TABLE xattr (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,"
    " PRIMARY KEY (ino, name)) WITHOUT ROWID;"
    /* When the successor, which has the name now, loses its bytes, the name goes back to the replaced
     * inode.
     */
    "CREATE TABLE shadow (parent INTEGER NOT NULL, name BLOB NOT NULL, replaced INTEGER NOT NULL,"
    " successor INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;"
    "CREATE INDEX shadow_by_replaced ON shadow (replaced);"
    "CREATE INDEX shadow_by_successor ON shadow (successor);" SCHEMA_SHARING SCHEMA_TOTAL SCHEMA_CHECKSUM
        SCHEMA_ASSEMBLED SCHEMA_STAND_IN SCHEMA_LIFE;

const struct schema_step *schema_steps(size_t *count)
{
    static const struct schema_step steps[] = {{.from = 1, .text = SCHEMA_SHARING SCHEMA_TOTAL},
                                               {.from = 2, .text = SCHEMA_CHECKSUM},
                                               {.from = 3, .text = SCHEMA_ASSEMBLED SCHEMA_STAND_IN},
                                               {.from = 4, .text = SCHEMA_LIFE},
                                               {.from = 5, .text = SCHEMA_SHED}};
    *count = sizeof steps / sizeof *steps;
    return steps;
}

/* -- making -----------------------------------------------------------------------------------------------
 */

static errint schema_fill(struct db *db)
{
    int64_t now = clock_file_time();
    errint error = db_execute(db, schema_tables);
    if (!error)
        error = db_run(db, "INSERT INTO format (version) VALUES ($1)", DB_INTEGER(META_FORMAT_VERSION));
    if (!error)
        error = db_run(db, "INSERT INTO counter (id, ino, object, cookie, clean) VALUES (1, $1, 1, $2, 1)",
                       DB_INTEGER(META_ROOT_INO + 1), DB_INTEGER(META_COOKIE_FIRST));
    if (!error)
        error = db_run(db, "INSERT INTO answered (id, request, ino) VALUES (1, 0, 0)");
    if (!error)
        error =
            db_run(db,
                   "INSERT INTO inode (ino, mode, nlink, uid, gid, rdev, size, atime, mtime, ctime, btime,"
                   " kind, state, object, synced_size)"
                   " VALUES ($1, $2, 2, $3, $4, 0, 0, $5, $6, $7, $8, 0, 0, 0, 0)",
                   DB_INTEGER(META_ROOT_INO), DB_INTEGER(S_IFDIR | 0755), DB_INTEGER(geteuid()),
                   DB_INTEGER(getegid()), DB_INTEGER(now), DB_INTEGER(now), DB_INTEGER(now), DB_INTEGER(now));
    return error;
}

static errint schema_make(struct db *db)
{
    errint error = db_begin(db);
    if (!error)
        error = schema_fill(db);
    if (!error)
        error = db_commit(db);
    if (error)
        db_rollback(db);
    return error;
}

/* Removes what an interrupted schema_create left. */
static errint schema_remove_rest(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char rest[PATH_MAX];
        if ((size_t)snprintf(rest, sizeof rest, "%s%s", path, ends[i]) >= sizeof rest)
            return -ENAMETOOLONG;
        if (unlink(rest) < 0 && errno != ENOENT)
            return -errno;
    }
    return 0;
}

/* A log without its database would be replayed into the new one. */
static errint schema_refuse_log(const char *path)
{
    char log[PATH_MAX];
    if ((size_t)snprintf(log, sizeof log, "%s-wal", path) >= sizeof log)
        return -ENAMETOOLONG;
    if (access(log, F_OK) < 0)
        return errno == ENOENT ? 0 : -errno;
    log_error(
        "%s: the database is missing but its log %s is there: restore the database, or move the log away",
        path, log);
    return -EUCLEAN;
}

errint schema_create(const char *path)
{
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.new", path) >= sizeof temporary)
        return -ENAMETOOLONG;
    errint error = schema_refuse_log(path);
    if (!error)
        error = schema_remove_rest(temporary);
    if (error)
        return error;
    struct db *db;
    error = db_open(temporary, true, &db);
    if (error)
        return error;
    error = schema_make(db);
    errint closed = db_close(db, error == 0);
    if (!error)
        error = closed;
    if (!error && rename(temporary, path) < 0)
        error = -errno;
    return error; /* db_open syncs the directory when the database is opened by its name */
}

/* -- upgrading --------------------------------------------------------------------------------------------
 */

static errint schema_format(struct db *db, int *format)
{
    int found = db_has_table(db, "format");
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    cleanup_rows struct db_rows rows;
    errint error = db_select(db, &rows, "SELECT version FROM format");
    if (error)
        return error;
    found = db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *format = (int)db_integer(&rows, 0);
    return 0;
}

static const struct schema_step *schema_find_step(const struct schema_step *steps, size_t count, int from)
{
    for (size_t i = 0; i < count; i++) {
        if (steps[i].from == from)
            return &steps[i];
    }
    return NULL;
}

static errint schema_step_all(struct db *db, int from, int format, const struct schema_step *steps,
                              size_t count)
{
    errint error = db_begin(db);
    for (int at = from; !error && at < format; at++) {
        const struct schema_step *step = schema_find_step(steps, count, at);
        error = step ? db_execute(db, step->text) : -EUCLEAN;
    }
    if (!error)
        error = db_run(db, "UPDATE format SET version = $1", DB_INTEGER(format));
    if (!error)
        error = db_commit(db);
    if (error)
        db_rollback(db);
    return error ? error : db_log_sync(db);
}

errint schema_check(struct db *db, const char *path, int format, const struct schema_step *steps,
                    size_t count)
{
    int found = 0;
    errint error = schema_format(db, &found);
    if (error == -ENOENT) {
        log_error("%s: is a database, but holds no namespace", path);
        return -EUCLEAN;
    }
    if (error || found == format)
        return error;
    if (found > format) {
        log_error("%s: has format %d, this version knows up to %d: use the newer version", path, found,
                  format);
        return -EPROTONOSUPPORT;
    }
    for (int at = found; at < format; at++) {
        if (!schema_find_step(steps, count, at)) {
            log_error("%s: has format %d, which cannot be upgraded to %d", path, found, format);
            return -EUCLEAN;
        }
    }
    char backup[PATH_MAX];
    if ((size_t)snprintf(backup, sizeof backup, "%s.format-%d", path, found) >= sizeof backup)
        return -ENAMETOOLONG;
    error = db_backup(db, backup, NULL, NULL);
    if (!error)
        error = schema_step_all(db, found, format, steps, count);
    if (!error)
        log_info("%s: upgraded from format %d to %d; the old one is kept as %s", path, found, format, backup);
    return error;
}
