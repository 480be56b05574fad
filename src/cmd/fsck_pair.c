/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs fsck --rebuild`: a backup of the database, brought forward by the journals that continue it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/fsck.h"
#include "meta/db_journal.h"
#include "store/copies.h"

enum { PAIR_COPY_SIZE = 1 << 20, PAIR_TIME_MAX = 40 };

/* By what they can continue: the newest one last would be the same, each is asked. */
static const char *const pair_journals[] = {COPIES_JOURNAL, COPIES_JOURNAL_OLDER, COPIES_JOURNAL_NEW};
enum { PAIR_JOURNALS = sizeof pair_journals / sizeof *pair_journals };

/* -- copying ----------------------------------------------------------------------------------------------
 */

static errint pair_copy_bytes(int from, int to)
{
    cleanup_free char *buffer = malloc(PAIR_COPY_SIZE);
    if (!buffer)
        return -ENOMEM;
    for (;;) {
        ssize_t got = read(from, buffer, PAIR_COPY_SIZE);
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

errint fsck_copy_database(struct fsck *fsck, const char *from_path)
{
    errint error = fsck_remove_working(fsck);
    if (error)
        return error;
    cleanup_fd int from = open(from_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    cleanup_fd int to = open(fsck->working, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (from < 0 || to < 0)
        return -errno;
    error = pair_copy_bytes(from, to);
    return error ? error : fsync(to) < 0 ? -errno : 0;
}

/* -- telling ----------------------------------------------------------------------------------------------
 */

static const char *pair_time(int64_t time, char text[PAIR_TIME_MAX])
{
    time_t seconds = clock_to_timespec(time).tv_sec;
    struct tm parts;
    snprintf(text, PAIR_TIME_MAX, "an unknown time");
    if (gmtime_r(&seconds, &parts))
        strftime(text, PAIR_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

void fsck_tell_restored(struct fsck *fsck, const char *path)
{
    struct stat status;
    char when[PAIR_TIME_MAX] = "an unknown time";
    if (stat(path, &status) == 0)
        pair_time(clock_from_timespec(&status.st_mtim), when);
    fsck_tell_action(fsck, "meta.db is restored from %s, of %s", path, when);
}

static void pair_tell_journal(struct fsck *fsck, const char *path, const struct db_journal_state *state)
{
    char when[PAIR_TIME_MAX];
    if (state->time)
        fsck_tell_action(fsck, "it is brought forward by %s, to %s", path, pair_time(state->time, when));
    if (state->ending == DB_JOURNAL_DAMAGED)
        log_warning("%s: expected a record at byte %lld, found damage: the %lld bytes from there on are not "
                    "used, and what was done later is lost",
                    path, (long long)state->offset, (long long)state->unused);
    if (state->ending == DB_JOURNAL_STOPPED)
        log_warning("%s was given up when it could not be written: what was done later is lost", path);
}

/* -- bringing forward -------------------------------------------------------------------------------------
 */

/* Whether the journal is the one of the backup, or the next of the chain, and is in the database now. */
static int pair_apply(struct fsck *fsck, const char *backup, const char *journal, bool again,
                      struct db_journal_state *state)
{
    cleanup_free char *path = store_path_of(fsck->store, journal);
    if (!path)
        return -ENOMEM;
    int belongs = again ? access(path, F_OK) == 0 : db_journal_belongs(path, backup);
    if (belongs <= 0)
        return belongs;
    errint error = db_journal_restore(path, fsck->working, again, state);
    if (error == -ESTALE || error == -ENOENT || (again && error == -EUCLEAN))
        return 0;
    if (error)
        return error;
    pair_tell_journal(fsck, path, state);
    /* Later ones are of no older pair: what is in the newest is all that there is. */
    fsck->followed = state->ending == DB_JOURNAL_WHOLE && journal != pair_journals[1];
    return 1;
}

/* Each journal once: the one of the backup, then those that continue it. The number of them, or an error. */
static int pair_bring_forward(struct fsck *fsck, const char *backup)
{
    struct db_journal_state state = {0};
    bool used[PAIR_JOURNALS] = {false};
    int count = 0, more = 1;
    fsck->followed = false;
    while (more > 0 && (count == 0 || state.ending == DB_JOURNAL_WHOLE)) {
        more = 0;
        for (size_t i = 0; more == 0 && i < PAIR_JOURNALS; i++) {
            if (!used[i])
                more = pair_apply(fsck, backup, pair_journals[i], count > 0, &state);
            used[i] = used[i] || more > 0;
        }
        count += more > 0;
    }
    return more < 0 ? more : count;
}

static errint pair_restore(struct fsck *fsck, const char *backup)
{
    errint error = fsck_copy_database(fsck, backup);
    if (error)
        return error;
    fsck_tell_restored(fsck, backup);
    int count = pair_bring_forward(fsck, backup);
    int complaints = count > 0 ? meta_check_backup(fsck->working) : 0;
    if (count >= 0 && complaints == 0)
        return 0;
    log_warning("%s cannot be brought forward by its journal: %s", backup,
                count < 0 ? strerror(-count) : "the database is damaged then");
    fsck->followed = false;
    return fsck_copy_database(fsck, backup);
}

errint fsck_restore_newest(struct fsck *fsck, bool *found)
{
    static const char *const names[] = {COPIES_BACKUP, COPIES_BACKUP_OLDER};
    *found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cleanup_free char *path = store_path_of(fsck->store, names[i]);
        if (!path)
            return -ENOMEM;
        int complaints = meta_check_backup(path);
        *found = complaints == 0;
        if (*found)
            return pair_restore(fsck, path);
        if (complaints != -ENOENT)
            log_warning("%s is damaged too, and not used", path);
    }
    return 0;
}
