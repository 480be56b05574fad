/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's objects take on the disk. */
#include "fs/stored.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "store/object.h"

/* A save is many files. */
#define STORED_GATHER_NS CLOCK_NS_PER_SECOND

enum {
    STORED_NICE = 10,
    STORED_REST = 20 /* times as long as it took to add up, nothing is added up again */
};

struct stored {
    struct thread thread;
    bool changed;
    int64_t due; /* clock_monotonic(): not before */
    _Atomic int64_t bytes;
};

static bool stored_stops(void *context)
{
    const struct stored *stored = context;
    return thread_is_stopping(&stored->thread);
}

void stored_kick(struct filesystem *fs)
{
    struct stored *stored = fs->stored;
    if (!stored)
        return;
    thread_lock(&stored->thread);
    if (!stored->changed) {
        int64_t due = clock_monotonic() + STORED_GATHER_NS;
        stored->due = due > stored->due ? due : stored->due;
        stored->changed = true;
        thread_wake(&stored->thread);
    }
    thread_unlock(&stored->thread);
}

int64_t stored_bytes(struct filesystem *fs)
{
    return fs->stored ? atomic_load(&fs->stored->bytes) : -1;
}

/* Returns when there is something to add up, or at the end. The lock is held. */
static void stored_wait(struct stored *stored)
{
    while (!thread_is_stopping(&stored->thread)) {
        if (!stored->changed)
            thread_sleep(&stored->thread);
        else if (clock_monotonic() >= stored->due)
            return;
        else
            thread_sleep_until(&stored->thread, stored->due);
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
    thread_lock(&stored->thread);
    stored->due = due > stored->due ? due : stored->due;
    thread_unlock(&stored->thread);
}

static void *stored_run(void *context)
{
    struct filesystem *fs = context;
    struct stored *stored = fs->stored;
    thread_be_nice(STORED_NICE);
    thread_lock(&stored->thread);
    for (;;) {
        stored_wait(stored);
        if (thread_is_stopping(&stored->thread))
            break;
        stored->changed = false;
        thread_unlock(&stored->thread);
        stored_add_up(fs, stored);
        thread_lock(&stored->thread);
    }
    thread_unlock(&stored->thread);
    return NULL;
}

errint stored_start(struct filesystem *fs)
{
    struct stored *stored = calloc(1, sizeof *stored);
    if (!stored)
        return -ENOMEM;
    thread_init(&stored->thread);
    stored->changed = true;
    atomic_init(&stored->bytes, -1);
    fs->stored = stored;
    errint error = thread_start(&stored->thread, "stored", stored_run, fs);
    if (error) {
        thread_release(&stored->thread);
        free(stored);
        fs->stored = NULL;
    }
    return error;
}

void stored_stop(struct filesystem *fs)
{
    struct stored *stored = fs->stored;
    if (!stored)
        return;
    thread_stop(&stored->thread);
    fs->stored = NULL;
    thread_release(&stored->thread);
    free(stored);
}
