/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and asking a mount. */
#include "cmd/mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "cmd/exit.h"
#include "fs/control.h"

/* Nothing that a mount says is longer. */
enum { MOUNTED_TEXT_MAX = 16 << 20 };

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
static void mounted_ask_kernel(const void *context, int out_fd)
{
    const struct mounted_question *question = context;
    int fd = open(question->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || ioctl(fd, question->command, question->data) < 0 ? errno : 0;
    mounted_send(out_fd, &error, sizeof error);
    mounted_send(out_fd, question->data, question->size);
    _exit(0);
}

/* The same for a file's text. */
static void mounted_copy_file(const void *path, int out_fd)
{
    char bytes[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    mounted_send(out_fd, &error, sizeof error);
    ssize_t got;
    while (fd >= 0 && ((got = read(fd, bytes, sizeof bytes)) > 0 || (got < 0 && errno == EINTR)))
        mounted_send(out_fd, bytes, got > 0 ? (size_t)got : 0);
    _exit(0);
}

/* What there is to read, at most `size` bytes, which comes until the deadline: how many, 0 at the end,
 * -ETIMEDOUT. */
static ssize_t mounted_read_some(int fd, void *out, size_t size, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - clock_monotonic();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (left <= 0 || poll(&wait, 1, (int)(left / 1000000) + 1) == 0)
            return -ETIMEDOUT;
        ssize_t got = read(fd, out, size);
        if (got >= 0 || errno != EINTR)
            return got < 0 ? -errno : got;
    }
}

/* Reads `size` bytes until the deadline: 0, -ETIMEDOUT, or -EPIPE when the other end stopped. */
static errint mounted_read_until(int fd, void *out, size_t size, int64_t deadline)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = mounted_read_some(fd, (char *)out + done, size - done, deadline);
        if (got <= 0)
            return got < 0 ? (errint)got : -EPIPE;
        done += (size_t)got;
    }
    return 0;
}

/* Reads to the end into `out`. */
static errint mounted_read_rest(int fd, struct text *out, int64_t deadline)
{
    char bytes[4096];
    ssize_t got;
    while ((got = mounted_read_some(fd, bytes, sizeof bytes, deadline)) > 0) {
        text_append(out, bytes, (size_t)got);
        if (out->failed || out->length > MOUNTED_TEXT_MAX)
            return out->failed ? -ENOMEM : -EFBIG;
    }
    return (errint)got;
}

/* A child that asks, so that a daemon that hangs keeps nobody else. */
struct mounted_child {
    pid_t pid;
    int fd; /* its answer: an error, and then the data */
    int64_t deadline;
};

static errint mounted_start(unsigned seconds, void (*ask)(const void *question, int out_fd),
                            const void *question, struct mounted_child *out)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return -errno;
    out->pid = fork();
    if (out->pid == 0)
        ask(question, pipes[1]);
    close(pipes[1]);
    if (out->pid < 0) {
        errint error = -errno;
        close(pipes[0]);
        return error;
    }
    out->fd = pipes[0];
    out->deadline = clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
    return 0;
}

/* One that waits for a hung daemon cannot die before that does: it is not waited for. */
static void mounted_end(const struct mounted_child *child, bool hangs)
{
    close(child->fd);
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, hangs ? WNOHANG : 0);
}

static errint mounted_ask(const struct mounted_question *question, unsigned seconds)
{
    struct mounted_child child;
    int refused = 0;
    errint error = mounted_start(seconds, mounted_ask_kernel, question, &child);
    if (error)
        return error;
    error = mounted_read_until(child.fd, &refused, sizeof refused, child.deadline);
    if (!error)
        error = mounted_read_until(child.fd, question->data, question->size, child.deadline);
    mounted_end(&child, error == -ETIMEDOUT);
    return error ? error : -refused;
}

/* The text of a file. */
static errint mounted_read_file(const char *path, unsigned seconds, struct text *out)
{
    struct mounted_child child;
    int refused = 0;
    errint error = mounted_start(seconds, mounted_copy_file, path, &child);
    if (error)
        return error;
    error = mounted_read_until(child.fd, &refused, sizeof refused, child.deadline);
    if (!error && !refused)
        error = mounted_read_rest(child.fd, out, child.deadline);
    mounted_end(&child, error == -ETIMEDOUT);
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

errint mounted_try_ioctl(const char *mountpoint, unsigned seconds, unsigned long command, void *data,
                         size_t size)
{
    const struct mounted_question question = {mountpoint, command, data, size};
    return mounted_ask(&question, seconds);
}

int mounted_ask_ioctl(const struct mount_entry *entry, unsigned seconds, unsigned long command, void *data,
                      size_t size)
{
    errint error = mounted_try_ioctl(entry->mountpoint, seconds, command, data, size);
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

errint mounted_try_everything(const struct mount_entry *entry, unsigned seconds, char **json)
{
    cleanup_text struct text text = {0};
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/" FS_CONTROL_DIRECTORY "/status.json", entry->mountpoint) < 0)
        return -ENOMEM;
    errint error = mounted_read_file(path, seconds, &text);
    text_append(&text, "", 1);
    if (error || text.failed)
        return error ? error : -ENOMEM;
    *json = steal_pointer(text.at);
    return 0;
}

int mounted_ask_everything(const struct mount_entry *entry, unsigned seconds, char **json)
{
    errint error = mounted_try_everything(entry, seconds, json);
    if (error != -ENOENT)
        return error ? mounted_explain(entry->mountpoint, error) : EXIT_FINE;
    log_error(
        "%s is served by a daemon that cannot be watched: an older version; `ckptfs restart` replaces it",
        entry->mountpoint);
    return EXIT_FAILED;
}
