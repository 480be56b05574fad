/* SPDX-License-Identifier: Apache-2.0 */
/* Removing inodes and objects that nobody needs any more. */
#include "fs/discard.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/filesystem.h"
#include "fs/protocol.h"
#include "fs/reclaim.h"
#include "fs/reclaim_plan.h"
#include "fs/space.h"
#include "fs/stored.h"
#include "fs/view.h"
#include "meta/journal.h"
#include "store/object.h"

/* Removals wait this long for company, so that deleting a tree costs few syncs. */
#define DISCARD_GATHER_NS (CLOCK_NS_PER_SECOND / 5)
/* Dead bytes that somebody still sees. */
#define DISCARD_AGAIN_NS (5 * CLOCK_NS_PER_SECOND)

struct discard {
    pthread_mutex_t lock;
    pthread_cond_t wake, followed; /* there is something to do; a round has ended */
    pthread_t thread;
    struct ids inodes, objects;
    struct ids mapped; /* inodes that wait for the end of a map; the thread's own */
    uint64_t kicks;    /* how often it was said that objects may have dead bytes to give back */
    uint64_t taken;    /* kicks that the present round, or the last one, was begun after */
    uint64_t done;     /* the same of the last round that has ended */
    int64_t again;     /* clock_monotonic() when what could not be done is tried again; INT64_MAX: nothing is
                          left */
    bool stopping;
};

/* Without memory for the list it stays until the next mount finds it. The lock is held. */
static void discard_queue(struct ids *queue, uint64_t id, const char *what)
{
    if (ids_append(queue, id) < 0)
        log_warning("%s %016llx: no memory to remove it now; the next mount does it", what,
                    (unsigned long long)id);
}

void discard_objects(struct filesystem *fs, const struct ids *objects)
{
    struct discard *discard = fs->discard;
    if (objects->count == 0)
        return;
    pthread_mutex_lock(&discard->lock);
    for (size_t i = 0; i < objects->count; i++)
        discard_queue(&discard->objects, objects->at[i], "object");
    pthread_cond_signal(&discard->wake);
    pthread_mutex_unlock(&discard->lock);
}

void discard_inode(struct filesystem *fs, uint64_t ino)
{
    struct discard *discard = fs->discard;
    pthread_mutex_lock(&discard->lock);
    discard_queue(&discard->inodes, ino, "inode");
    pthread_cond_signal(&discard->wake);
    pthread_mutex_unlock(&discard->lock);
}

/* Whether a map shows it by its number in a view. The kernel may remember that one for long after, and of no
 * other inode it is the business, so that the objects are asked for, too. */
static bool discard_is_mapped(struct filesystem *fs, uint64_t ino)
{
    const uint64_t seen = view_number(VIEW_FILE, ino);
    struct meta_inode row;
    if (!seen || !protocol_knows_inode(fs->options->fuse_fd, seen) || meta_get(fs->meta, ino, &row) < 0)
        return false;
    if (row.kind == META_OBJECT)
        return reclaim_check_seen(fs, row.object) == -EBUSY;
    cleanup_free struct meta_extent *extents = NULL;
    size_t count = 0;
    bool one = row.kind == META_EXTENTS && meta_extents(fs->meta, ino, &extents, &count) == 0 && count == 1;
    return one && reclaim_check_seen(fs, extents[0].object) == -EBUSY;
}

/* Takes those off the list, for later. */
static void discard_set_mapped_aside(struct filesystem *fs, struct ids *inodes)
{
    struct discard *discard = fs->discard;
    size_t count = 0;
    for (size_t i = 0; i < inodes->count; i++) {
        if (discard_is_mapped(fs, inodes->at[i]))
            discard_queue(&discard->mapped, inodes->at[i], "inode");
        else
            inodes->at[count++] = inodes->at[i];
    }
    inodes->count = count;
}

static void discard_reap(struct filesystem *fs, struct ids *inodes, struct ids *objects)
{
    discard_set_mapped_aside(fs, inodes);
    errint error = inodes->count ? meta_reap_all(fs->meta, inodes, objects) : 0;
    if (error)
        log_warning("%zu unlinked inodes stay until the next mount: %s", inodes->count, strerror(-error));
}

static void discard_remove(struct filesystem *fs, struct ids *objects)
{
    if (objects->count == 0)
        return;
    errint error = meta_sync_journal(fs->meta);
    if (!error)
        error = fault_hit("fs.discard");
    if (error) {
        log_warning("%zu objects wait for removal: the namespace cannot be synced: %s", objects->count,
                    strerror(-error));
        return;
    }
    size_t removed = 0;
    for (size_t i = 0; i < objects->count; i++) {
        error = object_remove(fs->store, objects->at[i]);
        if (error)
            log_warning("object %016llx: cannot be removed: %s", (unsigned long long)objects->at[i],
                        strerror(-error));
        else
            objects->at[removed++] = objects->at[i];
    }
    objects->count = removed;
    error = meta_object_forget(fs->meta, objects);
    if (error)
        log_warning("%zu removed objects are still listed: %s", objects->count, strerror(-error));
    if (atomic_load(&fs->damage.any) && objects->count > 0)
        damage_load(fs);
    space_check(fs);
}

void discard_kick(struct filesystem *fs)
{
    struct discard *discard = fs->discard;
    pthread_mutex_lock(&discard->lock);
    discard->kicks++;
    pthread_cond_signal(&discard->wake);
    pthread_mutex_unlock(&discard->lock);
}

void discard_flush(struct filesystem *fs)
{
    struct discard *discard = fs->discard;
    pthread_mutex_lock(&discard->lock);
    uint64_t ticket = ++discard->kicks;
    pthread_cond_signal(&discard->wake);
    while (discard->done < ticket && !discard->stopping)
        wait_signal(&discard->followed, &discard->lock);
    pthread_mutex_unlock(&discard->lock);
}

void discard_progress(struct filesystem *fs, uint64_t *kicks, uint64_t *done)
{
    pthread_mutex_lock(&fs->discard->lock);
    *kicks = fs->discard->kicks;
    *done = fs->discard->done;
    pthread_mutex_unlock(&fs->discard->lock);
}

/* Whether there is nothing to remove. The lock is held. */
static bool discard_is_idle(const struct discard *discard)
{
    return discard->inodes.count == 0 && discard->objects.count == 0;
}

/* Returns when there is something to do. The lock is held. */
static void discard_wait(struct discard *discard)
{
    struct timespec again = clock_to_timespec(discard->again);
    while (discard_is_idle(discard) && discard->kicks == discard->taken && !discard->stopping) {
        if (discard->again == INT64_MAX)
            wait_signal(&discard->wake, &discard->lock);
        else if (pthread_cond_clockwait(&discard->wake, &discard->lock, CLOCK_MONOTONIC, &again) == ETIMEDOUT)
            break;
    }
    if (discard->stopping)
        return;
    struct timespec until = clock_to_timespec(clock_monotonic() + DISCARD_GATHER_NS);
    while (!discard->stopping &&
           pthread_cond_clockwait(&discard->wake, &discard->lock, CLOCK_MONOTONIC, &until) == 0)
        continue;
}

/* Gives dead bytes back; what somebody still sees is tried again later. */
static void discard_reclaim(struct filesystem *fs, uint64_t ticket)
{
    int left = reclaim_run(fs, ticket);
    if (left < 0)
        log_warning("dead bytes of objects are not given back now: %s", strerror(-left));
    pthread_mutex_lock(&fs->discard->lock);
    fs->discard->again = left || fs->discard->mapped.count ? clock_monotonic() + DISCARD_AGAIN_NS : INT64_MAX;
    fs->discard->done = ticket;
    pthread_cond_broadcast(&fs->discard->followed);
    pthread_mutex_unlock(&fs->discard->lock);
}

static void *discard_run(void *context)
{
    struct filesystem *fs = context;
    struct discard *discard = fs->discard;
    pthread_mutex_lock(&discard->lock);
    for (;;) {
        discard_wait(discard);
        if (discard_is_idle(discard) && discard->stopping)
            break;
        discard->taken = discard->kicks;
        /* The start gives the first kick, when it is known what a crash has left, and what the disk can do.
         */
        uint64_t ticket = discard->taken;
        cleanup_ids struct ids inodes = discard->inodes;
        cleanup_ids struct ids mapped = discard->mapped;
        cleanup_ids struct ids objects = discard->objects;
        discard->inodes = discard->mapped = discard->objects = (struct ids){0};
        pthread_mutex_unlock(&discard->lock);
        discard_reap(fs, &inodes, &objects);
        discard_reap(fs, &mapped, &objects);
        discard_remove(fs, &objects);
        if (ticket > 0)
            discard_reclaim(fs, ticket);
        stored_kick(fs);
        pthread_mutex_lock(&discard->lock);
    }
    pthread_mutex_unlock(&discard->lock);
    return NULL;
}

errint discard_start(struct filesystem *fs)
{
    struct discard *discard = calloc(1, sizeof *discard);
    if (!discard)
        return -ENOMEM;
    pthread_mutex_init(&discard->lock, NULL);
    pthread_cond_init(&discard->wake, NULL);
    pthread_cond_init(&discard->followed, NULL);
    discard->again = INT64_MAX;
    fs->discard = discard;
    int error = pthread_create(&discard->thread, NULL, discard_run, fs);
    if (error) {
        free(discard);
        fs->discard = NULL;
        return -error;
    }
    pthread_setname_np(discard->thread, "discard");
    return 0;
}

void discard_stop(struct filesystem *fs, bool finish)
{
    struct discard *discard = fs->discard;
    if (!discard)
        return;
    pthread_mutex_lock(&discard->lock);
    discard->stopping = true;
    pthread_cond_broadcast(&discard->followed);
    if (!finish)
        discard->inodes.count = discard->objects.count = 0;
    pthread_cond_signal(&discard->wake);
    pthread_mutex_unlock(&discard->lock);
    pthread_join(discard->thread, NULL);
    ids_release(&discard->inodes);
    ids_release(&discard->mapped);
    ids_release(&discard->objects);
    pthread_cond_destroy(&discard->wake);
    pthread_cond_destroy(&discard->followed);
    pthread_mutex_destroy(&discard->lock);
    free(discard);
    fs->discard = NULL;
}
