/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that repacks objects. */
#include "fs/repack.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/filesystem.h"
#include "fs/repack_object.h"
#include "meta/sharing.h"

/* For what somebody sees; what fails by itself, as on a full disk, is tried again when something was freed.
 */
#define REPACK_AGAIN_NS (5 * CLOCK_NS_PER_SECOND)

enum { REPACK_NICE = 10, REPACK_BATCH = 256 };

struct repack {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    uint64_t asked;  /* the newest ticket */
    bool kicked;     /* since the present round, or the last one, was begun */
    uint64_t done;   /* the ticket that the last round that has ended was begun after */
    uint64_t failed; /* in that round */
    int64_t again;   /* clock_monotonic() of the next round without a kick; INT64_MAX: none */
    bool told;       /* that something failed, since everything last went well; the thread's own */
    atomic_bool stopping;
};

/* What a round has left. */
struct repack_round {
    uint64_t busy, failed;
};

static bool repack_stops(struct filesystem *fs)
{
    return atomic_load(&fs->repack->stopping) || atomic_load(&fs->stopping);
}

/* On a full disk every object would say the same, again and again. */
static void repack_tell(struct filesystem *fs, uint64_t object, errint error)
{
    if (!fs->repack->told)
        log_warning(
            "object %016llx: its dead bytes cannot be given back now, since what is alive of it cannot "
            "be written elsewhere: %s",
            (unsigned long long)object, strerror(-error));
    fs->repack->told = true;
}

static void repack_tend(struct filesystem *fs, uint64_t object, struct repack_round *round)
{
    errint error = repack_object(fs, object, repack_stops);
    if (error == -EBUSY)
        round->busy++;
    if (!error || error == -EBUSY || error == -ECANCELED)
        return;
    round->failed++;
    repack_tell(fs, object, error);
}

static struct repack_round repack_all(struct filesystem *fs)
{
    struct repack_round round = {0};
    uint64_t after = 0;
    while (!repack_stops(fs)) {
        cleanup_ids struct ids objects = {0};
        errint error = meta_find_shrunk(fs->meta, after, REPACK_BATCH, &objects);
        if (error) {
            round.failed++;
            log_warning("dead bytes of objects are not given back now: %s", strerror(-error));
        }
        if (objects.count == 0)
            break;
        for (size_t i = 0; i < objects.count && !repack_stops(fs); i++)
            repack_tend(fs, objects.at[i], &round);
        after = objects.at[objects.count - 1];
    }
    if (round.failed == 0)
        fs->repack->told = false;
    return round;
}

/* Returns when there is something to do, or at the end. The lock is held. */
static void repack_wait(struct repack *repack)
{
    while (!repack->kicked && !atomic_load(&repack->stopping) && clock_monotonic() < repack->again) {
        struct timespec again = clock_to_timespec(repack->again);
        if (repack->again == INT64_MAX)
            wait_signal(&repack->wake, &repack->lock);
        else
            pthread_cond_clockwait(&repack->wake, &repack->lock, CLOCK_MONOTONIC, &again);
    }
}

static void *repack_thread(void *context)
{
    struct filesystem *fs = context;
    struct repack *repack = fs->repack;
    /* Of this thread only: Linux keeps a nice value for each. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), REPACK_NICE);
    pthread_mutex_lock(&repack->lock);
    for (;;) {
        repack_wait(repack);
        if (atomic_load(&repack->stopping))
            break;
        uint64_t ticket = repack->asked;
        repack->kicked = false;
        pthread_mutex_unlock(&repack->lock);
        struct repack_round round = repack_all(fs);
        pthread_mutex_lock(&repack->lock);
        repack->done = ticket;
        repack->failed = round.failed;
        repack->again = round.busy ? clock_monotonic() + REPACK_AGAIN_NS : INT64_MAX;
    }
    pthread_mutex_unlock(&repack->lock);
    return NULL;
}

void repack_kick(struct filesystem *fs, uint64_t ticket)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    pthread_mutex_lock(&repack->lock);
    repack->asked = ticket;
    repack->kicked = true;
    pthread_cond_signal(&repack->wake);
    pthread_mutex_unlock(&repack->lock);
}

struct repack_progress repack_look(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    struct repack_progress progress = {.done = UINT64_MAX};
    if (!repack)
        return progress;
    pthread_mutex_lock(&repack->lock);
    progress = (struct repack_progress){repack->done, repack->failed};
    pthread_mutex_unlock(&repack->lock);
    return progress;
}

errint repack_start(struct filesystem *fs)
{
    struct repack *repack = fs->options->read_only ? NULL : calloc(1, sizeof *repack);
    if (!repack)
        return fs->options->read_only ? 0 : -ENOMEM;
    pthread_mutex_init(&repack->lock, NULL);
    pthread_cond_init(&repack->wake, NULL);
    repack->again = INT64_MAX;
    fs->repack = repack;
    int error = pthread_create(&repack->thread, NULL, repack_thread, fs);
    if (error) {
        free(repack);
        fs->repack = NULL;
        return -error;
    }
    pthread_setname_np(repack->thread, "repack");
    return 0;
}

void repack_stop(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    atomic_store(&repack->stopping, true);
    pthread_mutex_lock(&repack->lock);
    pthread_cond_signal(&repack->wake);
    pthread_mutex_unlock(&repack->lock);
    pthread_join(repack->thread, NULL);
}

void repack_release(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    pthread_cond_destroy(&repack->wake);
    pthread_mutex_destroy(&repack->lock);
    free(repack);
    fs->repack = NULL;
}
