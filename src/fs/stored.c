/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's objects take on the disk. */
#include "fs/stored.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/filesystem.h"
#include "store/object.h"

/* A save is many files. */
#define STORED_GATHER_NS CLOCK_NS_PER_SECOND

enum {
    STORED_NICE = 10,
    STORED_REST = 20 /* times as long as it took to add up, nothing is added up again */
};

struct stored {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool changed;
    int64_t due; /* clock_monotonic(): not before */
    atomic_bool stopping;
    _Atomic int64_t bytes;
};

static bool stored_stops(void *context)
{
    const struct stored *stored = context;
    return atomic_load(&stored->stopping);
}

void stored_kick(struct filesystem *fs)
{
    struct stored *stored = fs->stored;
    if (!stored)
        return;
    pthread_mutex_lock(&stored->lock);
    if (!stored->changed) {
        int64_t due = clock_monotonic() + STORED_GATHER_NS;
        stored->due = due > stored->due ? due : stored->due;
        stored->changed = true;
        pthread_cond_signal(&stored->wake);
    }
    pthread_mutex_unlock(&stored->lock);
}

int64_t stored_bytes(struct filesystem *fs)
{
    return fs->stored ? atomic_load(&fs->stored->bytes) : -1;
}

/* Returns when there is something to add up, or at the end. The lock is held. */
static void stored_wait(struct stored *stored)
{
    while (!atomic_load(&stored->stopping)) {
        struct timespec until = clock_to_timespec(stored->due);
        if (!stored->changed)
            wait_signal(&stored->wake, &stored->lock);
        else if (clock_monotonic() >= stored->due)
            return;
        else
            pthread_cond_clockwait(&stored->wake, &stored->lock, CLOCK_MONOTONIC, &until);
    }
}

static void stored_add_up(struct filesystem *fs, struct stored *stored)
{
    int64_t bytes, begun = clock_monotonic();
    errint error = object_total_stored(fs->store, stored_stops, stored, &bytes);
    if (!error)
        atomic_store(&stored->bytes, bytes);
    else if (error != -ECANCELED)
        log_warning("what the objects take on the disk cannot be added up now: %s", strerror(-error));
    int64_t ended = clock_monotonic();
    int64_t due = ended + (ended - begun) * STORED_REST;
    pthread_mutex_lock(&stored->lock);
    stored->due = due > stored->due ? due : stored->due;
    pthread_mutex_unlock(&stored->lock);
}

static void *stored_run(void *context)
{
    struct filesystem *fs = context;
    struct stored *stored = fs->stored;
    /* Of this thread only: Linux keeps a nice value for each. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), STORED_NICE);
    pthread_mutex_lock(&stored->lock);
    for (;;) {
        stored_wait(stored);
        if (atomic_load(&stored->stopping))
            break;
        stored->changed = false;
        pthread_mutex_unlock(&stored->lock);
        stored_add_up(fs, stored);
        pthread_mutex_lock(&stored->lock);
    }
    pthread_mutex_unlock(&stored->lock);
    return NULL;
}

errint stored_start(struct filesystem *fs)
{
    struct stored *stored = calloc(1, sizeof *stored);
    if (!stored)
        return -ENOMEM;
    pthread_mutex_init(&stored->lock, NULL);
    pthread_cond_init(&stored->wake, NULL);
    stored->changed = true;
    atomic_init(&stored->stopping, false);
    atomic_init(&stored->bytes, -1);
    fs->stored = stored;
    int error = pthread_create(&stored->thread, NULL, stored_run, fs);
    if (error) {
        free(stored);
        fs->stored = NULL;
        return -error;
    }
    pthread_setname_np(stored->thread, "stored");
    return 0;
}

void stored_stop(struct filesystem *fs)
{
    struct stored *stored = fs->stored;
    if (!stored)
        return;
    atomic_store(&stored->stopping, true);
    pthread_mutex_lock(&stored->lock);
    pthread_cond_signal(&stored->wake);
    pthread_mutex_unlock(&stored->lock);
    pthread_join(stored->thread, NULL);
    fs->stored = NULL;
    pthread_cond_destroy(&stored->wake);
    pthread_mutex_destroy(&stored->lock);
    free(stored);
}
