/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's life: opening the store, serving requests, ending in order. */
#include "fs/serve.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/fault.h"
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

enum {
    SERVE_THREADS_MIN = 4,
    SERVE_THREADS_MAX = 16,
};

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

static errint serve_start_queues(struct filesystem *fs)
{
    errint error = workers_start(FS_SYNC_WORKERS, "sync", &fs->workers);
    if (!error)
        error = workers_start(FS_REPORTERS, "report", &fs->reporters);
    if (!error)
        error = workers_start(FS_SUMMERS, "sum", &fs->summers);
    if (!error)
        error = workers_start(FS_RETRIERS, "retry", &fs->retriers);
    if (!error)
        error = expire_start(fs);
    if (!error)
        error = stored_start(fs);
    if (!error)
        error = discard_start(fs);
    if (!error)
        error = writeback_start(fs);
    if (!error)
        error = seal_start(fs);
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

/* Before whatever may have something to tell, as what a crash has left. */
static errint serve_start_events(struct filesystem *fs)
{
    errint error = hooks_start(fs);
    if (!error)
        error = view_events_start(fs);
    return error ? error : events_start(fs);
}

/* Everything before the first request. A take-over finds what the predecessor left. */
static errint serve_prepare(struct filesystem *fs)
{
    bool takeover = atomic_load(&fs->state->generation) > 0;
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
    /* The session first: what the queues do may have something to tell the kernel. */
    error = serve_open_session(fs);
    if (!error)
        error = checkpoints_prepare(fs);
    if (!error)
        error = writers_start(fs);
    if (!error)
        error = serve_start_queues(fs);
    if (!error)
        error = serve_start_events(fs);
    if (!error)
        error = damage_load(fs);
    if (!error && !takeover)
        error = recover_at_mount(fs);
    if (!error)
        error = handle_restore_all(fs);
    if (!error)
        error = recover_unfinished(fs, takeover);
    if (!error)
        error = loop_initialise(fs);
    if (error)
        return error;
    features_probe(fs);
    /* Nothing is shared or given back before it is known what a crash has left, and what the disk can do. */
    error = share_start(fs);
    if (!error)
        error = share_models_start(fs);
    if (!error)
        error = inputs_load(fs);
    if (!error)
        error = assembler_start(fs);
    if (!error)
        error = keep_watch_start(fs);
    if (!error)
        error = rewrite_prepare(fs);
    if (!error)
        error = checkpoints_start(fs);
    if (!error)
        rewrite_start(fs);
    if (!error)
        error = export_start(fs);
    if (!error)
        error = repack_start(fs);
    if (!error)
        error = trash_start(fs);
    if (!error)
        error = meta_journal_start(fs->meta);
    if (!error)
        error = backup_start(fs);
    if (!error)
        error = saves_start(fs);
    if (!error)
        error = outlook_start(fs, takeover);
    if (error)
        return error;
    discard_kick(fs);
    atomic_fetch_add(&fs->state->generation, 1);
    if (takeover)
        error = protocol_resend(fs->options->fuse_fd);
    return error;
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

/*
 * Ends the queues in the order in which they feed each other, and closes the store. What is not written yet
 * is brought to the disk at an unmount only: a successor finds it, and requests are waiting for that one.
 */
static errint serve_finish(struct filesystem *fs, bool unmounted)
{
    struct serve_ending ending;
    errint error = 0;
    serve_ending_begin(&ending);
    serve_ending_step(&ending, "finishes what requests have asked for");
    workers_stop(fs->retriers);
    workers_stop(fs->summers);
    workers_stop(fs->reporters);
    workers_stop(fs->workers);
    fs->retriers = fs->summers = fs->reporters = fs->workers = NULL;
    export_stop(fs);
    expire_stop(fs);
    outlook_stop(fs);
    saves_stop(fs);
    serve_ending_step(&ending, "gives up what is in the trash");
    trash_stop(fs);
    serve_ending_step(&ending, "seals files");
    if (fs->sealer)
        seal_stop(fs, unmounted);
    serve_ending_step(&ending, "ends the look for checkpoints");
    checkpoints_stop(fs);
    keep_watch_release(fs);
    serve_ending_step(&ending, "ends the look for models");
    assembler_stop(fs);
    serve_ending_step(&ending, "ends the look for equal bytes");
    share_models_stop(fs);
    share_stop(fs);
    serve_ending_step(&ending, "ends the repacking of objects");
    repack_stop(fs);
    serve_ending_step(&ending, "ends hooks");
    events_stop(fs);
    view_events_stop(fs);
    hooks_stop(fs);
    serve_ending_step(&ending, "brings files to stable storage");
    if (fs->writeback)
        writeback_stop(fs, unmounted);
    serve_ending_step(&ending, "removes what no file needs");
    if (fs->discard)
        discard_stop(fs, unmounted);
    repack_release(fs);
    stored_stop(fs);
    inputs_release(fs);
    rewrite_release(fs);
    checkpoints_release(fs);
    writers_release(fs);
    node_table_release(fs);
    serve_ending_step(&ending, "backs the database up");
    backup_stop(fs, unmounted);
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

/* Handles that the kernel did not release before the connection ended are closed by the unmount. */
static void serve_close_handles(struct filesystem *fs)
{
    uint32_t used = atomic_load(&fs->state->handles_used);
    for (uint32_t i = 0; i < used; i++)
        handle_close(fs, atomic_load(&fs->state->handles[i].fh));
    errint error = recover_orphans(fs);
    if (error)
        log_warning("unlinked inodes stay until the next mount: %s", strerror(-error));
}

/* -- the daemon -------------------------------------------------------------------------------------------
 */

static void serve_tell(const struct fs_options *options, const char *line)
{
    if (options->ready_fd < 0)
        return;
    size_t length = strlen(line);
    if (write(options->ready_fd, line, length) != (ssize_t)length)
        log_warning("nobody hears that the daemon is ready: %m");
    close(options->ready_fd);
}

static unsigned serve_thread_count(const struct fs_options *options)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = options->threads ? options->threads : (unsigned)(processors > 0 ? processors * 2 : 2);
    if (threads < (options->threads ? 1 : SERVE_THREADS_MIN))
        threads = SERVE_THREADS_MIN;
    return threads > SERVE_THREADS_MAX ? SERVE_THREADS_MAX : threads;
}

/* Waits for the unmount or for the keeper's word: true when unmounted. */
static bool serve_wait(int signal_fd, int ended_fd)
{
    struct pollfd events[2] = {{.fd = signal_fd, .events = POLLIN}, {.fd = ended_fd, .events = POLLIN}};
    while (poll(events, 2, -1) < 0 && errno == EINTR)
        continue;
    return !(events[0].revents & POLLIN);
}

static int serve_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGPIPE);
    sigaddset(&set, SIGIO); /* leases */
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigset_t heard;
    sigemptyset(&heard);
    sigaddset(&heard, SIGUSR1);
    return signalfd(-1, &heard, SFD_CLOEXEC);
}

static int serve_run(struct filesystem *fs, int signal_fd)
{
    cleanup_fd int ended_fd = eventfd(0, EFD_CLOEXEC);
    struct loop *loop = NULL;
    errint error = ended_fd < 0 ? -errno : loop_start(fs, serve_thread_count(fs->options), ended_fd, &loop);
    if (error) {
        log_error("the threads that serve requests cannot start: %s", strerror(-error));
        serve_tell(fs->options, "error 1 the daemon has no threads\n");
        serve_finish(fs, false);
        return FS_EXIT_FAILED;
    }
    features_raise_read_ahead(fs);
    features_log(fs);
    serve_tell(fs->options, "ready\n");
    bool unmounted = serve_wait(signal_fd, ended_fd);
    /* While requests are still served: who holds a directory's lock may wait for one, and an export reads. */
    keep_watch_stop(fs);
    export_stop(fs);
    expire_stop(fs);
    loop_stop(loop);
    if (unmounted)
        serve_close_handles(fs);
    error = serve_finish(fs, unmounted);
    if (error)
        log_error("the store was not closed in order: %s; the next mount looks after it", strerror(-error));
    return unmounted ? FS_EXIT_UNMOUNTED : FS_EXIT_HANDOVER;
}

/* The line that the mounting command prints, with the exit code that it ends with. */
static void serve_tell_failure(const struct fs_options *options, errint error)
{
    char line[900], restores[COPIES_TEXT_MAX];
    const char *store = options->store_path;
    switch (-error) {
    case EPROTONOSUPPORT:
        snprintf(line, sizeof line,
                 "error %d %.300s/meta.db was made by a newer version; install a newer ckptfs\n",
                 FS_EXIT_STORE_NEWER, store);
        break;
    case EUCLEAN:
        copies_describe(store, restores);
        snprintf(line, sizeof line, "error %d %.300s/meta.db is damaged; `ckptfs fsck --rebuild %.300s` %s\n",
                 FS_EXIT_STORE_DAMAGED, store, store, restores);
        break;
    case ESTALE:
        copies_describe(store, restores);
        snprintf(line, sizeof line,
                 "error %d %.300s/meta.db " SEQUENCE_OLDER "; `ckptfs fsck --rebuild %.300s` %s\n",
                 FS_EXIT_DATABASE_OLD, store, store, restores);
        break;
    case ENOSPC:
    case EDQUOT:
        snprintf(line, sizeof line,
                 "error %d %.300s: the disk is full; free some space on it and try again\n", FS_EXIT_NO_SPACE,
                 store);
        break;
    default:
        snprintf(line, sizeof line, "error %d %.300s cannot be served: %s; mount with -f to see more\n",
                 FS_EXIT_FAILED, store, strerror(-error));
    }
    serve_tell(options, line);
}

int fs_serve(const struct fs_options *options)
{
    struct filesystem *fs = calloc(1, sizeof *fs);
    cleanup_fd int signal_fd = serve_block_signals();
    if (!fs || signal_fd < 0 || fault_configure() < 0)
        return FS_EXIT_FAILED;
    /* Threads must not make the resident set grow with every arena. */
    mallopt(M_ARENA_MAX, 2);
    damage_init(&fs->damage);
    fs->options = options;
    fs->state = state_attach(options->state_fd);
    if (!fs->state) {
        free(fs);
        return FS_EXIT_FAILED;
    }
    errint error = serve_prepare(fs);
    int code = FS_EXIT_FAILED;
    if (error) {
        log_error("the store cannot be served: %s", strerror(-error));
        serve_tell_failure(options, error);
        serve_finish(fs, false);
    } else {
        code = serve_run(fs, signal_fd);
    }
    damage_release(&fs->damage);
    free(fs);
    return code;
}
