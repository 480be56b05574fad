/* SPDX-License-Identifier: Apache-2.0 */
/* A layer under SQLite that collects the frames of a commit. */
#include "meta/db_sqlite_log.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The log's format (https://www.sqlite.org/fileformat2.html#walformat). */
enum {
    LOG_HEADER_SIZE = 32,
    LOG_FRAME_HEADER_SIZE = 24,
    LOG_FRAME_COMMIT =
        4, /* where a frame's header has the size of the database, if the frame ends a commit */
};

/* SQLite's own layer for Unix writes less than 128 KiB in one go, and takes more for a full disk. */
enum { LOG_CAPACITY = 96 << 10 };

/* SQLite allocates one of these and, behind it, the file of the layer below. */
struct log_file {
    sqlite3_file base; /* first: SQLite knows only this */
    sqlite3_int64 end; /* nothing was written behind it */
    sqlite3_int64 offset;
    int length; /* bytes collected, to be written at `offset` */
    bool ends;  /* the page that comes next ends a commit */
    char *collected;
};

static sqlite3_vfs log_layer;
static sqlite3_vfs *log_below;

static sqlite3_file *log_real(sqlite3_file *file)
{
    return (sqlite3_file *)((struct log_file *)file + 1);
}

static int log_flush(sqlite3_file *file)
{
    struct log_file *log = (struct log_file *)file;
    int length = log->length;
    log->length = 0;
    log->ends = false;
    if (length == 0)
        return SQLITE_OK;
    return log_real(file)->pMethods->xWrite(log_real(file), log->collected, length, log->offset);
}

static int log_pass_on(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset)
{
    int code = log_flush(file);
    return code != SQLITE_OK ? code : log_real(file)->pMethods->xWrite(log_real(file), data, amount, offset);
}

/*
 * Collecting begins with the header of a frame behind all that is in the log, and goes on with what follows
 * directly. Everything else is passed on as it is: the log's own header, and what SQLite corrects in frames
 * of a transaction that did not fit its cache.
 */
static int log_write(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset)
{
    static const char no_commit[4];
    struct log_file *log = (struct log_file *)file;
    if (offset == 0)
        log->end = 0; /* the log begins anew */
    bool appends = offset >= LOG_HEADER_SIZE && offset >= log->end;
    bool header = amount == LOG_FRAME_HEADER_SIZE;
    bool follows = log->length > 0 && log->offset + log->length == offset;
    if (log->end < offset + amount)
        log->end = offset + amount;
    if (!appends || log->length + amount > LOG_CAPACITY || !(header || follows))
        return log_pass_on(file, data, amount, offset);
    int code = follows ? SQLITE_OK : log_flush(file);
    if (code != SQLITE_OK)
        return code;
    if (log->length == 0)
        log->offset = offset;
    memcpy(log->collected + log->length, data, (size_t)amount);
    log->length += amount;
    if (!header)
        return log->ends ? log_flush(file) : SQLITE_OK;
    log->ends = memcmp((const char *)data + LOG_FRAME_COMMIT, no_commit, sizeof no_commit) != 0;
    return SQLITE_OK;
}

static int log_read(sqlite3_file *file, void *data, int amount, sqlite3_int64 offset)
{
    int code = log_flush(file);
    return code != SQLITE_OK ? code : log_real(file)->pMethods->xRead(log_real(file), data, amount, offset);
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    int code = log_flush(file);
    return code != SQLITE_OK ? code : log_real(file)->pMethods->xTruncate(log_real(file), size);
}

static int log_sync(sqlite3_file *file, int flags)
{
    int code = log_flush(file);
    return code != SQLITE_OK ? code : log_real(file)->pMethods->xSync(log_real(file), flags);
}

static int log_size(sqlite3_file *file, sqlite3_int64 *size)
{
    int code = log_flush(file);
    return code != SQLITE_OK ? code : log_real(file)->pMethods->xFileSize(log_real(file), size);
}

static int log_close(sqlite3_file *file)
{
    struct log_file *log = (struct log_file *)file;
    int flushed = log_flush(file);
    int code = log_real(file)->pMethods->xClose(log_real(file));
    free(log->collected);
    return flushed != SQLITE_OK ? flushed : code;
}

static int log_lock(sqlite3_file *file, int level)
{
    return log_real(file)->pMethods->xLock(log_real(file), level);
}

static int log_unlock(sqlite3_file *file, int level)
{
    return log_real(file)->pMethods->xUnlock(log_real(file), level);
}

static int log_check_reserved_lock(sqlite3_file *file, int *locked)
{
    return log_real(file)->pMethods->xCheckReservedLock(log_real(file), locked);
}

static int log_control(sqlite3_file *file, int operation, void *argument)
{
    return log_real(file)->pMethods->xFileControl(log_real(file), operation, argument);
}

static int log_sector_size(sqlite3_file *file)
{
    return log_real(file)->pMethods->xSectorSize(log_real(file));
}

static int log_device_characteristics(sqlite3_file *file)
{
    return log_real(file)->pMethods->xDeviceCharacteristics(log_real(file));
}

/* Version 1: what later ones add is for databases, not for logs. */
static const sqlite3_io_methods log_methods = {
    .iVersion = 1,
    .xClose = log_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = log_lock,
    .xUnlock = log_unlock,
    .xCheckReservedLock = log_check_reserved_lock,
    .xFileControl = log_control,
    .xSectorSize = log_sector_size,
    .xDeviceCharacteristics = log_device_characteristics,
};

static int log_open(sqlite3_vfs *layer, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
    (void)layer;
    if (!(flags & SQLITE_OPEN_WAL))
        return log_below->xOpen(log_below, name, file, flags, flags_out);
    struct log_file *log = (struct log_file *)file;
    *log = (struct log_file){0};
    log->collected = malloc(LOG_CAPACITY);
    if (!log->collected)
        return SQLITE_NOMEM;
    int code = log_below->xOpen(log_below, name, log_real(file), flags, flags_out);
    if (code != SQLITE_OK) {
        free(log->collected);
        return code;
    }
    log->base.pMethods = &log_methods;
    return SQLITE_OK;
}

static void log_install(void)
{
    log_below = sqlite3_vfs_find(NULL);
    if (!log_below)
        return;
    log_layer = *log_below;
    log_layer.szOsFile += (int)sizeof(struct log_file);
    log_layer.pNext = NULL;
    log_layer.zName = "ckptfs-log";
    log_layer.xOpen = log_open;
    if (sqlite3_vfs_register(&log_layer, 0) != SQLITE_OK)
        log_below = NULL;
}

const char *db_sqlite_log_layer(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, log_install);
    return log_below ? log_layer.zName : NULL;
}
