/* SPDX-License-Identifier: Apache-2.0 */
/* The list of directories, and the thread that goes through it. */
#include "fs/directory_queue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "meta/assembled.h"

/* How often the number is written at most. */
#define QUEUE_NOTE_NS (60 * CLOCK_NS_PER_SECOND)
/* What hurries goes before all that is due. */
#define QUEUE_AHEAD_NS (60 * CLOCK_NS_PER_SECOND)

enum {
    QUEUE_NICE = 10,
    QUEUE_NAMES = 8,      /* of a file with many names, so many are looked after */
    QUEUE_WAITING = 2048, /* from so many directories on, files are found again by their numbers */
};

struct queue_entry {
    struct queue_entry *next;
    struct directory_turn turn;
    int64_t touched; /* the last time, clock_monotonic() as the others */
    int64_t due, latest;
};

struct directory_queue {
    struct filesystem *fs;
    const struct directory_work *work;
    struct thread thread;
    struct ids files; /* whose directories are to be put on the list */
    struct queue_entry *waiting;
    size_t count; /* of those */
    bool busy;
    bool hurry;     /* somebody waits: no rest now */
    bool woken;     /* there is something for `next` or `tick` */
    uint64_t found; /* files up to this number were taken up; while `finding`, the thread's own */
    bool finding;   /* there may be more files of before this start */
    /* The thread's own. */
    uint64_t noted; /* what the database has */
    int64_t noted_at;
};

bool directory_queue_stops(const struct directory_queue *queue)
{
    return thread_is_stopping(&queue->thread);
}

/* -- the list ---------------------------------------------------------------------------------------------
 */

/* To be looked at after `wait`. A directory that is on the list already is put off, but for one that hurries.
 * The lock is held. */
static void queue_enlist(struct directory_queue *queue, const struct directory_turn *turn, int64_t wait)
{
    int64_t now = clock_monotonic();
    struct queue_entry *entry = queue->waiting;
    while (entry && entry->turn.directory != turn->directory)
        entry = entry->next;
    if (entry) {
        bool hurries = entry->due < entry->touched;
        entry->touched = now;
        if (!hurries)
            entry->due = now + wait < entry->latest ? now + wait : entry->latest;
        entry->turn.unready = 0;
        return;
    }
    entry = malloc(sizeof *entry);
    if (!entry)
        return; /* the next file that is settled in it, or the next start, brings it back */
    int64_t latest = wait > queue->work->latest ? wait : queue->work->latest;
    *entry = (struct queue_entry){
        .next = queue->waiting, .turn = *turn, .touched = now, .due = now + wait, .latest = now + latest};
    queue->waiting = entry;
    queue->count++;
}

static void queue_enlist_new(struct directory_queue *queue, uint64_t directory, int64_t wait)
{
    const struct directory_turn turn = {.directory = directory, .delay = queue->work->retry};
    queue_enlist(queue, &turn, wait);
}

void directory_queue_touch(struct directory_queue *queue, uint64_t ino)
{
    if (!queue)
        return;
    thread_lock(&queue->thread);
    if (ids_append(&queue->files, ino) == 0)
        thread_wake(&queue->thread);
    thread_unlock(&queue->thread);
}

void directory_queue_pass(struct directory_queue *queue, uint64_t ino)
{
    if (!queue)
        return;
    thread_lock(&queue->thread);
    if (!queue->finding && ino > queue->found)
        queue->found = ino;
    thread_unlock(&queue->thread);
}

void directory_queue_add(struct directory_queue *queue, uint64_t directory, bool hurry)
{
    if (!queue)
        return;
    thread_lock(&queue->thread);
    queue->hurry |= hurry;
    queue_enlist_new(queue, directory, hurry ? -QUEUE_AHEAD_NS : queue->work->quiet);
    thread_wake(&queue->thread);
    thread_unlock(&queue->thread);
}

void directory_queue_settle(struct directory_queue *queue, struct ids *directories, int64_t since)
{
    if (!queue || directories->count == 0)
        return;
    ids_sort(directories);
    thread_lock(&queue->thread);
    for (struct queue_entry **link = &queue->waiting; *link;) {
        struct queue_entry *entry = *link;
        if (entry->touched >= since || !ids_contain_sorted(directories, entry->turn.directory)) {
            link = &entry->next;
            continue;
        }
        *link = entry->next;
        queue->count--;
        free(entry);
    }
    thread_unlock(&queue->thread);
}

void directory_queue_wake(struct directory_queue *queue)
{
    if (!queue)
        return;
    thread_lock(&queue->thread);
    queue->woken = true;
    thread_wake(&queue->thread);
    thread_unlock(&queue->thread);
}

static size_t queue_left(struct directory_queue *queue)
{
    return queue->work->left ? queue->work->left(queue->fs) : 0;
}

size_t directory_queue_waiting(struct directory_queue *queue)
{
    if (!queue)
        return 0;
    thread_lock(&queue->thread);
    size_t waiting = queue->count + queue->files.count + queue->busy + queue->finding;
    thread_unlock(&queue->thread);
    return waiting + queue_left(queue);
}

/* The directories of a file's names, and those above them. No lock is held. */
static void queue_find_directories(struct directory_queue *queue, uint64_t ino, int64_t wait)
{
    struct meta *meta = queue->fs->meta;
    struct meta_name names[QUEUE_NAMES];
    size_t count;
    if (meta_find_names(meta, ino, NULL, names, QUEUE_NAMES, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        uint64_t directory = names[i].parent;
        for (unsigned level = 0; level <= queue->work->levels; level++) {
            thread_lock(&queue->thread);
            queue_enlist_new(queue, directory, wait);
            thread_unlock(&queue->thread);
            if (directory == META_ROOT_INO || meta_parent(meta, directory, &directory) < 0)
                break;
        }
    }
}

/* The entry that is due first, taken off; NULL, and `until` says when. The lock is held. */
static struct queue_entry *queue_take(struct directory_queue *queue, int64_t *until)
{
    struct queue_entry **first = NULL;
    for (struct queue_entry **link = &queue->waiting; *link; link = &(*link)->next) {
        if (!first || (*link)->due < (*first)->due)
            first = link;
    }
    *until = first ? (*first)->due : INT64_MAX;
    if (!first || (*first)->due > clock_monotonic())
        return NULL;
    struct queue_entry *entry = *first;
    *first = entry->next;
    queue->count--;
    return entry;
}

/* -- what an earlier daemon did not come to ---------------------------------------------------------------
 */

/* With the lock held, which is given up meanwhile. */
static void queue_take_up(struct directory_queue *queue)
{
    cleanup_ids struct ids files = {0};
    thread_unlock(&queue->thread);
    int more = meta_find_files_after(queue->fs->meta, &queue->found, &files);
    if (more < 0)
        log_warning("%s: files of before this start are not looked at: %s", queue->work->thread,
                    strerror(-more));
    for (size_t i = 0; i < files.count; i++)
        queue_find_directories(queue, files.at[i], 0);
    thread_lock(&queue->thread);
    queue->finding = more > 0;
}

/* All that there was is looked at: the next start need not do it again. No lock is held. */
static void queue_note(struct directory_queue *queue)
{
    char text[24];
    thread_lock(&queue->thread);
    uint64_t found = queue->found;
    thread_unlock(&queue->thread);
    bool wanted = !queue->work->rested || queue->work->rested(queue->fs);
    if (!wanted || found == queue->noted)
        return;
    snprintf(text, sizeof text, "%" PRIu64, found);
    errint error = meta_setting_put(queue->fs->meta, queue->work->setting, text);
    if (error && error != -ENOSPC)
        log_warning("%s: the next start looks at everything again: %s", queue->work->thread,
                    strerror(-error));
    queue->noted = found;
    queue->noted_at = clock_monotonic();
}

static errint queue_read_noted(struct directory_queue *queue)
{
    cleanup_free char *value = NULL;
    errint error = meta_setting_get(queue->fs->meta, queue->work->setting, &value);
    if (!error)
        queue->found = strtoull(value, NULL, 10);
    queue->noted = queue->found;
    return error == -ENOENT ? 0 : error;
}

/* The file's directories are put on the list; or, where that is long, it is taken up again when it is short.
 */
static void queue_resolve_file(struct directory_queue *queue, uint64_t ino)
{
    thread_lock(&queue->thread);
    bool later = queue->count >= QUEUE_WAITING;
    if (later && ino <= queue->found)
        queue->found = ino - 1;
    else if (!later && !queue->finding && ino > queue->found)
        queue->found = ino;
    queue->finding |= later;
    thread_unlock(&queue->thread);
    if (!later)
        queue_find_directories(queue, ino, queue->work->quiet);
}

/* The files that were touched; with the lock held, which is given up meanwhile. */
static void queue_resolve(struct directory_queue *queue)
{
    cleanup_ids struct ids files = queue->files;
    queue->files = (struct ids){0};
    queue->busy = true;
    thread_unlock(&queue->thread);
    for (size_t i = 0; i < files.count && !directory_queue_stops(queue); i++) {
        if (i == 0 || files.at[i] != files.at[i - 1])
            queue_resolve_file(queue, files.at[i]);
    }
    thread_lock(&queue->thread);
    queue->busy = false;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static void queue_rest(struct directory_queue *queue, int64_t rest)
{
    int64_t until = clock_monotonic() + rest;
    while (rest > 0 && !thread_is_stopping(&queue->thread) && !queue->hurry &&
           thread_sleep_until(&queue->thread, until))
        continue;
}

/* With the lock held, which is given up meanwhile. */
static void queue_visit(struct directory_queue *queue, struct queue_entry *entry)
{
    queue->busy = true;
    /* Who hurries is the first on the list. */
    queue->hurry = false;
    thread_unlock(&queue->thread);
    int64_t wait = queue->work->visit(queue->fs, &entry->turn);
    thread_lock(&queue->thread);
    int64_t rest = entry->turn.rest;
    entry->turn.rest = 0;
    if (wait != DIRECTORY_DONE)
        queue_enlist(queue, &entry->turn, wait);
    free(entry);
    queue_rest(queue, rest);
    queue->busy = false;
}

/* One of the directories that have no hurry; with the lock held, which is given up meanwhile. */
static void queue_walk(struct directory_queue *queue)
{
    queue->busy = true;
    thread_unlock(&queue->thread);
    uint64_t directory = queue->work->next(queue->fs);
    thread_lock(&queue->thread);
    if (directory)
        queue_enlist_new(queue, directory, 0);
    queue->busy = false;
}

/* With the lock held. */
static void queue_idle(struct directory_queue *queue, int64_t until)
{
    if (queue->count == 0 && clock_monotonic() - queue->noted_at >= QUEUE_NOTE_NS) {
        thread_unlock(&queue->thread);
        queue_note(queue);
        thread_lock(&queue->thread);
        if (queue->files.count > 0 || queue->waiting || thread_is_stopping(&queue->thread))
            return;
    }
    if (queue_left(queue) > 0 || queue->woken)
        return;
    thread_sleep_until(&queue->thread, until);
}

/* When to do it again; with the lock held, which is given up meanwhile. */
static int64_t queue_tick(struct directory_queue *queue)
{
    queue->woken = false;
    if (!queue->work->tick)
        return INT64_MAX;
    thread_unlock(&queue->thread);
    int64_t again = queue->work->tick(queue->fs);
    thread_lock(&queue->thread);
    return again;
}

/* One thing to do, or one sleep; with the lock held. */
static void queue_step(struct directory_queue *queue)
{
    int64_t until, ticks = queue_tick(queue);
    if (queue->files.count > 0) {
        queue_resolve(queue);
        return;
    }
    struct queue_entry *entry = queue_take(queue, &until);
    if (entry)
        queue_visit(queue, entry);
    else if (queue->count < QUEUE_WAITING && queue_left(queue) > 0)
        queue_walk(queue);
    else if (queue->finding && queue->count == 0)
        queue_take_up(queue);
    else
        queue_idle(queue, until < ticks ? until : ticks);
}

static void *queue_run(void *context)
{
    struct directory_queue *queue = context;
    thread_be_nice(QUEUE_NICE);
    thread_lock(&queue->thread);
    while (!thread_is_stopping(&queue->thread))
        queue_step(queue);
    bool rested = queue->count == 0 && queue->files.count == 0 && !queue->finding && queue_left(queue) == 0;
    thread_unlock(&queue->thread);
    if (rested)
        queue_note(queue);
    return NULL;
}

static void queue_free(struct directory_queue *queue)
{
    while (queue->waiting) {
        struct queue_entry *entry = queue->waiting;
        queue->waiting = entry->next;
        free(entry);
    }
    ids_release(&queue->files);
    thread_release(&queue->thread);
    free(queue);
}

errint directory_queue_start(struct filesystem *fs, const struct directory_work *work,
                             struct directory_queue **queue)
{
    struct directory_queue *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->fs = fs;
    made->work = work;
    made->finding = true;
    thread_init(&made->thread);
    errint error = queue_read_noted(made);
    *queue = made;
    if (!error)
        error = thread_start(&made->thread, work->thread, queue_run, made);
    if (error) {
        *queue = NULL;
        queue_free(made);
    }
    return error;
}

void directory_queue_stop(struct directory_queue *queue)
{
    if (!queue)
        return;
    thread_stop(&queue->thread);
    queue_free(queue);
}
