/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that repacks objects. */
#include "fs/repack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "fs/repack_object.h"
#include "meta/sharing.h"

/* For what somebody sees; what fails by itself, as on a full disk, is tried again when something was freed.
 */
#define REPACK_AGAIN_NS (5 * CLOCK_NS_PER_SECOND)

enum { REPACK_NICE = 10, REPACK_BATCH = 256 };

struct repack {
    struct thread thread;
    uint64_t asked;  /* the newest ticket */
    bool kicked;     /* since the present round, or the last one, was begun */
    uint64_t done;   /* the ticket that the last round that has ended was begun after */
    uint64_t failed; /* in that round */
    int64_t again;   /* clock_monotonic() of the next round without a kick; INT64_MAX: none */
    bool told;       /* that something failed, since everything last went well; the thread's own */
};

/* What a round has left. */
struct repack_round {
    uint64_t busy, failed;
};

static bool repack_stops(struct filesystem *fs)
{
    return thread_is_stopping(&fs->repack->thread) || atomic_load(&fs->stopping);
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
    while (!repack->kicked && !thread_is_stopping(&repack->thread) && clock_monotonic() < repack->again)
        thread_sleep_until(&repack->thread, repack->again);
}

static void *repack_thread(void *context)
{
    struct filesystem *fs = context;
    struct repack *repack = fs->repack;
    thread_be_nice(REPACK_NICE);
    thread_lock(&repack->thread);
    for (;;) {
        repack_wait(repack);
        if (thread_is_stopping(&repack->thread))
            break;
        uint64_t ticket = repack->asked;
        repack->kicked = false;
        thread_unlock(&repack->thread);
        struct repack_round round = repack_all(fs);
        thread_lock(&repack->thread);
        repack->done = ticket;
        repack->failed = round.failed;
        repack->again = round.busy ? clock_monotonic() + REPACK_AGAIN_NS : INT64_MAX;
    }
    thread_unlock(&repack->thread);
    return NULL;
}

void repack_kick(struct filesystem *fs, uint64_t ticket)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    thread_lock(&repack->thread);
    repack->asked = ticket;
    repack->kicked = true;
    thread_wake(&repack->thread);
    thread_unlock(&repack->thread);
}

struct repack_progress repack_look(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    struct repack_progress progress = {.done = UINT64_MAX};
    if (!repack)
        return progress;
    thread_lock(&repack->thread);
    progress = (struct repack_progress){repack->done, repack->failed};
    thread_unlock(&repack->thread);
    return progress;
}

errint repack_start(struct filesystem *fs)
{
    struct repack *repack = fs->options->read_only ? NULL : calloc(1, sizeof *repack);
    if (!repack)
        return fs->options->read_only ? 0 : -ENOMEM;
    thread_init(&repack->thread);
    repack->again = INT64_MAX;
    fs->repack = repack;
    errint error = thread_start(&repack->thread, "repack", repack_thread, fs);
    if (error)
        repack_release(fs);
    return error;
}

void repack_stop(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    thread_stop(&repack->thread);
}

void repack_release(struct filesystem *fs)
{
    struct repack *repack = fs->repack;
    if (!repack)
        return;
    thread_release(&repack->thread);
    free(repack);
    fs->repack = NULL;
}
