/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a condition, proof against lost wake-ups: glibc up to 2.40 can lose one where several threads
 * wait for the same variable (its bug 25847), and a thread that sleeps through the end of a mount would keep
 * it from ending.
 */
#ifndef CKPTFS_BASE_WAIT_H
#define CKPTFS_BASE_WAIT_H

#include <pthread.h>

#include "base/clock.h"

/*
 * As pthread_cond_wait, and returns after a second at the latest. Callers look at their condition again, as
 * they must in any case.
 */
static inline void wait_signal(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    struct timespec until = clock_to_timespec(clock_monotonic() + CLOCK_NS_PER_SECOND);
    pthread_cond_clockwait(condition, lock, CLOCK_MONOTONIC, &until);
}

#endif
