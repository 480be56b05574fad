/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs fsck --rebuild`: the newest good backup becomes the database. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/fsck.h"
#include "fs/sequence.h"
#include "meta/db_journal.h"
#include "meta/journal.h"

/* -- whether there is anything to do ----------------------------------------------------------------------
 */

/* 1: the database can be used; 0: not, or it is an older copy; or an error that a backup would not help. */
static int rebuild_is_sound(struct fsck *fsck)
{
    if (access(fsck->database, F_OK) != 0)
        return errno == ENOENT ? 0 : -errno;
    int complaints = fsck_check_database(fsck, fsck->database, true);
    fsck->old = complaints == -ESTALE;
    if (fsck->old)
        return 0;
    if (complaints)
        return complaints > 0 || complaints == -EIO ? 0 : complaints;
    struct meta *meta;
    errint error = meta_open_journaled(fsck->database, false, fsck->journal, &meta);
    if (error)
        return error == -EUCLEAN || error == -EIO ? 0 : error;
    error = sequence_check(fsck->store, meta);
    fsck->old = error == -ESTALE;
    errint closed = meta_close(meta);
    if (fsck->old || closed)
        return closed;
    return error ? error : 1;
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
    cleanup_free char *prefix = store_path_of(fsck->store, fsck->old ? "meta.db.older-" : "meta.db.damaged-");
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
errint fsck_remove_working(const struct fsck *fsck)
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

/* -- making it --------------------------------------------------------------------------------------------
 */

/* What is in the log and not in the journal yet, even if the database itself is gone. */
static void rebuild_catch_up(const struct fsck *fsck)
{
    struct db_journal *journal;
    errint error = db_journal_open(fsck->database, fsck->journal, &journal);
    if (!error)
        db_journal_close(journal);
    else if (error != -ESTALE)
        log_warning("%s: it cannot be continued: %s", fsck->journal, strerror(-error));
}

static errint rebuild_make_empty(struct fsck *fsck)
{
    struct meta *meta;
    errint error = fsck_remove_working(fsck);
    if (!error)
        error = meta_open(fsck->working, true, &meta);
    if (error)
        return error;
    fsck_tell_action(fsck, "there is no good backup: meta.db is made anew, without names");
    return meta_close(meta);
}

/* Of the database that was made. */
static errint rebuild_sequence(struct fsck *fsck, uint64_t *out)
{
    struct meta *meta;
    errint error = meta_open(fsck->working, false, &meta);
    if (error)
        return error;
    error = sequence_of(meta, out);
    errint closed = meta_close(meta);
    return error ? error : closed;
}

/* The older copy that somebody put in the database's place can be newer than all that was restored. */
static errint rebuild_of_older(struct fsck *fsck, bool *found)
{
    uint64_t of_database, restored = 0;
    errint error = fsck_copy_database(fsck, fsck->database);
    if (!error)
        error = rebuild_sequence(fsck, &of_database);
    if (!error)
        error = fsck_restore_newest(fsck, found);
    if (!error && *found)
        error = rebuild_sequence(fsck, &restored);
    if (error || (*found && restored >= of_database))
        return error;
    *found = true;
    fsck->followed = false;
    fsck_tell_restored(fsck, fsck->database);
    return fsck_copy_database(fsck, fsck->database);
}

/* Beside the old one: its name it gets when it is whole, since a mount would remove what it does not know. */
static errint rebuild_make(struct fsck *fsck)
{
    bool found = false;
    errint error = fsck->old ? rebuild_of_older(fsck, &found) : fsck_restore_newest(fsck, &found);
    return error || found ? error : rebuild_make_empty(fsck);
}

int fsck_restore(struct fsck *fsck)
{
    rebuild_catch_up(fsck);
    int sound = rebuild_is_sound(fsck);
    if (sound > 0) {
        log_error("%s is not damaged: use --repair (to go back to a backup all the same, move it away first)",
                  fsck->database);
        return FSCK_FAILED;
    }
    free(fsck->working);
    fsck->working = store_path_of(fsck->store, "meta.db.restored");
    errint error = sound < 0 ? sound : fsck->working ? rebuild_make(fsck) : -ENOMEM;
    if (error) {
        log_error("%s cannot be rebuilt: %s", fsck->database, strerror(-error));
        return FSCK_FAILED;
    }
    fsck->changed = true;
    return FSCK_CLEAN;
}
