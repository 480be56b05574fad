/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's life: starting its parts, serving requests, ending in order. */
#include "fs/serve.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/fault.h"
#include "base/log.h"
#include "fs/expire.h"
#include "fs/export.h"
#include "fs/features.h"
#include "fs/filesystem.h"
#include "fs/handle.h"
#include "fs/keep_watch.h"
#include "fs/loop.h"
#include "fs/recover.h"
#include "fs/sequence.h"
#include "fs/serve_parts.h"
#include "store/copies.h"

enum {
    SERVE_THREADS_MIN = 4,
    SERVE_THREADS_MAX = 16,
};

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
