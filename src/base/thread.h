/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that works beside others for as long as its owner lives: with the lock and the condition that it
 * sleeps by, a flag that asks it to end, and a name. It is part of its owner's struct, which it starts and
 * stops with.
 */
#ifndef CKPTFS_BASE_THREAD_H
#define CKPTFS_BASE_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct thread {
    pthread_mutex_t lock; /* guards what the owner says */
    pthread_cond_t wake;  /* the thread alone waits for it */
    atomic_bool stopping;
    bool runs;
    pthread_t id;
};

typedef void *thread_function(void *context);

/*
 * Runs `run` in a thread that takes no signals, and that the caller joins. `name`: at most 15 characters, by
 * the kernel's limit.
 */
errint thread_create(pthread_t *id, const char *name, thread_function *run, void *context);
/* The nice value of the calling thread alone: Linux keeps one for each. */
void thread_be_nice(int nice);

/* -- with a lock and an end -------------------------------------------------------------------------------
 */

/* Makes the lock and the condition, so that others may tell it something before it runs. */
void thread_init(struct thread *thread);
/* As thread_create; it must have been initialised. */
errint thread_start(struct thread *thread, const char *name, thread_function *run, void *context);
/* Sets the flag and wakes it. For owners whose other waiters look at the flag: they are woken after this. */
void thread_ask_to_stop(struct thread *thread);
/* Asks it to end, and waits until it has. One that was never started is only marked. */
void thread_stop(struct thread *thread);
/* After the end, or without a start. */
void thread_release(struct thread *thread);

/* Needs no lock where it is only asked whether work should be broken off. */
static inline bool thread_is_stopping(const struct thread *thread)
{
    return atomic_load(&thread->stopping);
}

static inline void thread_lock(struct thread *thread)
{
    pthread_mutex_lock(&thread->lock);
}

static inline void thread_unlock(struct thread *thread)
{
    pthread_mutex_unlock(&thread->lock);
}

/* The rest is done with the lock. */

static inline void thread_wake(struct thread *thread)
{
    pthread_cond_signal(&thread->wake);
}

/* In the thread: until it is woken, or for a second at most; what it waits for must be looked at again. */
void thread_sleep(struct thread *thread);
/* The same until `until` (clock_monotonic(); INT64_MAX: as thread_sleep): false when that has come. */
bool thread_sleep_until(struct thread *thread, int64_t until);

#endif
