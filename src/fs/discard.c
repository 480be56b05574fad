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
#include "base/thread.h"
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
    struct thread thread;
    pthread_cond_t followed; /* a round has ended */
    struct ids inodes, objects;
    struct ids mapped; /* inodes that wait for the end of a map; the thread's own */
    uint64_t kicks;    /* how often it was said that objects may have dead bytes to give back */
    uint64_t taken;    /* kicks that the present round, or the last one, was begun after */
    uint64_t done;     /* the same of the last round that has ended */
    int64_t again;     /* clock_monotonic() when what could not be done is tried again; INT64_MAX: nothing is
                          left */
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
    thread_lock(&discard->thread);
    for (size_t i = 0; i < objects->count; i++)
        discard_queue(&discard->objects, objects->at[i], "object");
    thread_wake(&discard->thread);
    thread_unlock(&discard->thread);
}

void discard_inode(struct filesystem *fs, uint64_t ino)
{
    struct discard *discard = fs->discard;
    thread_lock(&discard->thread);
    discard_queue(&discard->inodes, ino, "inode");
    thread_wake(&discard->thread);
    thread_unlock(&discard->thread);
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
    thread_lock(&discard->thread);
    discard->kicks++;
    thread_wake(&discard->thread);
    thread_unlock(&discard->thread);
}

void discard_flush(struct filesystem *fs)
{
    struct discard *discard = fs->discard;
    thread_lock(&discard->thread);
    uint64_t ticket = ++discard->kicks;
    thread_wake(&discard->thread);
    while (discard->done < ticket && !thread_is_stopping(&discard->thread))
        wait_signal(&discard->followed, &discard->thread.lock);
    thread_unlock(&discard->thread);
}

void discard_progress(struct filesystem *fs, uint64_t *kicks, uint64_t *done)
{
    thread_lock(&fs->discard->thread);
    *kicks = fs->discard->kicks;
    *done = fs->discard->done;
    thread_unlock(&fs->discard->thread);
}

/* Whether there is nothing to remove. The lock is held. */
static bool discard_is_idle(const struct discard *discard)
{
    return discard->inodes.count == 0 && discard->objects.count == 0;
}

/* Returns when there is something to do. The lock is held. */
static void discard_wait(struct discard *discard)
{
    while (discard_is_idle(discard) && discard->kicks == discard->taken &&
           !thread_is_stopping(&discard->thread) && thread_sleep_until(&discard->thread, discard->again))
        continue;
    if (thread_is_stopping(&discard->thread))
        return;
    int64_t until = clock_monotonic() + DISCARD_GATHER_NS;
    while (!thread_is_stopping(&discard->thread) && thread_sleep_until(&discard->thread, until))
        continue;
}

/* Gives dead bytes back; what somebody still sees is tried again later. */
static void discard_reclaim(struct filesystem *fs, uint64_t ticket)
{
    int left = reclaim_run(fs, ticket);
    if (left < 0)
        log_warning("dead bytes of objects are not given back now: %s", strerror(-left));
    thread_lock(&fs->discard->thread);
    fs->discard->again = left || fs->discard->mapped.count ? clock_monotonic() + DISCARD_AGAIN_NS : INT64_MAX;
    fs->discard->done = ticket;
    pthread_cond_broadcast(&fs->discard->followed);
    thread_unlock(&fs->discard->thread);
}

static void *discard_run(void *context)
{
    struct filesystem *fs = context;
    struct discard *discard = fs->discard;
    thread_lock(&discard->thread);
    for (;;) {
        discard_wait(discard);
        if (discard_is_idle(discard) && thread_is_stopping(&discard->thread))
            break;
        discard->taken = discard->kicks;
        /* The start gives the first kick, when it is known what a crash has left, and what the disk can do.
         */
        uint64_t ticket = discard->taken;
        cleanup_ids struct ids inodes = discard->inodes;
        cleanup_ids struct ids mapped = discard->mapped;
        cleanup_ids struct ids objects = discard->objects;
        discard->inodes = discard->mapped = discard->objects = (struct ids){0};
        thread_unlock(&discard->thread);
        discard_reap(fs, &inodes, &objects);
        discard_reap(fs, &mapped, &objects);
        discard_remove(fs, &objects);
        if (ticket > 0)
            discard_reclaim(fs, ticket);
        stored_kick(fs);
        thread_lock(&discard->thread);
    }
    thread_unlock(&discard->thread);
    return NULL;
}

static void discard_free(struct filesystem *fs)
{
    struct discard *discard = fs->discard;
    ids_release(&discard->inodes);
    ids_release(&discard->mapped);
    ids_release(&discard->objects);
    pthread_cond_destroy(&discard->followed);
    thread_release(&discard->thread);
    free(discard);
    fs->discard = NULL;
}

errint discard_start(struct filesystem *fs)
{
    struct discard *discard = calloc(1, sizeof *discard);
    if (!discard)
        return -ENOMEM;
    thread_init(&discard->thread);
    pthread_cond_init(&discard->followed, NULL);
    discard->again = INT64_MAX;
    fs->discard = discard;
    errint error = thread_start(&discard->thread, "discard", discard_run, fs);
    if (error)
        discard_free(fs);
    return error;
}

void discard_stop(struct filesystem *fs, bool finish)
{
    struct discard *discard = fs->discard;
    if (!discard)
        return;
    thread_lock(&discard->thread);
    if (!finish)
        discard->inodes.count = discard->objects.count = 0;
    thread_unlock(&discard->thread);
    thread_ask_to_stop(&discard->thread);
    thread_lock(&discard->thread);
    pthread_cond_broadcast(&discard->followed);
    thread_unlock(&discard->thread);
    thread_stop(&discard->thread);
    discard_free(fs);
}
