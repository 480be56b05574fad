/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that looks at the runs, and who asks it. */
#include "fs/outlook.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size_text.h"
#include "base/thread.h"
#include "store/object.h"

/* Who asks waits no longer than this. */
#define OUTLOOK_PATIENCE_NS (3 * CLOCK_NS_PER_SECOND)
/* And who has just mounted, less: the log will have it, too. */
#define OUTLOOK_MOUNT_PATIENCE_NS CLOCK_NS_PER_SECOND
#define OUTLOOK_STEP_NS           (CLOCK_NS_PER_SECOND / 50)

enum {
    OUTLOOK_NICE = 10,
    OUTLOOK_REST = 10 /* times as long as a look took, what it found is good enough */
};

struct outlook_work {
    struct thread thread;
    pthread_cond_t answered;
    uint64_t asked, served; /* questions so far; those that a look has followed */
    bool measures;          /* the largest checkpoint is still to be found out, unasked */
    bool measured;
    struct outlook_largest largest;
    struct outlook *current; /* NULL: none yet */
    uint64_t commit;         /* of the namespace, before `current` was begun */
    int64_t rested;          /* clock_monotonic() until which `current` is good enough */
};

bool outlook_stops(struct filesystem *fs)
{
    return thread_is_stopping(&fs->outlook->thread);
}

static bool outlook_stops_context(void *context)
{
    return outlook_stops(context);
}

/* -- what was found ---------------------------------------------------------------------------------------
 */

static void outlook_release(struct outlook *outlook)
{
    for (size_t i = 0; i < outlook->count; i++) {
        free(outlook->runs[i].path);
        free(outlook->runs[i].last);
        ids_release(&outlook->runs[i].completed);
    }
    free(outlook->runs);
    free(outlook);
}

/* The lock is held. */
static void outlook_put(struct outlook *outlook)
{
    if (outlook && --outlook->references == 0)
        outlook_release(outlook);
}

const struct outlook_run *outlook_find_run(const struct outlook *outlook, uint64_t ino)
{
    for (size_t i = 0; outlook && i < outlook->count; i++) {
        if (outlook->runs[i].ino == ino)
            return &outlook->runs[i];
    }
    return NULL;
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

/* Until the thread has followed all questions, or nobody wants to wait any more. The lock is held. */
static void outlook_wait(struct outlook_work *work, bool (*stops)(void *context), void *context)
{
    uint64_t asked = ++work->asked;
    int64_t deadline = clock_monotonic() + OUTLOOK_PATIENCE_NS;
    thread_wake(&work->thread);
    while (work->served < asked && clock_monotonic() < deadline && !thread_is_stopping(&work->thread) &&
           !(stops && stops(context))) {
        struct timespec until = clock_to_timespec(clock_monotonic() + OUTLOOK_STEP_NS);
        pthread_cond_clockwait(&work->answered, &work->thread.lock, CLOCK_MONOTONIC, &until);
    }
}

const struct outlook *outlook_take(struct filesystem *fs, bool (*stops)(void *context), void *context)
{
    struct outlook_work *work = fs->outlook;
    if (!work)
        return NULL;
    thread_lock(&work->thread);
    outlook_wait(work, stops, context);
    struct outlook *outlook = work->current;
    if (outlook)
        outlook->references++;
    thread_unlock(&work->thread);
    return outlook;
}

void outlook_give(struct filesystem *fs, const struct outlook *outlook)
{
    if (!outlook)
        return;
    thread_lock(&fs->outlook->thread);
    outlook_put((struct outlook *)outlook);
    thread_unlock(&fs->outlook->thread);
}

bool outlook_largest(struct filesystem *fs, bool (*stops)(void *context), void *context,
                     struct outlook_largest *out)
{
    struct outlook_work *work = fs->outlook;
    if (!work)
        return false;
    int64_t deadline = clock_monotonic() + OUTLOOK_MOUNT_PATIENCE_NS;
    thread_lock(&work->thread);
    while (!work->measured && clock_monotonic() < deadline && !thread_is_stopping(&work->thread) &&
           !(stops && stops(context))) {
        struct timespec until = clock_to_timespec(clock_monotonic() + OUTLOOK_STEP_NS);
        pthread_cond_clockwait(&work->answered, &work->thread.lock, CLOCK_MONOTONIC, &until);
    }
    bool known = work->measured;
    *out = work->largest;
    thread_unlock(&work->thread);
    return known;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static void outlook_warn(struct filesystem *fs, const struct outlook_largest *largest)
{
    struct statvfs disk;
    char need[SIZE_TEXT_MAX], room[SIZE_TEXT_MAX];
    cleanup_free char *path = NULL;
    if (largest->bytes == 0 || fs->options->read_only || fstatvfs(fs->store->fd, &disk) != 0)
        return;
    int64_t available = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    if (available >= largest->bytes || meta_path(fs->meta, largest->ino, &path) < 0)
        return;
    log_warning("the disk under the store has %s left, and the largest checkpoint, %s, takes %s: one like it "
                "does not fit any more",
                size_text((double)available, room), path, size_text((double)largest->bytes, need));
}

/* At a mount, by names and sizes alone. */
static void outlook_measure(struct filesystem *fs)
{
    struct outlook_work *work = fs->outlook;
    struct outlook nothing = {0};
    struct outlook_largest largest = {0};
    errint error = outlook_look_at_runs(fs, NULL, false, &nothing, &largest);
    if (error && error != -ECANCELED)
        log_warning("the checkpoints cannot be looked at now: %s", strerror(-error));
    if (!error)
        outlook_warn(fs, &largest);
    thread_lock(&work->thread);
    work->measures = false;
    work->measured |= !error;
    work->largest = largest;
    pthread_cond_broadcast(&work->answered);
    thread_unlock(&work->thread);
}

static void outlook_look_at_space(struct filesystem *fs, struct outlook *out)
{
    if (fs->options->read_only)
        return; /* nothing is given back, nor tried */
    keep_room_look(fs, outlook_stops, &out->gives);
    int can_punch = object_can_punch(fs->store);
    out->reclaim =
        (struct reclaim_survey){.stop = outlook_stops_context, .context = fs, .can_punch = can_punch > 0};
    out->reclaim_known = can_punch >= 0 && reclaim_look(fs, &out->reclaim) == 0;
}

/* NULL: it was not to be, and `former` stays. */
static struct outlook *outlook_make(struct filesystem *fs, const struct outlook *former,
                                    struct outlook_largest *largest)
{
    struct outlook *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->references = 1;
    errint error = outlook_look_at_runs(fs, former, true, made, largest);
    if (!error)
        outlook_look_at_space(fs, made);
    if (!error && !outlook_stops(fs))
        return made;
    if (error && error != -ECANCELED)
        log_warning("the runs cannot be looked at now: %s", strerror(-error));
    outlook_release(made);
    return NULL;
}

/* Follows the questions so far. The lock is held, and given up meanwhile. */
static void outlook_serve(struct filesystem *fs)
{
    struct outlook_work *work = fs->outlook;
    uint64_t asked = work->asked, commit = meta_commit_last(fs->meta);
    int64_t begun = clock_monotonic();
    if (!work->current || (commit != work->commit && begun >= work->rested)) {
        struct outlook *former = work->current;
        struct outlook_largest largest = {0};
        thread_unlock(&work->thread);
        struct outlook *made = outlook_make(fs, former, &largest);
        thread_lock(&work->thread);
        if (made) {
            work->current = made;
            work->commit = commit;
            work->largest = largest;
            work->measured = true;
            outlook_put(former);
        }
        int64_t now = clock_monotonic();
        work->rested = now + (now - begun) * OUTLOOK_REST;
    }
    work->served = asked;
    pthread_cond_broadcast(&work->answered);
}

static void *outlook_run(void *context)
{
    struct filesystem *fs = context;
    struct outlook_work *work = fs->outlook;
    thread_be_nice(OUTLOOK_NICE);
    if (work->measures)
        outlook_measure(fs);
    thread_lock(&work->thread);
    while (!thread_is_stopping(&work->thread)) {
        if (work->served < work->asked)
            outlook_serve(fs);
        else
            thread_sleep(&work->thread);
    }
    thread_unlock(&work->thread);
    return NULL;
}

static void outlook_free(struct filesystem *fs)
{
    struct outlook_work *work = fs->outlook;
    fs->outlook = NULL;
    outlook_put(work->current);
    pthread_cond_destroy(&work->answered);
    thread_release(&work->thread);
    free(work);
}

errint outlook_start(struct filesystem *fs, bool takeover)
{
    struct outlook_work *work = calloc(1, sizeof *work);
    if (!work)
        return -ENOMEM;
    thread_init(&work->thread);
    pthread_cond_init(&work->answered, NULL);
    work->measures = !takeover;
    fs->outlook = work;
    errint error = thread_start(&work->thread, "outlook", outlook_run, fs);
    if (error)
        outlook_free(fs);
    return error;
}

void outlook_stop(struct filesystem *fs)
{
    if (!fs->outlook)
        return;
    thread_stop(&fs->outlook->thread);
    outlook_free(fs);
}
