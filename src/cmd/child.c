/* SPDX-License-Identifier: Apache-2.0 */
/* A program with limits. */
#include "cmd/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"

enum { CHILD_BLOCK = 64 * 1024, CHILD_NOT_STARTED = 127, CHILD_NS_PER_MS = 1000 * 1000 };

/* -- in the child -----------------------------------------------------------------------------------------
 */

static void child_limit(const struct child *child)
{
    const struct rlimit memory = {child->memory_max, child->memory_max}, core = {0, 0},
                        time = {child->seconds + 1, child->seconds + 2};
    setrlimit(RLIMIT_DATA, &memory);
    setrlimit(RLIMIT_CORE, &core);
    setrlimit(RLIMIT_CPU, &time);
}

static _Noreturn void child_become(const struct child *child, int pipe, pid_t parent)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (nowhere < 0 || getppid() != parent || dup2(pipe, STDIN_FILENO) < 0 || dup2(pipe, STDOUT_FILENO) < 0 ||
        dup2(nowhere, STDERR_FILENO) < 0 || chdir("/") < 0)
        _exit(CHILD_NOT_STARTED);
    child_limit(child);
    execvp(child->arguments[0], (char *const *)child->arguments);
    _exit(CHILD_NOT_STARTED);
}

/* -- in the parent ----------------------------------------------------------------------------------------
 */

struct child_talk {
    const struct child *child;
    struct text *output;
    int socket;
    size_t sent;
    int64_t deadline;
    bool ended;
};

static errint child_send(struct child_talk *talk)
{
    const struct child *child = talk->child;
    ssize_t sent = send(talk->socket, child->input + talk->sent, child->input_length - talk->sent,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE)
        return -errno;
    if (sent < 0 && errno == EPIPE)
        talk->sent = child->input_length; /* it does not want more; what it says tells why */
    talk->sent += sent > 0 ? (size_t)sent : 0;
    if (talk->sent == child->input_length)
        shutdown(talk->socket, SHUT_WR);
    return 0;
}

static errint child_receive(struct child_talk *talk)
{
    char block[CHILD_BLOCK];
    ssize_t got = recv(talk->socket, block, sizeof block, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNRESET ? 0 : -errno;
    talk->ended = got == 0;
    text_append(talk->output, block, (size_t)got);
    if (talk->output->failed)
        return -ENOMEM;
    return talk->output->length > talk->child->output_max ? -EFBIG : 0;
}

static errint child_step(struct child_talk *talk)
{
    bool more = talk->sent < talk->child->input_length;
    struct pollfd ready = {.fd = talk->socket, .events = (short)(POLLIN | (more ? POLLOUT : 0))};
    int64_t left = talk->deadline - clock_monotonic();
    int count = left > 0 ? poll(&ready, 1, (int)(left / CHILD_NS_PER_MS) + 1) : 0;
    if (count <= 0)
        return count < 0 ? -errno : left > 0 ? 0 : -ETIME;
    errint error = more && (ready.revents & POLLOUT) ? child_send(talk) : 0;
    if (!error && (ready.revents & (POLLIN | POLLHUP | POLLERR)))
        error = child_receive(talk);
    return error;
}

/* Waits for a program that has said all; what it may still do has its time, too. */
static errint child_wait(pid_t pid, int64_t deadline)
{
    cleanup_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int64_t left = deadline - clock_monotonic();
    if (fd < 0)
        return 0; /* an old kernel: waitpid waits */
    int count = poll(&ready, 1, left > 0 ? (int)(left / CHILD_NS_PER_MS) + 1 : 0);
    if (count < 0)
        return -errno;
    return count > 0 ? 0 : -ETIME;
}

static errint child_reap(pid_t pid, int *status, errint error)
{
    /* The group exists once the child made it; before, there is only the child. */
    if (error && kill(-pid, SIGKILL) < 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0) {
        if (errno != EINTR)
            return error ? error : -errno;
    }
    /* What it left running goes too. */
    kill(-pid, SIGKILL);
    return error;
}

errint child_run(const struct child *child, struct text *output, int *status)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    cleanup_fd int ours = pair[0];
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_become(child, pair[1], parent);
    errint error = pid < 0 ? -errno : 0;
    close(pair[1]);
    if (error)
        return error;
    struct child_talk talk = {.child = child,
                              .output = output,
                              .socket = ours,
                              .deadline = clock_monotonic() + child->seconds * CLOCK_NS_PER_SECOND};
    if (child->input_length == 0)
        shutdown(ours, SHUT_WR);
    while (!error && !talk.ended)
        error = child_step(&talk);
    if (!error)
        error = child_wait(pid, talk.deadline);
    return child_reap(pid, status, error);
}
