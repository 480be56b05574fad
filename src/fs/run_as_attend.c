/* SPDX-License-Identifier: Apache-2.0 */
/* Between the daemon and what it runs. Whoever was forked from a process with threads makes system calls
 * only. */
#include "fs/run_as_attend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/service.h"

enum {
    ATTEND_FAILED = 126,
    ATTEND_END_MS = 2000,
    ATTEND_MOMENT_NS = 5 * 1000 * 1000,
    ATTEND_CHILDREN = 4096, /* bytes of their list that are read at a time */
};

/* What the attendant tells the daemon: a namespace's first process cannot end by a signal as another did. */
struct run_as_shared {
    atomic_bool ended;
    int status;
};

/* The library's fork takes locks that threads may have held which are not there. */
static pid_t attend_clone(unsigned long flags)
{
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0L, 0L, 0L, 0L);
}

errint run_as_attend_fork(struct run_as_attendant *out)
{
    *out = (struct run_as_attendant){0};
    struct run_as_shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -errno;
    out->shared = shared;
    out->isolated = geteuid() == 0;
    pid_t pid = out->isolated ? attend_clone(CLONE_NEWPID) : -1;
    if (pid < 0) {
        out->isolated = false;
        pid = attend_clone(0);
    }
    out->pid = pid;
    return pid < 0 ? -errno : 0;
}

void run_as_attend_release(struct run_as_attendant *attendant)
{
    if (attendant->shared)
        munmap(attendant->shared, sizeof *attendant->shared);
    attendant->shared = NULL;
}

/* -- in the process itself --------------------------------------------------------------------------------
 */

/* Kills the numbers of a list, which is as long as what fits: others are in the next one. */
static void attend_kill_list(const char *text, size_t length)
{
    pid_t number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            number = number * 10 + (text[i] - '0');
            continue;
        }
        if (number > 0)
            kill(number, SIGKILL);
        number = 0;
    }
}

/* Whoever is killed leaves his children to this process, which are in the next list. */
static void attend_kill_all(pid_t child)
{
    const struct timespec moment = {.tv_nsec = ATTEND_MOMENT_NS};
    static char list[ATTEND_CHILDREN];
    kill(-child, SIGKILL);
    for (;;) {
        int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
        ssize_t length = fd < 0 ? -1 : read(fd, list, sizeof list);
        if (fd >= 0)
            close(fd);
        if (length <= 0)
            return;
        attend_kill_list(list, (size_t)length);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
        nanosleep(&moment, NULL);
    }
}

static void attend_finish(const struct run_as_attendant *attendant, pid_t child)
{
    if (!attendant->isolated)
        attend_kill_all(child);
    _exit(0);
}

static void attend_tell(const struct run_as_attendant *attendant, int status)
{
    attendant->shared->status = status;
    atomic_store(&attendant->shared->ended, true);
}

static void attend_reap(const struct run_as_attendant *attendant, pid_t child)
{
    int status;
    pid_t ended;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
        if (ended != child)
            continue;
        attend_tell(attendant, status);
        attend_finish(attendant, child);
    }
}

static _Noreturn void attend_watch(const struct run_as_attendant *attendant, pid_t child,
                                   const sigset_t *signals)
{
    for (;;) {
        attend_reap(attendant, child);
        int number = sigwaitinfo(signals, NULL);
        if (number == SIGTERM)
            kill(-child, SIGTERM);
        if (number != SIGQUIT)
            continue;
        attend_tell(attendant, SIGKILL); /* as a status: killed by that */
        attend_finish(attendant, child);
    }
}

void run_as_attend(const struct run_as_attendant *attendant, pid_t *parent)
{
    sigset_t signals;
    struct pollfd output = {.fd = STDOUT_FILENO};
    sigfillset(&signals);
    sigprocmask(SIG_SETMASK, &signals, NULL);
    setpgid(0, 0);
    service_unprotect_memory();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* A daemon that has died before does not read any more. */
    if (poll(&output, 1, 0) < 0 || (output.revents & POLLERR))
        _exit(ATTEND_FAILED);
    *parent = getpid();
    pid_t child = attend_clone(0);
    if (child == 0)
        return;
    if (child < 0)
        _exit(ATTEND_FAILED);
    setpgid(child, child); /* as it does itself: whoever is first */
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    attend_watch(attendant, child, &signals);
}

/* -- in the daemon ----------------------------------------------------------------------------------------
 */

void run_as_attend_ask(const struct run_as_attendant *attendant)
{
    kill(attendant->pid, SIGTERM);
}

void run_as_attend_end(const struct run_as_attendant *attendant, int pid_fd)
{
    struct pollfd end = {.fd = pid_fd, .events = POLLIN};
    if (!attendant->isolated && kill(attendant->pid, SIGQUIT) == 0 && pid_fd >= 0)
        poll(&end, 1, ATTEND_END_MS);
    kill(attendant->pid, SIGKILL);
}

int run_as_attend_status(const struct run_as_attendant *attendant, int own)
{
    return atomic_load(&attendant->shared->ended) ? attendant->shared->status : own;
}
