/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of .ckptfs/events, and those who wait for it. */
#include "fs/view_events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#include "base/log.h"
#include "fs/events.h"
#include "fs/hooks.h"
#include "fs/mount_table.h"
#include "fs/view.h"

enum {
    VIEW_EVENTS_PARKED = 1024, /* reads that wait at a time */
    VIEW_EVENTS_READ = 64 * 1024,
};

/* A read that waits. */
struct view_events_read {
    struct view_events_read *next;
    fuse_req_t request;
    uint64_t fh;
    size_t size;
    bool interrupted;
};

struct view_events {
    pthread_mutex_t lock; /* taken before that of the events */
    struct view_events_read *parked;
    size_t count;
    bool polled;   /* somebody waits by poll(2) */
    bool unlisted; /* the mount is in no mount table of this namespace any more */
    char buffer[VIEW_EVENTS_READ];
};

/* -- a reader's place -------------------------------------------------------------------------------------
 */

static struct state_handle *view_events_find(struct filesystem *fs, uint64_t fh)
{
    struct state_handle *slot = state_handle_find(fs->state, fh);
    return slot && slot->mode == STATE_EVENTS ? slot : NULL;
}

static struct event_place view_events_place(const struct state_handle *slot)
{
    return (struct event_place){.sequence = slot->object >> STATE_EVENTS_SHIFT,
                                .offset = (uint32_t)(slot->object & ((1 << STATE_EVENTS_SHIFT) - 1)),
                                .lost = slot->flags};
}

static void view_events_keep_place(struct state_handle *slot, const struct event_place *place)
{
    slot->flags = place->lost;
    slot->object = place->sequence << STATE_EVENTS_SHIFT | place->offset;
}

static struct event_viewer view_events_viewer(const struct state_handle *slot)
{
    return events_viewer((uint32_t)slot->backing_id);
}

void view_events_open(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    uint64_t unique = fs_current_unique();
    struct state_handle *before = unique & STATE_RESENT ? state_handle_of_request(fs->state, unique) : NULL;
    struct state_handle handle = {.ino = ino,
                                  .unique = unique & ~STATE_RESENT,
                                  .mode = STATE_EVENTS,
                                  .object = events_next(fs) << STATE_EVENTS_SHIFT,
                                  .backing_id = (int32_t)fuse_req_ctx(request)->uid};
    fi->fh = before ? atomic_load(&before->fh) : state_handle_open(fs->state, &handle);
    fi->direct_io = 1;
    fi->nonseekable = 1;
    uint64_t fh = fi->fh;
    if (!fh)
        fuse_reply_err(request, ENFILE);
    else if (fuse_reply_open(request, fi) < 0)
        view_events_close(fs, fh);
}

void view_events_close(struct filesystem *fs, uint64_t fh)
{
    struct view_events *readers = fs->view_events;
    pthread_mutex_lock(&readers->lock);
    if (view_events_find(fs, fh))
        state_handle_close(fs->state, fh);
    pthread_mutex_unlock(&readers->lock);
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* Answers with what there is; false: nothing has come. The lock is held. */
static bool view_events_answer(struct filesystem *fs, fuse_req_t request, uint64_t fh, size_t size)
{
    struct view_events *readers = fs->view_events;
    struct state_handle *slot = view_events_find(fs, fh);
    if (!slot) {
        fuse_reply_err(request, EBADF);
        return true;
    }
    struct event_place place = view_events_place(slot);
    const struct event_viewer viewer = view_events_viewer(slot);
    size_t room = size < sizeof readers->buffer ? size : sizeof readers->buffer;
    size_t length = events_read(fs, &place, &viewer, readers->buffer, room);
    if (length == 0 && size > 0)
        return false;
    /* In this order: who dies in between gives a line twice rather than never. */
    fuse_reply_buf(request, readers->buffer, length);
    view_events_keep_place(slot, &place);
    return true;
}

/* libfuse calls it with the request's lock held, so that it answers nothing itself. */
static void view_events_interrupt(fuse_req_t request, void *context)
{
    struct filesystem *fs = context;
    struct view_events *readers = fs->view_events;
    pthread_mutex_lock(&readers->lock);
    for (struct view_events_read *read = readers->parked; read; read = read->next)
        read->interrupted |= read->request == request;
    pthread_mutex_unlock(&readers->lock);
    events_kick(fs);
}

/* -EAGAIN, -ENOMEM; the lock is held. */
static errint view_events_park(struct view_events *readers, fuse_req_t request, size_t size,
                               const struct fuse_file_info *fi)
{
    if ((fi->flags & O_NONBLOCK) || readers->count >= VIEW_EVENTS_PARKED)
        return -EAGAIN;
    struct view_events_read *read = malloc(sizeof *read);
    if (!read)
        return -ENOMEM;
    *read = (struct view_events_read){.next = readers->parked,
                                      .request = request,
                                      .fh = fi->fh,
                                      .size = size,
                                      .interrupted = fuse_req_interrupted(request)};
    readers->parked = read;
    readers->count++;
    return 0;
}

void view_events_read(fuse_req_t request, size_t size, const struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    struct view_events *readers = fs->view_events;
    fuse_req_interrupt_func(request, view_events_interrupt, fs);
    pthread_mutex_lock(&readers->lock);
    bool interrupted = false;
    if (!view_events_answer(fs, request, fi->fh, size)) {
        errint error = view_events_park(readers, request, size, fi);
        interrupted = !error && readers->parked->interrupted;
        if (error)
            fuse_reply_err(request, -error);
    }
    pthread_mutex_unlock(&readers->lock);
    if (interrupted)
        events_kick(fs);
}

/* -- poll(2) ----------------------------------------------------------------------------------------------
 */

void view_events_poll(fuse_req_t request, uint64_t fh)
{
    struct filesystem *fs = fs_of(request);
    struct view_events *readers = fs->view_events;
    uint64_t key = protocol_poll_key(fs_current_request);
    unsigned events = POLLERR;
    pthread_mutex_lock(&readers->lock);
    struct state_handle *slot = view_events_find(fs, fh);
    if (slot) {
        struct event_place place = view_events_place(slot);
        const struct event_viewer viewer = view_events_viewer(slot);
        events = events_has(fs, &place, &viewer) ? POLLIN | POLLRDNORM : 0;
        if (key)
            slot->reserved = key <= UINT32_MAX ? (uint32_t)key : 0;
        readers->polled |= slot->reserved != 0;
    }
    fuse_reply_poll(request, events);
    pthread_mutex_unlock(&readers->lock);
}

/* Tells the kernel of handles that can be read now; the lock is held. */
static void view_events_notify(struct filesystem *fs)
{
    struct view_events *readers = fs->view_events;
    uint32_t used = atomic_load(&fs->state->handles_used);
    if (!readers->polled)
        return;
    readers->polled = false;
    for (uint32_t i = 0; i < used; i++) {
        struct state_handle *slot = &fs->state->handles[i];
        if (atomic_load(&slot->fh) == 0 || slot->mode != STATE_EVENTS || !slot->reserved)
            continue;
        struct event_place place = view_events_place(slot);
        const struct event_viewer viewer = view_events_viewer(slot);
        if (!events_has(fs, &place, &viewer)) {
            readers->polled = true;
            continue;
        }
        protocol_notify_poll(fs->options->fuse_fd, slot->reserved);
        slot->reserved = 0;
    }
}

/* -- waking -----------------------------------------------------------------------------------------------
 */

static void view_events_look(struct filesystem *fs)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) == 0)
        fs->view_events->unlisted = !mount_table_find_store(&table, fs->store->path);
}

/* True once, when the mount is gone from the mount table while files on it are open still. */
static bool view_events_is_detached(struct filesystem *fs)
{
    bool before = fs->view_events->unlisted;
    view_events_look(fs);
    return fs->view_events->unlisted && !before;
}

static bool view_events_settle(struct filesystem *fs, const struct view_events_read *read, bool ends)
{
    if (read->interrupted)
        fuse_reply_err(read->request, EINTR);
    else if (view_events_answer(fs, read->request, read->fh, read->size))
        return true;
    else if (ends)
        fuse_reply_buf(read->request, NULL, 0);
    return read->interrupted || ends;
}

void view_events_wake(struct filesystem *fs)
{
    struct view_events *readers = fs->view_events;
    pthread_mutex_lock(&readers->lock);
    bool ends = (readers->parked || hooks_running(fs) > 0) && view_events_is_detached(fs);
    if (ends)
        hooks_pause(fs, 0); /* they would keep the mount from its end, too */
    for (struct view_events_read **link = &readers->parked; *link;) {
        struct view_events_read *read = *link;
        if (!view_events_settle(fs, read, ends)) {
            link = &read->next;
            continue;
        }
        *link = read->next;
        readers->count--;
        free(read);
    }
    view_events_notify(fs);
    pthread_mutex_unlock(&readers->lock);
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

errint view_events_start(struct filesystem *fs)
{
    struct view_events *readers = calloc(1, sizeof *readers);
    if (!readers)
        return -ENOMEM;
    pthread_mutex_init(&readers->lock, NULL);
    readers->polled = true; /* a predecessor may have known of some */
    fs->view_events = readers;
    view_events_look(fs);
    return 0;
}

void view_events_stop(struct filesystem *fs)
{
    struct view_events *readers = fs->view_events;
    if (!readers)
        return;
    while (readers->parked) {
        struct view_events_read *read = readers->parked;
        readers->parked = read->next;
        fuse_reply_none(read->request);
        free(read);
    }
    fs->view_events = NULL;
    pthread_mutex_destroy(&readers->lock);
    free(readers);
}
