/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a namespace, its way to stable storage, and the thread that keeps the log short. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/wait.h"
#include "meta/internal.h"
#include "meta/journal.h"

enum {
    /* Of the log that is copied into the database, and of the one for whose emptying commits wait. */
    META_LOG_TRIM = 4 << 20,
    META_LOG_LIMIT = 64 << 20,
    /* Such parts of the free space make them smaller, down to the third figure. */
    META_LOG_TRIM_PART = 256,
    META_LOG_LIMIT_PART = 16,
    META_LOG_LEAST = 256 << 10,
    META_LOG_RETRY_SECONDS = 1,
};

static size_t meta_log_part(int64_t free, int64_t part, size_t most)
{
    size_t bytes = (size_t)(free / part);
    return bytes > most ? most : bytes < META_LOG_LEAST ? META_LOG_LEAST : bytes;
}

/* A log must not be what fills the disk: the database needs room for what is in it before it can go. */
static void meta_bound_log(struct meta *meta)
{
    int64_t free = db_disk_free(meta->db);
    meta->log_trim = meta_log_part(free, META_LOG_TRIM_PART, META_LOG_TRIM);
    meta->log_limit = meta_log_part(free, META_LOG_LIMIT_PART, META_LOG_LIMIT);
}

/* -- syncing ----------------------------------------------------------------------------------------------
 */

static void meta_publish_durable(struct meta *meta, uint64_t commit)
{
    if (commit > meta->commit_durable)
        meta->commit_durable = commit;
}

/*
 * One of the waiting callers syncs for all; those who come while it does may be too late for that sync, and
 * wait for the next. A sync that failed may have dropped what it should have written, so that later ones
 * prove nothing: the error stays until the database is opened again, which reads back what is really there.
 */
errint meta_sync(struct meta *meta)
{
    uint64_t target = meta->commit_last;
    pthread_mutex_lock(&meta->sync_lock);
    while (!meta->sync_error && meta->commit_durable < target) {
        if (meta->syncing) {
            wait_signal(&meta->sync_done, &meta->sync_lock);
            continue;
        }
        meta->syncing = true;
        pthread_mutex_unlock(&meta->sync_lock);
        uint64_t last = meta->commit_last;
        errint error = fault_hit("meta.sync");
        if (!error)
            error = db_log_sync(meta->db);
        pthread_mutex_lock(&meta->sync_lock);
        meta->syncing = false;
        if (!meta->sync_error) /* the thread below may have met one meanwhile */
            meta->sync_error = error;
        if (!meta->sync_error)
            meta_publish_durable(meta, last);
        pthread_cond_broadcast(&meta->sync_done);
    }
    errint error = meta->sync_error;
    pthread_mutex_unlock(&meta->sync_lock);
    return error;
}

uint64_t meta_commit_last(struct meta *meta)
{
    return meta->commit_last;
}

uint64_t meta_commit_durable(struct meta *meta)
{
    return meta->commit_durable;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

/* What a sync could not write may be lost although the next one succeeds. */
static void meta_note_sync_error(struct meta *meta, errint error)
{
    pthread_mutex_lock(&meta->sync_lock);
    if (!meta->sync_error)
        meta->sync_error = error;
    pthread_mutex_unlock(&meta->sync_lock);
}

static bool meta_sync_failed(struct meta *meta)
{
    pthread_mutex_lock(&meta->sync_lock);
    bool failed = meta->sync_error != 0;
    pthread_mutex_unlock(&meta->sync_lock);
    return failed;
}

/* Moves the log into the database, and what it has into the journal before that. Both locks are held. */
static errint meta_move_log(struct meta *meta, bool waiting, bool *emptied)
{
    errint error = db_checkpoint_begin(meta->db);
    if (error)
        return error;
    uint64_t last = meta->commit_last, commits = db_log_commits(meta->db);
    if (!waiting)
        pthread_mutex_unlock(&meta->lock);
    journal_bring(meta, last, commits);
    error = fault_hit("meta.checkpoint");
    if (!error)
        error = db_checkpoint_copy(meta->db);
    if (!waiting)
        pthread_mutex_lock(&meta->lock);
    if (db_checkpoint_is_whole(meta->db))
        journal_settle(meta);
    errint ended = db_checkpoint_end(meta->db, emptied);
    return error ? error : ended;
}

/*
 * With the lock held; it is given up in between, unless `waiting` says that the log has grown too long for
 * that. The journal's lock is taken before it. Returns whether the log is empty now.
 */
static bool meta_checkpoint(struct meta *meta, bool waiting)
{
    pthread_mutex_unlock(&meta->lock);
    thread_lock(&meta->journaling);
    pthread_mutex_lock(&meta->lock);
    uint64_t last = meta->commit_last;
    bool emptied = false;
    meta->log_wake = SIZE_MAX;
    errint error = meta_move_log(meta, waiting, &emptied);
    /* The database may have to grow by what the log has taken from it. */
    if (error == -ENOSPC && meta->spend && meta->spend(meta->spend_context) == 0)
        error = meta_move_log(meta, waiting, &emptied);
    meta_bound_log(meta);
    meta->log_wake = db_log_size(meta->db) + meta->log_trim;
    if (error == -EIO)
        meta_note_sync_error(meta, error);
    if (error && error != meta->log_error)
        log_warning("the database's log cannot be shortened now: %s", strerror(-error));
    meta->log_error = error;
    pthread_mutex_unlock(&meta->lock);
    if (emptied) {
        pthread_mutex_lock(&meta->sync_lock);
        if (!meta->sync_error)
            meta_publish_durable(meta, last);
        pthread_mutex_unlock(&meta->sync_lock);
        /* Nobody waits for this one: it makes the truncation of the log known to the disk (db_sqlite.c). */
        error = db_log_sync(meta->db);
        if (error)
            meta_note_sync_error(meta, error);
        journal_sync_settled(meta);
    }
    thread_unlock(&meta->journaling);
    pthread_mutex_lock(&meta->lock);
    return emptied;
}

bool meta_empty_log(struct meta *meta)
{
    /* What could not be synced must not get into the database as if it had been. */
    return !meta_sync_failed(meta) && db_log_size(meta->db) > 0 && meta_checkpoint(meta, true);
}

void meta_keep_log_short(struct meta *meta)
{
    size_t size = db_log_size(meta->db);
    if (meta->log_limit == META_LOG_LIMIT || size < meta->log_limit || size < meta->log_again)
        return;
    /* Who still reads it must not make each change try again. */
    meta->log_again = meta_empty_log(meta) ? 0 : db_log_size(meta->db) + META_LOG_LEAST;
}

static void *meta_run_checkpoints(void *argument)
{
    struct meta *meta = argument;
    pthread_mutex_lock(&meta->lock);
    while (!meta->stop) {
        if (db_log_size(meta->db) < meta->log_trim) {
            wait_signal(&meta->log_grown, &meta->lock);
            continue;
        }
        /* What could not be synced must not get into the database as if it had been. */
        if (!meta_sync_failed(meta))
            meta_checkpoint(meta, db_log_size(meta->db) >= meta->log_limit);
        if (meta->stop || db_log_size(meta->db) < meta->log_trim)
            continue;
        /* Commits came in between. Soon there may be a moment without, in which the log can be emptied. */
        struct timespec until =
            clock_to_timespec(clock_monotonic() + META_LOG_RETRY_SECONDS * CLOCK_NS_PER_SECOND);
        pthread_cond_timedwait(&meta->log_grown, &meta->lock, &until);
    }
    pthread_mutex_unlock(&meta->lock);
    return NULL;
}

static errint meta_start_thread(struct meta *meta)
{
    errint error = thread_create(&meta->thread, "ckptfs-meta", meta_run_checkpoints, meta);
    meta->thread_runs = !error;
    if (error)
        log_error("cannot start the database's thread: %s", strerror(-error));
    return error;
}

static void meta_stop_thread(struct meta *meta)
{
    if (!meta->thread_runs)
        return;
    pthread_mutex_lock(&meta->lock);
    meta->stop = true;
    pthread_cond_signal(&meta->log_grown);
    pthread_mutex_unlock(&meta->lock);
    pthread_join(meta->thread, NULL);
    meta->thread_runs = false;
}

/* -- open, close ------------------------------------------------------------------------------------------
 */

static struct meta *meta_new(void)
{
    struct meta *meta = calloc(1, sizeof *meta);
    if (!meta)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&meta->lock, NULL);
    pthread_cond_init(&meta->log_grown, &monotonic);
    pthread_mutex_init(&meta->sync_lock, NULL);
    pthread_cond_init(&meta->sync_done, NULL);
    thread_init(&meta->journaling);
    pthread_condattr_destroy(&monotonic);
    return meta;
}

static void meta_free(struct meta *meta)
{
    pthread_mutex_destroy(&meta->lock);
    pthread_cond_destroy(&meta->log_grown);
    pthread_mutex_destroy(&meta->sync_lock);
    pthread_cond_destroy(&meta->sync_done);
    thread_release(&meta->journaling);
    ids_release(&meta->released);
    free(meta);
}

static errint meta_start(struct meta *meta, const char *path)
{
    size_t count;
    const struct schema_step *steps = schema_steps(&count);
    errint error = schema_check(meta->db, path, META_FORMAT_VERSION, steps, count);
    meta->commit_last++; /* an upgrade, if there was one */
    meta_bound_log(meta);
    meta->log_wake = meta->log_trim;
    if (!error)
        error = change_start(meta);
    if (!error)
        error = meta_sync(meta);
    return error ? error : meta_start_thread(meta);
}

/* What is beside the database first: opening it empties the log. */
static errint meta_open_database(struct meta *meta, const char *path, const char *journal)
{
    errint error = journal ? db_journal_open(path, journal, &meta->journal) : 0;
    if (!error)
        error = db_open(path, false, &meta->db);
    if (!error)
        journal_opened(meta);
    return error;
}

errint meta_open_journaled(const char *path, bool create, const char *journal, struct meta **out)
{
    *out = NULL;
    errint error = 0;
    struct stat found;
    if (stat(path, &found) < 0)
        error = errno == ENOENT && create ? schema_create(path) : -errno;
    if (error)
        return error;
    struct meta *meta = meta_new();
    if (!meta)
        return -ENOMEM;
    error = meta_open_database(meta, path, journal);
    if (!error)
        error = meta_start(meta, path);
    if (error) {
        db_close(meta->db, false);
        journal_close(meta, false);
        meta_free(meta);
        return error;
    }
    *out = meta;
    return 0;
}

errint meta_open(const char *path, bool create, struct meta **out)
{
    return meta_open_journaled(path, create, NULL, out);
}

errint meta_close(struct meta *meta)
{
    if (!meta)
        return 0;
    meta_stop_thread(meta);
    errint stopped = change_stop(meta);
    errint error = meta_sync(meta);
    journal_finish_log(meta);
    errint closed = db_close(meta->db, error == 0);
    journal_close(meta, !error && !closed);
    meta_free(meta);
    /* On a full disk the log stays beside the database, as safe as in it. */
    if (closed == -ENOSPC)
        closed = 0;
    return error ? error : closed ? closed : stopped;
}

/* -- callbacks --------------------------------------------------------------------------------------------
 */

void meta_last_request(struct meta *meta, uint64_t *unique, uint64_t *ino)
{
    META_LOCKED(meta);
    *unique = meta->request;
    *ino = meta->request_ino;
}

void meta_on_commit(struct meta *meta, void (*committed)(void *context, uint64_t unique, uint64_t ino),
                    void *context)
{
    META_LOCKED(meta);
    meta->committed = committed;
    meta->committed_context = context;
}

void meta_on_full(struct meta *meta, errint (*spend)(void *context), void *context)
{
    META_LOCKED(meta);
    meta->spend = spend;
    meta->spend_context = context;
}
