/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs fsck --rebuild`: the newest good backup becomes the database. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "cmd/fsck.h"
#include "fs/backup.h"
#include "fs/sequence.h"

enum { REBUILD_COPY_SIZE = 1 << 20 };

/* -- whether there is anything to do ----------------------------------------------------------------------
 */

/* 1: the database can be used; 0: not, or it is an older copy; or an error that a backup would not help. */
static int rebuild_is_sound(struct fsck *fsck)
{
    if (access(fsck->database, F_OK) != 0)
        return errno == ENOENT ? 0 : -errno;
    int complaints = fsck_check_database(fsck, fsck->database, true);
    if (complaints)
        return complaints > 0 || complaints == -EIO ? 0 : complaints;
    struct meta *meta;
    errint error = meta_open(fsck->database, false, &meta);
    if (error)
        return error == -EUCLEAN || error == -EIO ? 0 : error;
    error = sequence_check(fsck->store, meta);
    fsck->old = error == -ESTALE;
    errint closed = meta_close(meta);
    if (fsck->old || closed)
        return closed;
    return error ? error : 1;
}

/* -- backups ----------------------------------------------------------------------------------------------
 */

static char *rebuild_path(const struct fsck *fsck, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", fsck->store->path, name) < 0 ? NULL : path;
}

/* The caller frees *out; NULL when none is good. */
static errint rebuild_find_backup(const struct fsck *fsck, char **out)
{
    static const char *const names[] = {BACKUP_NEWEST, BACKUP_OLDER};
    *out = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_free char *path = rebuild_path(fsck, names[i]);
        if (!path)
            return -ENOMEM;
        int complaints = meta_check_backup(path);
        if (complaints == 0) {
            *out = steal_pointer(path);
            return 0;
        }
        if (complaints != -ENOENT)
            log_warning("%s is damaged too, and not used", path);
    }
    return 0;
}

static errint rebuild_copy_bytes(int from, int to)
{
    cleanup_free char *buffer = malloc(REBUILD_COPY_SIZE);
    if (!buffer)
        return -ENOMEM;
    for (;;) {
        ssize_t got = read(from, buffer, REBUILD_COPY_SIZE);
        if (got <= 0)
            return got < 0 ? -errno : 0;
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(to, buffer + done, (size_t)(got - done));
            if (put < 0)
                return -errno;
            done += put;
        }
    }
}

static errint rebuild_copy(const char *from_path, const char *to_path)
{
    cleanup_fd int from = open(from_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    cleanup_fd int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (from < 0 || to < 0)
        return -errno;
    errint error = rebuild_copy_bytes(from, to);
    return error ? error : fsync(to) < 0 ? -errno : 0;
}

/* -- putting it in its place ------------------------------------------------------------------------------
 */

static char *rebuild_join(const char *path, const char *end)
{
    char *joined;
    return asprintf(&joined, "%s%s", path, end) < 0 ? NULL : joined;
}

static errint rebuild_rename_log(const char *from, const char *to)
{
    cleanup_free char *from_log = rebuild_join(from, "-wal");
    cleanup_free char *to_log = rebuild_join(to, "-wal");
    cleanup_free char *index = rebuild_join(from, "-shm");
    if (!from_log || !to_log || !index)
        return -ENOMEM;
    if (unlink(index) < 0 && errno != ENOENT)
        return -errno;
    return rename(from_log, to_log) < 0 && errno != ENOENT ? -errno : 0;
}

/* Its log goes with it: it would be replayed into what comes in its place. */
static errint rebuild_put_aside(struct fsck *fsck)
{
    cleanup_free char *prefix = rebuild_path(fsck, fsck->old ? "meta.db.older-" : "meta.db.damaged-");
    cleanup_free char *aside = prefix ? fsck_free_name(prefix) : NULL;
    if (!aside)
        return -ENOMEM;
    errint error = rebuild_rename_log(fsck->database, aside);
    if (error)
        return error;
    if (rename(fsck->database, aside) == 0)
        fsck_tell_action(fsck, "the %s meta.db is kept as %s", fsck->old ? "older" : "damaged", aside);
    else if (errno != ENOENT)
        return -errno;
    return 0;
}

errint fsck_install(struct fsck *fsck)
{
    cleanup_free char *log = rebuild_join(fsck->working, "-wal");
    if (!log)
        return -ENOMEM;
    /* A close in order leaves none. */
    if (access(log, F_OK) == 0)
        return -EIO;
    errint error = rebuild_put_aside(fsck);
    if (!error && rename(fsck->working, fsck->database) < 0)
        error = -errno;
    return error ? error : fsync(fsck->store->fd) < 0 ? -errno : 0;
}

/* What a rebuild that did not finish has left. */
static errint rebuild_remove_rest(const struct fsck *fsck)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        cleanup_free char *path = rebuild_join(fsck->working, ends[i]);
        if (!path)
            return -ENOMEM;
        if (unlink(path) < 0 && errno != ENOENT)
            return -errno;
    }
    return 0;
}

/* Beside the old one: its name it gets when it is whole, since a mount would remove what it does not know. */
static errint rebuild_make(struct fsck *fsck, const char *backup)
{
    errint error = rebuild_remove_rest(fsck);
    if (error || backup)
        return error ? error : rebuild_copy(backup, fsck->working);
    struct meta *meta;
    error = meta_open(fsck->working, true, &meta);
    return error ? error : meta_close(meta);
}

static errint rebuild_sequence(struct fsck *fsck, const char *database, uint64_t *out)
{
    struct meta *meta;
    errint error = rebuild_make(fsck, database);
    if (!error)
        error = meta_open(fsck->working, false, &meta);
    if (error)
        return error;
    error = sequence_of(meta, out);
    errint closed = meta_close(meta);
    return error ? error : closed;
}

/* The older copy that somebody put in the database's place can be newer than the last backup. */
static errint rebuild_prefer_newer(struct fsck *fsck, char **backup)
{
    uint64_t of_backup = 0, of_database;
    errint error = rebuild_sequence(fsck, fsck->database, &of_database);
    if (!error && *backup)
        error = rebuild_sequence(fsck, *backup, &of_backup);
    if (error || of_backup >= of_database)
        return error;
    free(*backup);
    *backup = strdup(fsck->database);
    return *backup ? 0 : -ENOMEM;
}

static void rebuild_tell_backup(struct fsck *fsck, const char *backup)
{
    struct stat status;
    char when[40] = "an unknown time";
    struct tm local;
    if (!backup) {
        fsck_tell_action(fsck, "there is no good backup: meta.db is made anew, without names");
        return;
    }
    if (stat(backup, &status) == 0 && gmtime_r(&status.st_mtime, &local))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &local);
    fsck_tell_action(fsck, "meta.db is restored from %s, of %s", backup, when);
}

int fsck_restore(struct fsck *fsck)
{
    int sound = rebuild_is_sound(fsck);
    if (sound > 0) {
        log_error("%s is not damaged: use --repair (to go back to a backup all the same, move it away first)",
                  fsck->database);
        return FSCK_FAILED;
    }
    cleanup_free char *backup = NULL;
    errint error = sound < 0 ? sound : rebuild_find_backup(fsck, &backup);
    free(fsck->working);
    fsck->working = rebuild_path(fsck, "meta.db.restored");
    if (!error && !fsck->working)
        error = -ENOMEM;
    if (!error && fsck->old)
        error = rebuild_prefer_newer(fsck, &backup);
    if (!error)
        error = rebuild_make(fsck, backup);
    if (error) {
        log_error("%s cannot be rebuilt: %s", fsck->database, strerror(-error));
        return FSCK_FAILED;
    }
    rebuild_tell_backup(fsck, backup);
    fsck->changed = true;
    return FSCK_CLEAN;
}
