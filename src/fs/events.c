/* SPDX-License-Identifier: Apache-2.0 */
/* Telling of what is done: the queue, the thread, and what is kept. */
#include "fs/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "ckpt/detect.h"
#include "fs/event_whereabouts.h"
#include "fs/filesystem.h"
#include "fs/hooks.h"
#include "fs/view_events.h"
#include "fs/visible.h"
#include "meta/event.h"

enum {
    EVENTS_WAITING = 1024, /* more than that are lost */
    EVENTS_BATCH = 64,     /* in one transaction */
};

/* An event that was told of: the texts are its own. */
struct events_told {
    struct events_told *next;
    struct event event;
    uint64_t sequence;
    int64_t time;
};

struct events {
    struct thread thread; /* its lock is the innermost */
    bool kicked;
    struct events_told *first, **last;
    size_t waiting;
    uint64_t next; /* number */
    struct event_ring ring;
    bool failed; /* the database could not be written: said once */
};

/* -- telling ----------------------------------------------------------------------------------------------
 */

static void events_free_told(struct events_told *told)
{
    if (told) {
        free((char *)told->event.path);
        free((char *)told->event.run);
        free((char *)told->event.framework);
        free((char *)told->event.reason);
    }
    free(told);
}

/* NULL stays NULL. */
static bool events_copy_text(const char *from, const char **to)
{
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

static struct events_told *events_copy(const struct event *event)
{
    struct events_told *told = calloc(1, sizeof *told);
    if (!told)
        return NULL;
    told->event = *event;
    told->time = clock_read_ns(CLOCK_REALTIME);
    bool fine = events_copy_text(event->path, &told->event.path);
    fine &= events_copy_text(event->run, &told->event.run);
    fine &= events_copy_text(event->framework, &told->event.framework);
    fine &= events_copy_text(event->reason, &told->event.reason);
    if (fine)
        return told;
    events_free_told(told);
    return NULL;
}

void events_emit(struct filesystem *fs, const struct event *event)
{
    struct events *events = fs->events;
    if (!events)
        return;
    struct events_told *told = events_copy(event);
    thread_lock(&events->thread);
    uint64_t sequence = events->next++;
    if (told && events->waiting < EVENTS_WAITING) {
        told->sequence = sequence;
        *events->last = told;
        events->last = &told->next;
        events->waiting++;
        told = NULL;
    }
    thread_wake(&events->thread);
    thread_unlock(&events->thread);
    events_free_told(told);
}

void events_kick(struct filesystem *fs)
{
    struct events *events = fs->events;
    if (!events)
        return;
    thread_lock(&events->thread);
    events->kicked = true;
    thread_wake(&events->thread);
    thread_unlock(&events->thread);
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

struct event_viewer events_viewer(uint32_t uid)
{
    return (struct event_viewer){.sees_all = visible_sees_all(uid), .uid = uid};
}

uint64_t events_next(struct filesystem *fs)
{
    thread_lock(&fs->events->thread);
    /* What was told and is not in the ring yet is still to come. */
    struct events_told *first = fs->events->first;
    uint64_t next = first ? first->sequence : fs->events->next;
    thread_unlock(&fs->events->thread);
    return next;
}

bool events_has(struct filesystem *fs, struct event_place *place, const struct event_viewer *viewer)
{
    thread_lock(&fs->events->thread);
    bool has = event_ring_has(&fs->events->ring, place, viewer);
    thread_unlock(&fs->events->thread);
    return has;
}

size_t events_read(struct filesystem *fs, struct event_place *place, const struct event_viewer *viewer,
                   char *out, size_t room)
{
    thread_lock(&fs->events->thread);
    size_t length = event_ring_read(&fs->events->ring, place, viewer, out, room);
    thread_unlock(&fs->events->thread);
    return length;
}

/* -- keeping ----------------------------------------------------------------------------------------------
 */

/* A batch as it goes into the database, then into the ring. */
struct events_batch {
    struct meta_event at[EVENTS_BATCH];
    size_t count;
};

static int64_t events_step_of_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    return detect_step_of_name(slash ? slash + 1 : path);
}

static void events_describe(struct filesystem *fs, struct events_told *told, struct meta_event *out)
{
    struct event_whereabouts where = {0};
    *out = (struct meta_event){.sequence = told->sequence, .uid = UINT32_MAX};
    event_whereabouts_find(fs, &told->event, &where);
    struct event event = told->event;
    event.path = where.path;
    event.run = where.run;
    if (event.step < 0 && event.kind != EVENT_POLICY && where.path)
        event.step = events_step_of_path(where.path);
    out->directory = where.directory;
    out->uid = where.uid;
    out->pending = where.directory && hooks_want(fs, where.directory, where.uid, event.kind);
    out->text = event_print(&event, told->sequence, told->time);
    out->length = out->text ? strlen(out->text) : 0;
    event_whereabouts_release(&where);
}

static void events_keep(struct filesystem *fs, const struct events_batch *batch)
{
    if (fs->options->read_only || batch->count == 0)
        return;
    errint error = meta_event_add(fs->meta, batch->at, batch->count, EVENT_RING_LINES);
    if (error && !fs->events->failed)
        log_warning("events are not kept over the end of this daemon: %s", strerror(-error));
    fs->events->failed = error != 0;
}

static void events_show(struct filesystem *fs, const struct events_batch *batch)
{
    struct events *events = fs->events;
    for (size_t i = 0; i < batch->count; i++) {
        const struct meta_event *event = &batch->at[i];
        struct event_line line = {event->sequence, event->uid, strdup(event->text), event->length};
        if (!line.text)
            continue; /* lost */
        event_make_readable(line.text);
        thread_lock(&events->thread);
        event_ring_add(&events->ring, &line);
        thread_unlock(&events->thread);
    }
}

/* With no lock held. */
static void events_publish(struct filesystem *fs, struct events_told *told)
{
    struct events_batch batch = {.count = 0};
    while (told) {
        struct events_told *next = told->next;
        events_describe(fs, told, &batch.at[batch.count]);
        batch.count += batch.at[batch.count].text != NULL;
        events_free_told(told);
        told = next;
    }
    events_keep(fs, &batch);
    events_show(fs, &batch);
    for (size_t i = 0; i < batch.count; i++) {
        if (batch.at[i].pending)
            hooks_add(fs, batch.at[i].sequence, batch.at[i].directory, batch.at[i].text);
        free((char *)batch.at[i].text);
    }
}

/* Takes the first of them off the queue; the lock is held. */
static struct events_told *events_take(struct events *events)
{
    struct events_told *first = events->first, **end = &events->first;
    for (size_t i = 0; i < EVENTS_BATCH && *end; i++) {
        end = &(*end)->next;
        events->waiting--;
    }
    struct events_told *rest = *end;
    *end = NULL;
    events->first = rest;
    if (!rest)
        events->last = &events->first;
    return first == rest ? NULL : first;
}

static void *events_run(void *context)
{
    struct filesystem *fs = context;
    struct events *events = fs->events;
    thread_lock(&events->thread);
    while (!thread_is_stopping(&events->thread) || events->first) {
        if (!events->first && !events->kicked)
            thread_sleep(&events->thread);
        events->kicked = false;
        struct events_told *told = events_take(events);
        thread_unlock(&events->thread);
        if (told)
            events_publish(fs, told);
        view_events_wake(fs);
        thread_lock(&events->thread);
    }
    thread_unlock(&events->thread);
    return NULL;
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

/* An event whose hook was not run to its end. */
struct events_pending {
    struct events_pending *next;
    uint64_t sequence, directory;
    char *text;
};

struct events_restoring {
    struct events *events;
    struct events_pending *first, **last;
};

/* The namespace cannot be asked yet. */
static void events_note_pending(struct events_restoring *restoring, const struct meta_event *event)
{
    struct events_pending *pending = calloc(1, sizeof *pending);
    char *text = pending ? strndup(event->text, event->length) : NULL;
    if (!text) {
        log_warning("event %llu: its hook is not run now: no memory", (unsigned long long)event->sequence);
        free(pending);
        return;
    }
    *pending =
        (struct events_pending){.sequence = event->sequence, .directory = event->directory, .text = text};
    *restoring->last = pending;
    restoring->last = &pending->next;
}

static void events_restore(void *context, const struct meta_event *event)
{
    struct events_restoring *restoring = context;
    struct event_line line = {event->sequence, event->uid, strndup(event->text, event->length),
                              event->length};
    restoring->events->next = event->sequence + 1;
    if (event->pending)
        events_note_pending(restoring, event);
    if (!line.text)
        return;
    event_make_readable(line.text);
    line.length = strlen(line.text);
    event_ring_add(&restoring->events->ring, &line);
}

static errint events_restore_all(struct filesystem *fs)
{
    struct events_restoring restoring = {.events = fs->events, .last = &restoring.first};
    errint error = meta_event_list(fs->meta, events_restore, &restoring);
    for (struct events_pending *pending; (pending = restoring.first);) {
        restoring.first = pending->next;
        if (!error)
            hooks_add(fs, pending->sequence, pending->directory, pending->text);
        free(pending->text);
        free(pending);
    }
    return error;
}

static void events_free(struct filesystem *fs)
{
    struct events *events = fs->events;
    fs->events = NULL;
    event_ring_release(&events->ring);
    thread_release(&events->thread);
    free(events);
}

errint events_start(struct filesystem *fs)
{
    struct events *events = calloc(1, sizeof *events);
    if (!events)
        return -ENOMEM;
    thread_init(&events->thread);
    events->last = &events->first;
    events->next = 1;
    fs->events = events;
    errint error = events_restore_all(fs);
    if (!error)
        error = thread_start(&events->thread, "events", events_run, fs);
    if (error)
        events_free(fs);
    return error;
}

void events_stop(struct filesystem *fs)
{
    if (!fs->events)
        return;
    thread_stop(&fs->events->thread);
    events_free(fs);
}
