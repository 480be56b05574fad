/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that work beside others for as long as their owner lives. */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/wait.h"

errint thread_create(pthread_t *id, const char *name, thread_function *run, void *context)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads that expect them */
    int error = pthread_create(id, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        pthread_setname_np(*id, name);
    return -error;
}

void thread_init(struct thread *thread)
{
    pthread_mutex_init(&thread->lock, NULL);
    pthread_cond_init(&thread->wake, NULL);
    atomic_init(&thread->stopping, false);
    thread->runs = false;
}

errint thread_start(struct thread *thread, const char *name, thread_function *run, void *context)
{
    errint error = thread_create(&thread->id, name, run, context);
    thread->runs = error == 0;
    return error;
}

void thread_ask_to_stop(struct thread *thread)
{
    atomic_store(&thread->stopping, true); /* first: what it does now may be broken off */
    thread_lock(thread);
    thread_wake(thread);
    thread_unlock(thread);
}

void thread_stop(struct thread *thread)
{
    thread_ask_to_stop(thread);
    if (thread->runs)
        pthread_join(thread->id, NULL);
    thread->runs = false;
}

void thread_release(struct thread *thread)
{
    pthread_cond_destroy(&thread->wake);
    pthread_mutex_destroy(&thread->lock);
}

void thread_sleep(struct thread *thread)
{
    wait_signal(&thread->wake, &thread->lock);
}

bool thread_sleep_until(struct thread *thread, int64_t until)
{
    if (until == INT64_MAX) {
        thread_sleep(thread);
        return true;
    }
    const struct timespec time = clock_to_timespec(until);
    return pthread_cond_clockwait(&thread->wake, &thread->lock, CLOCK_MONOTONIC, &time) != ETIMEDOUT;
}

void thread_be_nice(int nice)
{
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice);
}
