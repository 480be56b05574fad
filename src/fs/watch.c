/* SPDX-License-Identifier: Apache-2.0 */
/* Hang or not. */
#include "fs/watch.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum {
    WATCH_INTERVAL_MS = 1000,
    WATCH_AWAKE_LOOKS = 3, /* one look may fall between two waits for the disk */
};

void watch_start(struct watch *watch, unsigned timeout_s)
{
    *watch = (struct watch){.timeout = (int64_t)timeout_s * CLOCK_NS_PER_SECOND};
}

int watch_interval(const struct watch *watch)
{
    int64_t quarter = watch->timeout / 4 / 1000000;
    return quarter < WATCH_INTERVAL_MS ? (int)quarter : WATCH_INTERVAL_MS;
}

/* When the oldest request in work was begun; 0: none is in work. */
static int64_t watch_oldest_request(const struct state *state)
{
    int64_t oldest = 0;
    for (unsigned i = 0; i < STATE_REQUESTS; i++) {
        if (atomic_load(&state->requests[i].unique) == 0)
            continue;
        int64_t begun = atomic_load(&state->requests[i].begun);
        if (oldest == 0 || begun < oldest)
            oldest = begun;
    }
    return oldest;
}

static short watch_poll(int fuse_fd)
{
    struct pollfd fd = {.fd = fuse_fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1 ? fd.revents : 0;
}

/* The clock ticks that the daemon has computed for: the 12th and 13th field after the name. -1: unknown. */
static int64_t watch_computed_ticks(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (got <= 0)
        return -1;
    text[got] = '\0';
    const char *end = strrchr(text, ')');
    unsigned long user, system;
    if (!end || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return -1;
    return (int64_t)(user + system);
}

/*
 * What must move, as a number: the oldest request in work; else, while requests lie unread, the last sign of
 * life; after the unmount, when the daemon writes the rest, its computing time (as a negative number). 0:
 * nothing.
 */
static int64_t watch_token(const struct state *state, int fuse_fd, pid_t pid)
{
    short events = watch_poll(fuse_fd);
    if (events & (POLLERR | POLLHUP))
        return -2 - watch_computed_ticks(pid);
    int64_t oldest = watch_oldest_request(state);
    if (oldest)
        return oldest;
    return events & POLLIN ? atomic_load(&state->last_progress) : 0;
}

/* "71 (name) D ...": the state follows the last parenthesis. */
static bool watch_thread_waits_for_disk(int tasks, const char *thread)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "%.20s/stat", thread);
    cleanup_fd int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (got <= 0)
        return false;
    text[got] = '\0';
    const char *end = strrchr(text, ')');
    return end && end[1] == ' ' && end[2] == 'D';
}

static bool watch_daemon_waits_for_disk(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return false;
    bool waits = false;
    for (struct dirent *entry = readdir(tasks); entry && !waits; entry = readdir(tasks))
        waits = isdigit((unsigned char)entry->d_name[0]) &&
                watch_thread_waits_for_disk(dirfd(tasks), entry->d_name);
    closedir(tasks);
    return waits;
}

bool watch_look(struct watch *watch, const struct state *state, int fuse_fd, pid_t pid)
{
    int64_t now = clock_monotonic();
    int64_t step = watch->last_look ? now - watch->last_look : 0;
    int64_t longest_step = 2 * (int64_t)watch_interval(watch) * 1000000;
    watch->last_look = now;
    int64_t token = watch_token(state, fuse_fd, pid);
    if (token == 0 || token != watch->token) {
        watch->token = token;
        watch->stuck = 0;
        watch->awake = 0;
        return false;
    }
    watch->stuck += step < longest_step ? step : longest_step;
    if (watch->stuck < watch->timeout)
        return false;
    watch->awake = watch_daemon_waits_for_disk(pid) ? 0 : watch->awake + 1;
    return watch->awake >= WATCH_AWAKE_LOOKS;
}
