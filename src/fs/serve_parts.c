/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's parts: opening the store, starting what works beside the requests, ending it in order. */
#include "fs/serve_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/assembler.h"
#include "fs/backup.h"
#include "fs/checkpoints.h"
#include "fs/discard.h"
#include "fs/events.h"
#include "fs/expire.h"
#include "fs/export.h"
#include "fs/features.h"
#include "fs/filesystem.h"
#include "fs/handle.h"
#include "fs/hooks.h"
#include "fs/inputs.h"
#include "fs/keep_watch.h"
#include "fs/loop.h"
#include "fs/outlook.h"
#include "fs/recover.h"
#include "fs/repack.h"
#include "fs/rewrite.h"
#include "fs/saves.h"
#include "fs/seal.h"
#include "fs/sequence.h"
#include "fs/share.h"
#include "fs/share_models.h"
#include "fs/space.h"
#include "fs/stored.h"
#include "fs/trash.h"
#include "fs/view_events.h"
#include "fs/writeback.h"
#include "fs/writers.h"
#include "meta/journal.h"
#include "store/copies.h"

/* After so long the log says what an end waits for. */
#define SERVE_ENDING_NS (10 * CLOCK_NS_PER_SECOND)

/* -- start ------------------------------------------------------------------------------------------------
 */

static void serve_note_commit(void *context, uint64_t unique, uint64_t ino)
{
    struct filesystem *fs = context;
    state_request_done(fs->state, unique, ino);
}

static errint serve_open_database(struct filesystem *fs)
{
    cleanup_free char *database = store_path_of(fs->store, STORE_DATABASE);
    cleanup_free char *journal = fs->options->read_only ? NULL : store_path_of(fs->store, COPIES_JOURNAL);
    if (!database || (!journal && !fs->options->read_only))
        return -ENOMEM;
    errint error = meta_open_journaled(database, fs->store->created, journal, &fs->meta);
    /* A store on a full disk must open, so that something can be deleted. */
    if (error == -ENOSPC && space_spend_last(fs) == 0)
        error = meta_open_journaled(database, fs->store->created, journal, &fs->meta);
    if (error && error != -ESTALE)
        log_error("%s: cannot be opened: %s", database, strerror(-error));
    return error;
}

static errint serve_open_store(struct filesystem *fs)
{
    if (store_open(fs->options->store_path, fs->options->lock_fd, &fs->store) != STORE_FINE)
        return -EIO; /* said by store_open */
    if (!fs->options->read_only)
        backup_finish_rotation(fs->store);
    errint error = serve_open_database(fs);
    if (error)
        return error;
    store_note_database(fs->store);
    meta_on_commit(fs->meta, serve_note_commit, fs);
    meta_on_full(fs->meta, space_spend, fs);
    error = sequence_check(fs->store, fs->meta);
    if (!error)
        meta_journal_judge(fs->meta);
    return error;
}

static errint serve_start_workers(struct filesystem *fs)
{
    errint error = workers_start(FS_SYNC_WORKERS, "sync", &fs->workers);
    if (!error)
        error = workers_start(FS_REPORTERS, "report", &fs->reporters);
    if (!error)
        error = workers_start(FS_SUMMERS, "sum", &fs->summers);
    if (!error)
        error = workers_start(FS_RETRIERS, "retry", &fs->retriers);
    return error;
}

static errint serve_open_session(struct filesystem *fs)
{
    char *arguments[] = {"ckptfs", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, arguments);
    fs->session = fuse_session_new(&args, &fs_operations, sizeof fs_operations, fs);
    fuse_opt_free_args(&args);
    char device[32];
    snprintf(device, sizeof device, "/dev/fd/%d", fs->options->fuse_fd);
    if (!fs->session || fuse_session_mount(fs->session, device) != 0)
        return -EIO;
    return 0;
}

static bool serve_takes_over(const struct filesystem *fs)
{
    return atomic_load(&fs->state->generation) > 0;
}

/* A take-over finds what the predecessor left. */
static errint serve_recover(struct filesystem *fs)
{
    bool takeover = serve_takes_over(fs);
    errint error = takeover ? 0 : recover_at_mount(fs);
    if (!error)
        error = handle_restore_all(fs);
    return error ? error : recover_unfinished(fs, takeover);
}

static errint serve_probe_features(struct filesystem *fs)
{
    features_probe(fs);
    return 0;
}

static errint serve_start_rewriting(struct filesystem *fs)
{
    rewrite_start(fs);
    return 0;
}

static errint serve_start_journal(struct filesystem *fs)
{
    return meta_journal_start(fs->meta);
}

static errint serve_start_outlook(struct filesystem *fs)
{
    return outlook_start(fs, serve_takes_over(fs));
}

/* What is started before the first request, in this order. */
static errint (*const serve_starts[])(struct filesystem *fs) = {
    /* The session first: what the queues do may have something to tell the kernel. */
    serve_open_session,
    checkpoints_prepare,
    writers_start,
    serve_start_workers,
    expire_start,
    stored_start,
    discard_start,
    writeback_start,
    seal_start,
    /* Before whatever may have something to tell, as what a crash has left. */
    hooks_start,
    view_events_start,
    events_start,
    damage_load,
    serve_recover,
    loop_initialise,
    /* Nothing is shared or given back before it is known what a crash has left, and what the disk can do. */
    serve_probe_features,
    share_start,
    share_models_start,
    inputs_load,
    assembler_start,
    keep_watch_start,
    rewrite_prepare,
    checkpoints_start,
    serve_start_rewriting,
    export_start,
    repack_start,
    trash_start,
    serve_start_journal,
    backup_start,
    saves_start,
    serve_start_outlook,
};

errint serve_prepare(struct filesystem *fs)
{
    fs->started = clock_read_ns(CLOCK_REALTIME);
    errint error = serve_open_store(fs);
    if (error)
        return error;
    backup_prepare(fs);
    backing_table_init(&fs->backings, fs->store, fs->options->fuse_fd);
    node_table_init(&fs->nodes);
    uint64_t last_unique, last_ino;
    meta_last_request(fs->meta, &last_unique, &last_ino);
    state_carry_requests(fs->state, last_unique, last_ino);
    atomic_store(&fs->state->daemon_pid, getpid());
    for (size_t i = 0; i < sizeof serve_starts / sizeof *serve_starts && !error; i++)
        error = serve_starts[i](fs);
    if (error)
        return error;
    discard_kick(fs);
    bool takeover = serve_takes_over(fs);
    atomic_fetch_add(&fs->state->generation, 1);
    return takeover ? protocol_resend(fs->options->fuse_fd) : 0;
}

/* -- end --------------------------------------------------------------------------------------------------
 */

static void serve_drop_session(struct filesystem *fs)
{
    if (!fs->session)
        return;
    fuse_session_destroy(fs->session);
    fs->session = NULL;
}

/* Says what the end of a mount waits for, when it takes long. */
struct serve_ending {
    struct thread thread;
    const char *step;
    int64_t since; /* clock_monotonic() */
};

static void *serve_watch_ending(void *context)
{
    struct serve_ending *ending = context;
    thread_lock(&ending->thread);
    while (!thread_is_stopping(&ending->thread)) {
        thread_sleep_until(&ending->thread, clock_monotonic() + SERVE_ENDING_NS);
        int64_t waited = clock_monotonic() - ending->since;
        if (!thread_is_stopping(&ending->thread) && waited >= SERVE_ENDING_NS)
            log_warning("the mount has ended; for %lld s now the daemon %s",
                        (long long)(waited / CLOCK_NS_PER_SECOND), ending->step);
    }
    thread_unlock(&ending->thread);
    return NULL;
}

static void serve_ending_step(struct serve_ending *ending, const char *step)
{
    thread_lock(&ending->thread);
    ending->step = step;
    ending->since = clock_monotonic();
    thread_unlock(&ending->thread);
}

static void serve_ending_begin(struct serve_ending *ending)
{
    *ending = (struct serve_ending){.since = clock_monotonic(), .step = "begins to close the store"};
    thread_init(&ending->thread);
    thread_start(&ending->thread, "ending", serve_watch_ending, ending); /* without it nothing is said */
}

static void serve_ending_end(struct serve_ending *ending)
{
    thread_stop(&ending->thread);
    thread_release(&ending->thread);
}

static void serve_stop_workers(struct filesystem *fs)
{
    workers_stop(fs->retriers);
    workers_stop(fs->summers);
    workers_stop(fs->reporters);
    workers_stop(fs->workers);
    fs->retriers = fs->summers = fs->reporters = fs->workers = NULL;
}

/*
 * What is ended, in the order in which the queues feed each other. What is not written yet is brought to the
 * disk at an unmount only: a successor finds it, and requests are waiting for that one.
 */
static const struct {
    const char *says; /* what the daemon does then; NULL: what it did before */
    void (*stop)(struct filesystem *fs);
    void (*finish)(struct filesystem *fs, bool unmounted);
} serve_stops[] = {
    {"finishes what requests have asked for", .stop = serve_stop_workers},
    {.stop = export_stop},
    {.stop = expire_stop},
    {.stop = outlook_stop},
    {.stop = saves_stop},
    {"gives up what is in the trash", .stop = trash_stop},
    {"seals files", .finish = seal_stop},
    {"ends the look for checkpoints", .stop = checkpoints_stop},
    {.stop = keep_watch_release},
    {"ends the look for models", .stop = assembler_stop},
    {"ends the look for equal bytes", .stop = share_models_stop},
    {.stop = share_stop},
    {"ends the repacking of objects", .stop = repack_stop},
    {"ends hooks", .stop = events_stop},
    {.stop = view_events_stop},
    {.stop = hooks_stop},
    {"brings files to stable storage", .finish = writeback_stop},
    {"removes what no file needs", .finish = discard_stop},
    {.stop = repack_release},
    {.stop = stored_stop},
    {.stop = inputs_release},
    {.stop = rewrite_release},
    {.stop = checkpoints_release},
    {.stop = writers_release},
    {.stop = node_table_release},
    {"backs the database up", .finish = backup_stop},
};

errint serve_finish(struct filesystem *fs, bool unmounted)
{
    struct serve_ending ending;
    errint error = 0;
    serve_ending_begin(&ending);
    for (size_t i = 0; i < sizeof serve_stops / sizeof *serve_stops; i++) {
        if (serve_stops[i].says)
            serve_ending_step(&ending, serve_stops[i].says);
        if (serve_stops[i].finish)
            serve_stops[i].finish(fs, unmounted);
        else
            serve_stops[i].stop(fs);
    }
    serve_ending_step(&ending, "closes the database");
    if (fs->meta && unmounted)
        error = recover_mark_clean(fs);
    errint closed = meta_close(fs->meta);
    serve_ending_end(&ending);
    serve_drop_session(fs);
    store_close(fs->store);
    state_detach(fs->state);
    return error ? error : closed;
}
