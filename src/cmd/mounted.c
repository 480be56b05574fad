/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and asking a mount. */
#include "cmd/mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/exit.h"
#include "fs/control.h"

int mounted_find(const char *argument, struct mount_table *table, const struct mount_entry **out)
{
    errint ignored;
    cleanup_free char *path = mount_table_resolve(argument, &ignored);
    if (!path || mount_table_read(table) != 0) {
        log_error("the mounts cannot be read: /proc is not mounted or memory is short");
        return EXIT_FAILED;
    }
    const struct mount_entry *entry = mount_table_find(table, path);
    if (!entry || !mount_entry_is_ours(entry))
        entry = mount_table_find_store(table, path);
    if (!entry) {
        log_error("%s is not a ckptfs mount: no ckptfs is mounted on it or from it; `ckptfs status` lists "
                  "the mounts",
                  path);
        return EXIT_NOT_MOUNTED;
    }
    *out = entry;
    return EXIT_FINE;
}

/* What is asked, and where the answer goes. */
struct mounted_question {
    const char *mountpoint;
    unsigned long command;
    void *data;
    size_t size;
};

/* In the child. */
static void mounted_send(int out_fd, const void *data, size_t size)
{
    const char *at = data;
    for (size_t left = size; left > 0;) {
        ssize_t wrote = write(out_fd, at, left);
        if (wrote < 0 && errno != EINTR)
            _exit(0);
        if (wrote > 0) {
            at += wrote;
            left -= (size_t)wrote;
        }
    }
}

/* In the child, which sends the error and then the data. */
static void mounted_ask_kernel(const struct mounted_question *question, int out_fd)
{
    int fd = open(question->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || ioctl(fd, question->command, question->data) < 0 ? errno : 0;
    mounted_send(out_fd, &error, sizeof error);
    mounted_send(out_fd, question->data, question->size);
    _exit(0);
}

/* Reads `size` bytes until the deadline: 0, -ETIMEDOUT, or -EPIPE when the other end stopped. */
static errint mounted_read_until(int fd, void *out, size_t size, int64_t deadline)
{
    for (size_t done = 0; done < size;) {
        int64_t left = deadline - clock_monotonic();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (left <= 0 || poll(&wait, 1, (int)(left / 1000000) + 1) == 0)
            return -ETIMEDOUT;
        ssize_t got = read(fd, (char *)out + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EPIPE;
        done += (size_t)got;
    }
    return 0;
}

static errint mounted_ask(const struct mounted_question *question, unsigned seconds)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return -errno;
    cleanup_fd int read_end = pipes[0];
    cleanup_fd int write_end = pipes[1];
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0)
        mounted_ask_kernel(question, write_end);
    close(steal_fd(write_end));
    int64_t deadline = clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
    int refused = 0;
    errint error = mounted_read_until(read_end, &refused, sizeof refused, deadline);
    if (!error)
        error = mounted_read_until(read_end, question->data, question->size, deadline);
    /* One that waits for a hung daemon cannot die before that does: it is not waited for. */
    kill(child, SIGKILL);
    waitpid(child, NULL, error == -ETIMEDOUT ? WNOHANG : 0);
    return error ? error : -refused;
}

static int mounted_explain(const char *mountpoint, errint error)
{
    switch (-error) {
    case ENOTCONN:
    case ECONNABORTED:
        log_error("%s is a dead mount: its daemon is gone; run `ckptfs umount %s`", mountpoint, mountpoint);
        return EXIT_MOUNTPOINT_DEAD;
    case ETIMEDOUT:
        log_error("%s does not answer; see the log, or wait for its keeper to replace the daemon",
                  mountpoint);
        return EXIT_TIMED_OUT;
    case EACCES:
    case EPERM:
        log_error("%s may not be asked: %s; run as the user who mounted it", mountpoint, strerror(-error));
        return EXIT_NOT_PERMITTED;
    default:
        log_error("%s cannot be asked: %s; see the log", mountpoint, strerror(-error));
        return EXIT_FAILED;
    }
}

errint mounted_try_ioctl(const struct mount_entry *entry, unsigned seconds, unsigned long command, void *data,
                         size_t size)
{
    const struct mounted_question question = {entry->mountpoint, command, data, size};
    return mounted_ask(&question, seconds);
}

int mounted_ask_ioctl(const struct mount_entry *entry, unsigned seconds, unsigned long command, void *data,
                      size_t size)
{
    errint error = mounted_try_ioctl(entry, seconds, command, data, size);
    return error ? mounted_explain(entry->mountpoint, error) : EXIT_FINE;
}

int mounted_ask_status(const struct mount_entry *entry, unsigned seconds, char **json)
{
    cleanup_free struct control_text *answer = calloc(1, sizeof *answer);
    if (!answer)
        return mounted_explain(entry->mountpoint, -ENOMEM);
    int code = mounted_ask_ioctl(entry, seconds, CKPTFS_IOCTL_STATUS, answer, sizeof *answer);
    if (code)
        return code;
    *json = strndup(answer->text, sizeof answer->text - 1);
    return *json ? EXIT_FINE : mounted_explain(entry->mountpoint, -ENOMEM);
}
