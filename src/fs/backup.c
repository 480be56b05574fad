/* SPDX-License-Identifier: Apache-2.0 */
/* Writing backups of the database. */
#include "fs/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/filesystem.h"
#include "fs/sequence.h"
#include "meta/check.h"

enum {
    BACKUP_NICE = 19,
    BACKUP_FIRST_SECONDS = 60, /* a store without any backup does not wait for the whole interval */
    BACKUP_RETRY_SECONDS = 60, /* more was committed than a copy could follow */
    /* ioprio_set(2); no header of the C library has these. */
    BACKUP_IO_WHO_PROCESS = 1,
    BACKUP_IO_IDLE = 3 << 13,
};

struct backup {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool thread_runs;
    atomic_bool stopping;
    bool current;    /* the newest backup had everything when `commit` was the last commit */
    uint64_t commit; /* meta_commit_last() at that time */
    bool told_full;
};

static char *backup_path(const struct filesystem *fs, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", fs->store->path, name) < 0 ? NULL : path;
}

/* Twice as much as it takes: a backup must not be what fills the disk. */
static bool backup_has_space(struct filesystem *fs)
{
    struct stat database;
    struct statvfs disk;
    if (fstatat(fs->store->fd, "meta.db", &database, 0) < 0 || fstatvfs(fs->store->fd, &disk) < 0)
        return true; /* the copy meets the same error, and tells it */
    bool enough = !atomic_load(&fs->disk_full) &&
                  disk.f_bavail >= 2 * ((uint64_t)database.st_size / (disk.f_frsize ? disk.f_frsize : 1) + 1);
    if (!enough && !fs->backup->told_full)
        log_warning("no backup of the database is written: the disk is full");
    fs->backup->told_full = !enough;
    return enough;
}

/* There is a newest one at every moment. */
static errint backup_rotate(struct filesystem *fs)
{
    int fd = fs->store->fd;
    if (unlinkat(fd, BACKUP_OLDER, 0) < 0 && errno != ENOENT)
        return -errno;
    if (linkat(fd, BACKUP_NEWEST, fd, BACKUP_OLDER, 0) < 0 && errno != ENOENT &&
        renameat(fd, BACKUP_NEWEST, fd, BACKUP_OLDER) < 0) /* a disk without hard links */
        return -errno;
    if (renameat(fd, BACKUP_NEW, fd, BACKUP_NEWEST) < 0)
        return -errno;
    cleanup_fd int directory = openat(fd, BACKUP_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory < 0 || fsync(directory) < 0 ? -errno : 0;
}

static bool backup_is_stopping(void *context)
{
    struct backup *backup = context;
    return atomic_load(&backup->stopping);
}

static errint backup_write(struct filesystem *fs, bool (*stop)(void *context))
{
    struct backup *backup = fs->backup;
    if (!backup_has_space(fs))
        return -ENOSPC;
    if (mkdirat(fs->store->fd, BACKUP_DIRECTORY, 0700) < 0 && errno != EEXIST)
        return -errno;
    cleanup_free char *path = backup_path(fs, BACKUP_NEW);
    uint64_t commit = meta_commit_last(fs->meta);
    errint error = path ? meta_backup(fs->meta, path, stop, backup) : -ENOMEM;
    if (!error)
        error = backup_rotate(fs);
    if (error) {
        if (error != -ECANCELED && error != -EAGAIN)
            log_warning("the database could not be backed up: %s", strerror(-error));
        return error;
    }
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

static int64_t backup_first_due(struct filesystem *fs)
{
    unsigned seconds = fs->options->backup_interval;
    if (seconds > BACKUP_FIRST_SECONDS && faccessat(fs->store->fd, BACKUP_NEWEST, F_OK, 0) < 0)
        seconds = BACKUP_FIRST_SECONDS;
    return clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
}

static int64_t backup_round(struct filesystem *fs)
{
    int64_t interval = (int64_t)fs->options->backup_interval;
    errint error = backup_is_current(fs) ? 0 : backup_write(fs, backup_is_stopping);
    if (error == -EAGAIN && interval > BACKUP_RETRY_SECONDS)
        interval = BACKUP_RETRY_SECONDS;
    return clock_monotonic() + interval * CLOCK_NS_PER_SECOND;
}

static void *backup_run(void *context)
{
    struct filesystem *fs = context;
    struct backup *backup = fs->backup;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), BACKUP_NICE);
    syscall(SYS_ioprio_set, BACKUP_IO_WHO_PROCESS, 0, BACKUP_IO_IDLE);
    int64_t due = backup_first_due(fs);
    pthread_mutex_lock(&backup->lock);
    while (!atomic_load(&backup->stopping)) {
        struct timespec until = clock_to_timespec(due);
        if (clock_monotonic() < due) {
            pthread_cond_clockwait(&backup->wake, &backup->lock, CLOCK_MONOTONIC, &until);
            continue;
        }
        pthread_mutex_unlock(&backup->lock);
        due = backup_round(fs);
        pthread_mutex_lock(&backup->lock);
    }
    pthread_mutex_unlock(&backup->lock);
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
    pthread_mutex_init(&backup->lock, NULL);
    pthread_cond_init(&backup->wake, NULL);
    cleanup_free char *clean = NULL;
    backup->current = meta_setting_get(fs->meta, "clean", &clean) == 0 && strcmp(clean, "1") == 0 &&
                      faccessat(fs->store->fd, BACKUP_NEWEST, F_OK, 0) == 0;
}

errint backup_start(struct filesystem *fs)
{
    struct backup *backup = fs->backup;
    if (!backup)
        return 0;
    /* What a start itself writes is no change. */
    backup->commit = meta_commit_last(fs->meta);
    if (fs->options->backup_interval == 0)
        return 0;
    int error = pthread_create(&backup->thread, NULL, backup_run, fs);
    backup->thread_runs = error == 0;
    if (backup->thread_runs)
        pthread_setname_np(backup->thread, "backup");
    return -error;
}

void backup_stop(struct filesystem *fs, bool write)
{
    struct backup *backup = fs->backup;
    if (!backup)
        return;
    pthread_mutex_lock(&backup->lock);
    atomic_store(&backup->stopping, true);
    pthread_cond_signal(&backup->wake);
    pthread_mutex_unlock(&backup->lock);
    if (backup->thread_runs)
        pthread_join(backup->thread, NULL);
    if (write && !backup_is_current(fs))
        backup_write(fs, NULL);
    pthread_cond_destroy(&backup->wake);
    pthread_mutex_destroy(&backup->lock);
    free(backup);
    fs->backup = NULL;
}
