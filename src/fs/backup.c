/* SPDX-License-Identifier: Apache-2.0 */
/* Writing backups of the database. */
#include "fs/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "fs/sequence.h"
#include "meta/db_journal.h"
#include "meta/journal.h"
#include "store/copies.h"

enum {
    BACKUP_NICE = 19,
    BACKUP_FIRST_SECONDS = 1,      /* where no journal goes on */
    BACKUP_RETRY_SECONDS = 60,     /* it failed, or more was committed than a copy could follow */
    BACKUP_LOOK_SECONDS = 1,       /* at the journal */
    BACKUP_JOURNAL_MIN = 16 << 20, /* a smaller journal is no reason for a backup, */
    BACKUP_JOURNAL_PART = 64,      /* nor is one that takes less than such a part of the disk */
    BACKUP_JOURNAL_LEAST = 1 << 20,
    BACKUP_JOURNAL_MAX = 4, /* a journal of so many times what is a reason for a backup is given up */
    /* ioprio_set(2); no header of the C library has these. */
    BACKUP_IO_WHO_PROCESS = 1,
    BACKUP_IO_LOWEST = (2 << 13) | 7, /* not the idle class: others wait for the end of a backup */
};

struct backup {
    struct thread thread;
    bool current;    /* the newest backup had everything when `commit` was the last commit */
    uint64_t commit; /* meta_commit_last() at that time */
    bool told_full;
    bool half_named; /* the new journal has its name, and the new backup perhaps not yet */
    int64_t due;     /* clock_monotonic() of the next one by the interval; INT64_MAX: none */
    int64_t wanted;  /* of the next one for the journal's sake, when that needs one */
};

/* Twice as much as it takes: a backup must not be what fills the disk. */
static bool backup_has_space(struct filesystem *fs)
{
    struct stat database;
    struct statvfs disk;
    if (fstatat(fs->store->fd, STORE_DATABASE, &database, 0) < 0 || fstatvfs(fs->store->fd, &disk) < 0)
        return true; /* the copy meets the same error, and tells it */
    bool enough = !atomic_load(&fs->disk_full) &&
                  disk.f_bavail >= 2 * ((uint64_t)database.st_size / (disk.f_frsize ? disk.f_frsize : 1) + 1);
    if (!enough && !fs->backup->told_full)
        log_warning("no backup of the database is written: the disk is full");
    fs->backup->told_full = !enough;
    return enough;
}

/* -- names ------------------------------------------------------------------------------------------------
 */

/* What `name` is gets another name too, or, on a disk without hard links, instead. */
static errint backup_keep(int fd, const char *name, const char *older)
{
    if (unlinkat(fd, older, 0) < 0 && errno != ENOENT)
        return -errno;
    if (linkat(fd, name, fd, older, 0) < 0 && errno != ENOENT && renameat(fd, name, fd, older) < 0)
        return -errno;
    return 0;
}

static errint backup_sync_names(int fd)
{
    cleanup_fd int directory = openat(fd, COPIES_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory < 0 || fsync(directory) < 0 ? -errno : 0;
}

/*
 * There is a newest backup at every moment, and its journal, by one name or another: a journal knows what it
 * belongs to.
 */
static errint backup_rotate(void *context)
{
    struct filesystem *fs = context;
    int fd = fs->store->fd;
    errint error = fault_hit("backup.rotate");
    if (!error)
        error = backup_keep(fd, COPIES_JOURNAL, COPIES_JOURNAL_OLDER);
    if (!error)
        error = fault_hit("backup.kept");
    if (!error)
        error = backup_keep(fd, COPIES_BACKUP, COPIES_BACKUP_OLDER);
    if (!error && renameat(fd, COPIES_JOURNAL_NEW, fd, COPIES_JOURNAL) < 0)
        error = -errno;
    fs->backup->half_named = !error;
    if (!error)
        error = fault_hit("backup.renamed");
    if (!error && renameat(fd, COPIES_BACKUP_NEW, fd, COPIES_BACKUP) < 0)
        error = -errno;
    return error ? error : backup_sync_names(fd);
}

void backup_finish_rotation(const struct store *store)
{
    cleanup_free char *backup = store_path_of(store, COPIES_BACKUP_NEW);
    cleanup_free char *journal = store_path_of(store, COPIES_JOURNAL);
    if (!backup || !journal || access(backup, F_OK) < 0 || db_journal_belongs(journal, backup) <= 0)
        return;
    if (renameat(store->fd, COPIES_BACKUP_NEW, store->fd, COPIES_BACKUP) < 0)
        log_warning("%s: cannot be renamed: %s", backup, strerror(errno));
}

/* -- writing ----------------------------------------------------------------------------------------------
 */

static bool backup_is_stopping(void *context)
{
    struct filesystem *fs = context;
    return thread_is_stopping(&fs->backup->thread);
}

static errint backup_write_pair(struct filesystem *fs, bool (*stop)(void *context))
{
    cleanup_free char *backup = store_path_of(fs->store, COPIES_BACKUP_NEW);
    cleanup_free char *journal = store_path_of(fs->store, COPIES_JOURNAL_NEW);
    if (!backup || !journal)
        return -ENOMEM;
    const struct meta_pair pair = {
        .backup = backup, .journal = journal, .stop = stop, .publish = backup_rotate, .context = fs};
    fs->backup->half_named = false;
    errint error = meta_backup_pair(fs->meta, &pair);
    if (error && !fs->backup->half_named) { /* else the next start gives the backup its name */
        unlink(journal);
        unlink(backup);
    }
    return error;
}

static errint backup_write(struct filesystem *fs, bool (*stop)(void *context))
{
    struct backup *backup = fs->backup;
    if (!backup_has_space(fs))
        return -ENOSPC;
    if (mkdirat(fs->store->fd, COPIES_DIRECTORY, 0700) < 0 && errno != EEXIST)
        return -errno;
    uint64_t commit = meta_commit_last(fs->meta);
    errint error = backup_write_pair(fs, stop);
    if (error) {
        if (error != -ECANCELED && error != -EAGAIN)
            log_warning("the database could not be backed up: %s", strerror(-error));
        return error;
    }
    fault_hit("backup.rotated"); /* too late for an error: it is there to kill or to hang */
    backup->current = true;
    backup->commit = commit;
    /* From now on the backup is an older copy. That alone is no reason for another one. */
    if (sequence_advance(fs->store, fs->meta) == 0 && meta_commit_last(fs->meta) == commit + 1)
        backup->commit = commit + 1;
    return 0;
}

static bool backup_is_current(struct filesystem *fs)
{
    return fs->backup->current && fs->backup->commit == meta_commit_last(fs->meta);
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static int64_t backup_in(unsigned seconds)
{
    return clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
}

/* From this size on a journal is worth a new backup: then it takes as much as one, or little. */
static int64_t backup_journal_limit(const struct filesystem *fs)
{
    struct stat database;
    struct statvfs disk;
    int64_t limit = BACKUP_JOURNAL_MIN;
    if (fstatvfs(fs->store->fd, &disk) == 0 &&
        (int64_t)(disk.f_blocks * disk.f_frsize) / BACKUP_JOURNAL_PART < limit)
        limit = (int64_t)(disk.f_blocks * disk.f_frsize) / BACKUP_JOURNAL_PART;
    if (limit < BACKUP_JOURNAL_LEAST)
        limit = BACKUP_JOURNAL_LEAST;
    if (fstatat(fs->store->fd, STORE_DATABASE, &database, 0) == 0 && database.st_size > limit)
        limit = database.st_size;
    return limit;
}

static bool backup_journal_wants_one(struct filesystem *fs)
{
    return !meta_journal_follows(fs->meta) || meta_journal_size(fs->meta) > backup_journal_limit(fs);
}

/* What could not be shortened for long must not fill the disk. */
static void backup_bound_journal(struct filesystem *fs)
{
    if (meta_journal_size(fs->meta) / BACKUP_JOURNAL_MAX > backup_journal_limit(fs))
        meta_journal_end(fs->meta, "it has become too large");
}

static void backup_round(struct filesystem *fs)
{
    struct backup *backup = fs->backup;
    bool wanted = backup_journal_wants_one(fs);
    unsigned interval = fs->options->backup_interval;
    errint error = !wanted && backup_is_current(fs) ? 0 : backup_write(fs, backup_is_stopping);
    if (error)
        backup_bound_journal(fs);
    if (error == -EAGAIN && interval > BACKUP_RETRY_SECONDS)
        interval = BACKUP_RETRY_SECONDS;
    backup->due = interval ? backup_in(interval) : INT64_MAX;
    backup->wanted = error ? backup_in(BACKUP_RETRY_SECONDS) : 0;
}

static bool backup_is_due(struct filesystem *fs)
{
    int64_t now = clock_monotonic();
    return now >= fs->backup->due || (now >= fs->backup->wanted && backup_journal_wants_one(fs));
}

static void *backup_run(void *context)
{
    struct filesystem *fs = context;
    struct backup *backup = fs->backup;
    thread_be_nice(BACKUP_NICE);
    syscall(SYS_ioprio_set, BACKUP_IO_WHO_PROCESS, 0, BACKUP_IO_LOWEST);
    backup->due = fs->options->backup_interval ? backup_in(fs->options->backup_interval) : INT64_MAX;
    backup->wanted = backup_in(BACKUP_FIRST_SECONDS);
    thread_lock(&backup->thread);
    while (!thread_is_stopping(&backup->thread)) {
        if (thread_sleep_until(&backup->thread, backup_in(BACKUP_LOOK_SECONDS)))
            continue;
        thread_unlock(&backup->thread);
        if (backup_is_due(fs))
            backup_round(fs);
        thread_lock(&backup->thread);
    }
    thread_unlock(&backup->thread);
    return NULL;
}

/* -- start, stop ------------------------------------------------------------------------------------------
 */

void backup_prepare(struct filesystem *fs)
{
    struct backup *backup = fs->options->read_only ? NULL : calloc(1, sizeof *backup);
    fs->backup = backup; /* without memory there are no backups by themselves */
    if (!backup)
        return;
    thread_init(&backup->thread);
    cleanup_free char *clean = NULL;
    backup->current = meta_setting_get(fs->meta, "clean", &clean) == 0 && strcmp(clean, "1") == 0 &&
                      faccessat(fs->store->fd, COPIES_BACKUP, F_OK, 0) == 0;
}

errint backup_start(struct filesystem *fs)
{
    struct backup *backup = fs->backup;
    if (!backup)
        return 0;
    /* What a start itself writes is no change. */
    backup->commit = meta_commit_last(fs->meta);
    return thread_start(&backup->thread, "backup", backup_run, fs);
}

void backup_stop(struct filesystem *fs, bool write)
{
    struct backup *backup = fs->backup;
    if (!backup)
        return;
    thread_stop(&backup->thread);
    if (write && !backup_is_current(fs))
        backup_write(fs, NULL);
    thread_release(&backup->thread);
    free(backup);
    fs->backup = NULL;
}
