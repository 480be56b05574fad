/* SPDX-License-Identifier: Apache-2.0 */
/* The redo journal of a namespace in use. */
#include "meta/journal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "meta/internal.h"

#define JOURNAL_TICK_NS CLOCK_NS_PER_SECOND

static bool journal_is_on(const struct meta *meta)
{
    return meta->journal && db_journal_follows(meta->journal);
}

static void journal_end(struct meta *meta, const char *why)
{
    db_journal_stop(meta->journal);
    log_warning("the journal of the database ends, until the next backup of it is written: %s", why);
}

static void journal_give_up(struct meta *meta, errint error)
{
    journal_end(meta, strerror(-error));
}

void meta_journal_end(struct meta *meta, const char *why)
{
    thread_lock(&meta->journaling);
    if (journal_is_on(meta))
        journal_end(meta, why);
    thread_unlock(&meta->journaling);
}

void journal_bring(struct meta *meta, uint64_t commit, uint64_t commits)
{
    if (!journal_is_on(meta) || atomic_load(&meta->journal_durable) >= commit || meta_sync(meta) != 0)
        return;
    errint error = atomic_load(&meta->journal_refused) ? -ENOSPC : 0;
    if (!error)
        error = db_journal_copy(meta->journal, meta->db, commits);
    if (!error)
        error = db_journal_sync(meta->journal);
    if (error)
        journal_give_up(meta, error);
    else
        atomic_store(&meta->journal_durable, commit);
}

/* Up to the last commit. The journal's lock is held. */
static void journal_bring_all(struct meta *meta)
{
    pthread_mutex_lock(&meta->lock);
    uint64_t commit = meta->commit_last, commits = db_log_commits(meta->db);
    pthread_mutex_unlock(&meta->lock);
    journal_bring(meta, commit, commits);
}

void journal_settle(struct meta *meta)
{
    if (!journal_is_on(meta))
        return;
    errint error = db_journal_settle(meta->journal);
    if (error)
        journal_give_up(meta, error);
}

void journal_sync_settled(struct meta *meta)
{
    errint error = journal_is_on(meta) ? db_journal_sync(meta->journal) : 0;
    if (error)
        journal_give_up(meta, error);
}

errint meta_sync_journal(struct meta *meta)
{
    uint64_t target = meta->commit_last;
    errint error = meta_sync(meta);
    if (error || atomic_load(&meta->journal_durable) >= target)
        return error;
    thread_lock(&meta->journaling);
    journal_bring_all(meta);
    thread_unlock(&meta->journaling);
    return 0;
}

bool meta_journal_follows(struct meta *meta)
{
    thread_lock(&meta->journaling);
    bool follows = journal_is_on(meta);
    thread_unlock(&meta->journaling);
    return follows;
}

int64_t meta_journal_size(struct meta *meta)
{
    thread_lock(&meta->journaling);
    int64_t size = meta->journal ? db_journal_size(meta->journal) : 0;
    thread_unlock(&meta->journaling);
    return size;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static void *journal_run(void *argument)
{
    struct meta *meta = argument;
    thread_lock(&meta->journaling);
    while (!thread_is_stopping(&meta->journaling)) {
        if (!thread_sleep_until(&meta->journaling, clock_monotonic() + JOURNAL_TICK_NS))
            journal_bring_all(meta);
    }
    thread_unlock(&meta->journaling);
    return NULL;
}

void meta_journal_judge(struct meta *meta)
{
    if (meta->journal && !journal_is_on(meta))
        db_journal_stop(meta->journal);
}

errint meta_journal_start(struct meta *meta)
{
    return meta->journal ? thread_start(&meta->journaling, "ckptfs-journal", journal_run, meta) : 0;
}

/* -- open, close ------------------------------------------------------------------------------------------
 */

void journal_opened(struct meta *meta)
{
    /* Opening has emptied the log, if the disk had room for that. */
    if (!journal_is_on(meta) || db_log_commits(meta->db) > 0)
        return;
    journal_settle(meta);
    journal_sync_settled(meta);
}

errint journal_compare(struct meta *meta, bool clean)
{
    return !clean && meta->journal && db_journal_lacks(meta->journal) ? -ESTALE : 0;
}

void journal_finish_log(struct meta *meta)
{
    thread_stop(&meta->journaling);
    thread_lock(&meta->journaling);
    journal_bring_all(meta);
    thread_unlock(&meta->journaling);
}

void journal_close(struct meta *meta, bool whole)
{
    if (journal_is_on(meta) && whole) {
        errint error = db_journal_finish(meta->journal);
        if (error)
            journal_give_up(meta, error);
    }
    db_journal_close(meta->journal);
    meta->journal = NULL;
}

/* -- a backup and its journal -----------------------------------------------------------------------------
 */

/*
 * What was committed since the backup was begun. A log that is wholly in the database file may be begun anew
 * by the next commit: then there is nothing to copy but what that must not come before.
 */
static errint journal_fill(struct meta *meta, struct db_journal *next, uint64_t *commit)
{
    pthread_mutex_lock(&meta->lock);
    uint64_t commits = db_log_commits(meta->db);
    bool whole = commits == 0 || db_checkpoint_is_whole(meta->db);
    errint error = whole ? db_journal_copy(next, meta->db, commits) : 0;
    *commit = meta->commit_last;
    pthread_mutex_unlock(&meta->lock);
    if (!error && whole)
        error = db_journal_settle_behind(next, meta->journal);
    if (!error && !whole)
        error = meta_sync(meta);
    if (!error && !whole)
        error = db_journal_copy(next, meta->db, commits);
    return error ? error : db_journal_sync(next);
}

/* Then both get their names, and the new one is the journal. */
static errint journal_replace(struct meta *meta, struct db_journal *next, const struct meta_pair *pair)
{
    uint64_t commit = 0;
    thread_lock(&meta->journaling);
    journal_bring_all(meta);
    errint error = journal_fill(meta, next, &commit);
    if (!error)
        error = pair->publish(pair->context);
    if (!error) {
        db_journal_close(meta->journal);
        meta->journal = next;
        atomic_store(&meta->journal_durable, commit);
        atomic_store(&meta->journal_refused, false);
    }
    thread_unlock(&meta->journaling);
    return error;
}

/* The backup is written, and its place in the log is kept. */
static errint journal_begin(struct meta *meta, struct db_copy *copy, const struct meta_pair *pair)
{
    struct db_journal *next;
    errint error = fault_hit("backup.written");
    if (error)
        return error;
    thread_lock(&meta->journaling);
    error = db_journal_begin(meta->journal, copy, pair->backup, pair->journal, &next);
    thread_unlock(&meta->journaling);
    if (error)
        return error;
    error = fault_hit("backup.journal");
    if (!error)
        error = journal_replace(meta, next, pair);
    if (error)
        db_journal_close(next);
    return error;
}

errint meta_backup_pair(struct meta *meta, const struct meta_pair *pair)
{
    struct db_copy *copy = NULL;
    if (!meta->journal)
        return -EINVAL;
    errint error = backup_copy(meta, pair->backup, pair->stop, pair->context, &copy);
    if (!error)
        error = journal_begin(meta, copy, pair);
    db_copy_close(copy);
    return error;
}
