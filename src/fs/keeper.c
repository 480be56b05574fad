/* SPDX-License-Identifier: Apache-2.0 */
/* Starting daemons, judging their deaths, ending the mount. */
#include "fs/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "fs/mount.h"
#include "fs/mount_table.h"
#include "fs/serve.h"
#include "fs/service.h"
#include "fs/state.h"
#include "fs/watch.h"
#include "store/store.h"

enum {
    KEEPER_DEATHS_MAX = 5,
    KEEPER_DEATHS_SECONDS = 60,
    KEEPER_START_SECONDS = 600, /* recovery of a large store takes its time; for ever it may not take */
    KEEPER_LINE_MAX = 1024,
    KEEPER_EXEC_FAILED = 127,
};

struct keeper {
    const struct keeper_options *options;
    struct state *state;
    int state_fd;
    int signal_fd;
    int fuse_fd;
    sigset_t outer_mask; /* what daemons start with */

    pid_t daemon; /* -1: none runs */
    int ready_fd; /* its line about readiness; -1 when that was read */
    char line[KEEPER_LINE_MAX];
    size_t line_length;
    bool ready;
    int64_t started, signalled; /* clock_monotonic() of the start, and of SIGUSR1 (0: not sent) */
    struct watch watch;

    bool ever_ready;
    bool killed; /* the daemon, by this keeper: it hung */
    bool restart_wanted;
    bool stopping;
    pid_t unmounter; /* a child that unmounts; -1: none */
    bool unmounter_is_lazy;
    int64_t respawn_at;                /* while no daemon runs */
    int64_t deaths[KEEPER_DEATHS_MAX]; /* the latest ones, a ring */
    unsigned death_count;
    unsigned starts;

    bool finished;
    int exit_code;
};

/* -- the end of the mount -------------------------------------------------------------------------------- */

/* While the lock is held, no other mount has this source: a mount of it here is this one. */
static bool keeper_mount_is_there(const struct keeper *keeper)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) != 0)
        return false;
    const struct mount_entry *entry = mount_table_find(&table, keeper->options->mountpoint);
    return entry && mount_entry_is_ours(entry) && strcmp(entry->source, keeper->options->store) == 0;
}

/*
 * Ends the mount, whoever uses it. The descriptor goes first: then every request fails, and the detaching
 * cannot wait for a daemon that is no more.
 */
static void keeper_end_mount(struct keeper *keeper, int exit_code)
{
    close(steal_fd(keeper->fuse_fd));
    if (keeper_mount_is_there(keeper)) {
        errint error = mount_detach(keeper->options->mountpoint, true);
        if (error)
            log_error("%s could not be unmounted: %s; run `ckptfs umount` on it", keeper->options->mountpoint,
                      strerror(-error));
    }
    store_lock_describe(keeper->options->lock_fd, exit_code ? KEEPER_LAST_WORD_FAILED : KEEPER_LAST_WORD);
    keeper->finished = true;
    keeper->exit_code = exit_code;
}

/* In a child: unmounting may wait for the daemon, and the keeper must not. */
static void keeper_unmount(struct keeper *keeper, bool lazy)
{
    if (keeper->unmounter > 0)
        return;
    keeper->unmounter_is_lazy = lazy;
    keeper->unmounter = fork();
    if (keeper->unmounter < 0)
        log_error("%s cannot be unmounted: fork: %m; stop again", keeper->options->mountpoint);
    if (keeper->unmounter != 0)
        return;
    /* A child that waits must keep neither the connection nor the lock alive. */
    close(keeper->fuse_fd);
    close(keeper->state_fd);
    close(keeper->options->lock_fd);
    sigprocmask(SIG_SETMASK, &keeper->outer_mask, NULL);
    _exit(-mount_detach(keeper->options->mountpoint, lazy));
}

static void keeper_unmounter_ended(struct keeper *keeper, int status)
{
    keeper->unmounter = -1;
    int error = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    if (error == 0 || error == EINVAL)
        return;
    if (error == EBUSY && !keeper->unmounter_is_lazy) {
        log_warning("%s is busy: it is detached now and ends with its last user",
                    keeper->options->mountpoint);
        keeper_unmount(keeper, true);
        return;
    }
    log_error("%s could not be unmounted: %s; run `ckptfs umount` on it", keeper->options->mountpoint,
              strerror(error));
    keeper->stopping = false;
}

/* -- starting a daemon ----------------------------------------------------------------------------------- */

static bool keeper_inherit(int fd)
{
    return fcntl(fd, F_SETFD, 0) == 0;
}

/* In the child. Never returns. */
static void keeper_execute_daemon(struct keeper *keeper, int ready_fd)
{
    const struct keeper_options *options = keeper->options;
    char fuse[16], state[16], lock[16], ready[16];
    snprintf(fuse, sizeof fuse, "%d", keeper->fuse_fd);
    snprintf(state, sizeof state, "%d", keeper->state_fd);
    snprintf(lock, sizeof lock, "%d", options->lock_fd);
    snprintf(ready, sizeof ready, "%d", ready_fd);
    const char *const arguments[] = {"ckptfs",
                                     "daemon",
                                     "--store",
                                     options->store,
                                     "--mountpoint",
                                     options->mountpoint,
                                     "--fuse-fd",
                                     fuse,
                                     "--state-fd",
                                     state,
                                     "--lock-fd",
                                     lock,
                                     "--ready-fd",
                                     ready,
                                     "--log",
                                     options->log_to_syslog ? "syslog" : "stderr",
                                     "-o",
                                     options->mount_options,
                                     NULL};
    service_unprotect_memory();
    /* Its own process group: a terminal's Ctrl-C is for the keeper, which unmounts. */
    if (setpgid(0, 0) != 0 || !keeper_inherit(keeper->fuse_fd) || !keeper_inherit(keeper->state_fd) ||
        !keeper_inherit(options->lock_fd) || !keeper_inherit(ready_fd))
        _exit(KEEPER_EXEC_FAILED);
    sigprocmask(SIG_SETMASK, &keeper->outer_mask, NULL);
    /* A new program that did not come up is not tried twice: the keeper's own file is the old one. */
    if (!keeper->ever_ready || keeper->ready)
        execv(options->program, (char *const *)arguments);
    execv("/proc/self/exe", (char *const *)arguments);
    _exit(KEEPER_EXEC_FAILED);
}

static void keeper_start_daemon(struct keeper *keeper)
{
    int pipes[2];
    keeper->respawn_at = clock_monotonic() + CLOCK_NS_PER_SECOND;
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        log_error("the daemon cannot be started: pipe: %m; trying again");
        return;
    }
    fault_count_start(++keeper->starts);
    pid_t child = fork();
    if (child == 0)
        keeper_execute_daemon(keeper, pipes[1]);
    close(pipes[1]);
    if (child < 0) {
        log_error("the daemon cannot be started: fork: %m; trying again");
        close(pipes[0]);
        return;
    }
    keeper->daemon = child;
    keeper->ready_fd = pipes[0];
    keeper->line_length = 0;
    keeper->ready = false;
    keeper->killed = false;
    keeper->started = clock_monotonic();
    keeper->signalled = 0;
    watch_start(&keeper->watch, keeper->options->hang_timeout);
}

/* Tells whoever waits for the mount. Later daemons have no one to tell. */
static void keeper_report(struct keeper *keeper, const char *text)
{
    if (keeper->options->report_fd < 0 || keeper->ever_ready)
        return;
    size_t length = strlen(text);
    if (write(keeper->options->report_fd, text, length) != (ssize_t)length)
        log_warning("the mounting command is gone: %m");
    close(keeper->options->report_fd);
}

static void keeper_daemon_is_ready(struct keeper *keeper)
{
    keeper_report(keeper, "ready\n");
    if (!keeper->ever_ready)
        service_notify("READY=1");
    else
        log_info("%s is served by process %d now", keeper->options->mountpoint, (int)keeper->daemon);
    keeper->ready = true;
    keeper->ever_ready = true;
}

/* Whatever its line said is complete when the daemon has closed the pipe, or wrote the line's end. */
static void keeper_read_line(struct keeper *keeper)
{
    if (keeper->ready_fd < 0)
        return;
    ssize_t got = read(keeper->ready_fd, keeper->line + keeper->line_length,
                       sizeof keeper->line - 1 - keeper->line_length);
    if (got < 0)
        return;
    keeper->line_length += (size_t)got;
    keeper->line[keeper->line_length] = '\0';
    bool whole = keeper->line_length > 0 && keeper->line[keeper->line_length - 1] == '\n';
    if (got > 0 && !whole && keeper->line_length < sizeof keeper->line - 1)
        return;
    close(steal_fd(keeper->ready_fd));
    if (strcmp(keeper->line, "ready\n") == 0)
        keeper_daemon_is_ready(keeper);
}

/* -- deaths ---------------------------------------------------------------------------------------------- */

static void keeper_describe_death(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, size, "exit code %d", WEXITSTATUS(status));
}

/* The first daemon failed: there never was a mount that anybody relied on. */
static void keeper_start_failed(struct keeper *keeper, int status)
{
    int code = 0;
    if (sscanf(keeper->line, "error %d", &code) == 1 && code > 0 && code < 256) {
        keeper_report(keeper, keeper->line);
    } else {
        char line[KEEPER_LINE_MAX], death[64];
        code = KEEPER_EXIT_DAEMON_FAILED;
        keeper_describe_death(status, death, sizeof death);
        snprintf(line, sizeof line, "error %d the daemon did not come up: %s; mount with -f to see more\n",
                 code, death);
        keeper_report(keeper, line);
        log_error("the daemon did not come up: %s", death);
    }
    keeper_end_mount(keeper, code);
}

/* Somebody who kills a daemon that works is no sign that the next one will not. */
static bool keeper_was_killed_at_work(const struct keeper *keeper, int status)
{
    return keeper->ready && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !keeper->killed;
}

static bool keeper_dies_too_often(struct keeper *keeper)
{
    int64_t now = clock_monotonic();
    keeper->deaths[keeper->death_count++ % KEEPER_DEATHS_MAX] = now;
    if (keeper->death_count < KEEPER_DEATHS_MAX)
        return false;
    int64_t oldest = keeper->deaths[keeper->death_count % KEEPER_DEATHS_MAX];
    return now - oldest <= KEEPER_DEATHS_SECONDS * CLOCK_NS_PER_SECOND;
}

static bool keeper_connection_is_gone(const struct keeper *keeper)
{
    struct pollfd fd = {.fd = keeper->fuse_fd};
    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLERR | POLLHUP));
}

static void keeper_daemon_died(struct keeper *keeper, int status)
{
    const char *mountpoint = keeper->options->mountpoint;
    char death[64];
    keeper_describe_death(status, death, sizeof death);
    if (keeper_connection_is_gone(keeper)) {
        log_error("the daemon of %s died by %s after the unmount; the next mount recovers", mountpoint,
                  death);
        keeper_end_mount(keeper, KEEPER_EXIT_DAEMON_FAILED);
    } else if (!atomic_load(&keeper->state->can_resend)) {
        log_error(
            "the daemon of %s died by %s, and this kernel (before 6.9) cannot repeat its requests: the mount "
            "ends; mount again",
            mountpoint, death);
        keeper_end_mount(keeper, KEEPER_EXIT_DAEMON_FAILED);
    } else if (!keeper_was_killed_at_work(keeper, status) && keeper_dies_too_often(keeper)) {
        log_error("the daemon of %s died %d times in %d s, the last time by %s: the mount ends; mount again",
                  mountpoint, KEEPER_DEATHS_MAX, KEEPER_DEATHS_SECONDS, death);
        keeper_end_mount(keeper, KEEPER_EXIT_DAEMON_FAILED);
    } else {
        log_error("the daemon of %s died by %s: a new one takes over", mountpoint, death);
        /* One that never came up gets a moment for whatever is in its way to pass. */
        keeper->respawn_at = keeper->ready ? 0 : clock_monotonic() + CLOCK_NS_PER_SECOND;
    }
}

/* Notes for the successor which requests it should suspect. */
static void keeper_blame(struct keeper *keeper, int status)
{
    enum state_end end = STATE_END_CRASHED;
    if (WIFEXITED(status) && WEXITSTATUS(status) == FS_EXIT_HANDOVER)
        end = STATE_END_HANDOVER;
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !keeper->killed)
        end = STATE_END_KILLED;
    state_blame(keeper->state, end);
}

static void keeper_daemon_ended(struct keeper *keeper, int status)
{
    keeper_blame(keeper, status);
    keeper_read_line(keeper);
    if (keeper->ready_fd >= 0)
        close(steal_fd(keeper->ready_fd));
    keeper->daemon = -1;
    if (!keeper->ever_ready) {
        keeper_start_failed(keeper, status);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == FS_EXIT_UNMOUNTED) {
        keeper_end_mount(keeper, 0);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == FS_EXIT_HANDOVER) {
        log_info("the daemon of %s has handed over", keeper->options->mountpoint);
        keeper->respawn_at = 0;
    } else {
        keeper_daemon_died(keeper, status);
    }
}

static void keeper_kill_daemon(struct keeper *keeper, const char *reason)
{
    log_error("the daemon of %s %s: it is killed", keeper->options->mountpoint, reason);
    kill(keeper->daemon, SIGKILL);
    keeper->killed = true;
    /* Until it is reaped, nothing more is asked of it. */
    keeper->signalled = 0;
    watch_start(&keeper->watch, keeper->options->hang_timeout);
}

/* -- the loop -------------------------------------------------------------------------------------------- */

static void keeper_reap(struct keeper *keeper)
{
    int status;
    pid_t pid;
    while (!keeper->finished && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == keeper->daemon)
            keeper_daemon_ended(keeper, status);
        else if (pid == keeper->unmounter)
            keeper_unmounter_ended(keeper, status);
    }
}

static void keeper_read_signals(struct keeper *keeper)
{
    struct signalfd_siginfo signal;
    while (read(keeper->signal_fd, &signal, sizeof signal) == sizeof signal) {
        if (signal.ssi_signo == SIGCHLD)
            continue;
        /* A hangup that the kernel sends is a terminal that was closed. */
        if (signal.ssi_signo == SIGHUP && signal.ssi_code != SI_KERNEL) {
            keeper->restart_wanted = true;
            continue;
        }
        service_notify("STOPPING=1");
        keeper->stopping = true;
        keeper_unmount(keeper, false);
    }
}

/* What depends on time: a restart that waited for the daemon to be ready, a start or an end that takes too
 * long, a hang. */
static void keeper_look_at_daemon(struct keeper *keeper)
{
    int64_t now = clock_monotonic();
    int64_t patience = (int64_t)keeper->options->hang_timeout * CLOCK_NS_PER_SECOND;
    if (!keeper->ready) {
        if (now - keeper->started > KEEPER_START_SECONDS * CLOCK_NS_PER_SECOND)
            keeper_kill_daemon(keeper, "does not come up");
        return;
    }
    if (keeper->restart_wanted && !keeper->stopping) {
        keeper->restart_wanted = false;
        keeper->signalled = now;
        kill(keeper->daemon, SIGUSR1);
    }
    if (keeper->signalled && now - keeper->signalled > patience)
        keeper_kill_daemon(keeper, "does not hand over");
    else if (watch_look(&keeper->watch, keeper->state, keeper->fuse_fd, keeper->daemon))
        keeper_kill_daemon(keeper, "hangs: it is waited for, and nothing moves");
}

static void keeper_step(struct keeper *keeper)
{
    struct pollfd fds[] = {{.fd = keeper->signal_fd, .events = POLLIN},
                           {.fd = keeper->ready_fd, .events = POLLIN}};
    int timeout = watch_interval(&keeper->watch);
    int64_t wait = keeper->respawn_at - clock_monotonic();
    if (keeper->daemon < 0)
        timeout = wait > 0 ? (int)(wait / 1000000) + 1 : 0;
    if (poll(fds, 2, timeout) < 0 && errno != EINTR)
        log_error("poll: %m");
    if (fds[1].revents)
        keeper_read_line(keeper);
    keeper_read_signals(keeper);
    keeper_reap(keeper);
    if (keeper->finished)
        return;
    if (keeper->daemon > 0)
        keeper_look_at_daemon(keeper);
    else if (clock_monotonic() >= keeper->respawn_at)
        keeper_start_daemon(keeper);
}

static bool keeper_prepare(struct keeper *keeper)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &keeper->outer_mask);
    signal(SIGPIPE, SIG_IGN);
    keeper->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    keeper->state_fd = state_create();
    if (keeper->signal_fd < 0 || keeper->state_fd < 0) {
        log_error("the keeper cannot start: %s", strerror(keeper->state_fd < 0 ? -keeper->state_fd : errno));
        return false;
    }
    keeper->state = state_attach(keeper->state_fd);
    return keeper->state != NULL;
}

int keeper_run(const struct keeper_options *options)
{
    struct keeper keeper = {.options = options,
                            .fuse_fd = options->fuse_fd,
                            .state_fd = -1,
                            .signal_fd = -1,
                            .ready_fd = -1,
                            .daemon = -1,
                            .unmounter = -1};
    if (!keeper_prepare(&keeper)) {
        keeper_report(&keeper, "error 1 the keeper cannot start: out of memory or descriptors\n");
        keeper_end_mount(&keeper, KEEPER_EXIT_DAEMON_FAILED);
        return keeper.exit_code;
    }
    prctl(PR_SET_NAME, KEEPER_PROCESS_NAME);
    service_raise_file_limit();
    service_protect_memory();
    atomic_store(&keeper.state->keeper_pid, (int32_t)getpid());
    char holder[KEEPER_LINE_MAX];
    snprintf(holder, sizeof holder, "process %d, mounted at %s", (int)getpid(), options->mountpoint);
    store_lock_describe(options->lock_fd, holder);
    keeper_start_daemon(&keeper);
    while (!keeper.finished)
        keeper_step(&keeper);
    return keeper.exit_code;
}
