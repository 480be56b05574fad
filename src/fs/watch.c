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

static bool watch_requests_are_unread(int fuse_fd)
{
    struct pollfd fd = {.fd = fuse_fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1 && (fd.revents & POLLIN) && !(fd.revents & (POLLERR | POLLHUP));
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
    /* What must move: the oldest request in work; else, while requests lie unread, the last sign of life. */
    int64_t token = watch_oldest_request(state);
    if (token == 0 && watch_requests_are_unread(fuse_fd))
        token = atomic_load(&state->last_progress);
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
