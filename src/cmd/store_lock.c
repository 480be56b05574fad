/* SPDX-License-Identifier: Apache-2.0 */
/* Watching STORE/lock. */
#include "cmd/store_lock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fs/keeper.h"

enum { STORE_LOCK_LOOK_MS_MAX = 100 };

static int store_lock_open(const char *store)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/lock", store) < 0) {
        path = NULL;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* Shared, so that two who look do not see each other. */
static bool store_lock_probe(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) != 0)
        return false;
    flock(fd, LOCK_UN);
    return true;
}

bool store_lock_is_free(const char *store)
{
    cleanup_fd int fd = store_lock_open(store);
    return fd >= 0 && store_lock_probe(fd);
}

static void store_lock_read_holder(int fd, char out[256])
{
    ssize_t length = pread(fd, out, 255, 0);
    out[length > 0 ? length : 0] = '\0';
}

void store_lock_watch_start(struct store_lock_watch *watch, const char *store)
{
    *watch = (struct store_lock_watch){.fd = store_lock_open(store)};
    if (watch->fd >= 0)
        store_lock_read_holder(watch->fd, watch->holder);
}

static bool store_lock_holder_is_gone(struct store_lock_watch *watch)
{
    char holder[256];
    if (store_lock_probe(watch->fd))
        return true;
    store_lock_read_holder(watch->fd, holder);
    return strcmp(holder, watch->holder) != 0;
}

bool store_lock_watch_wait(struct store_lock_watch *watch, int64_t deadline, bool *failed)
{
    *failed = false;
    long pause_ms = 1;
    while (watch->fd >= 0 && !store_lock_holder_is_gone(watch)) {
        if (deadline && clock_monotonic() >= deadline)
            return false;
        struct timespec pause = {.tv_nsec = pause_ms * 1000000};
        nanosleep(&pause, NULL);
        pause_ms = pause_ms * 2 < STORE_LOCK_LOOK_MS_MAX ? pause_ms * 2 : STORE_LOCK_LOOK_MS_MAX;
    }
    char holder[256] = "";
    if (watch->fd >= 0)
        store_lock_read_holder(watch->fd, holder);
    *failed = strncmp(holder, KEEPER_LAST_WORD_FAILED, strlen(KEEPER_LAST_WORD_FAILED)) == 0;
    return true;
}

void store_lock_watch_end(struct store_lock_watch *watch)
{
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}
