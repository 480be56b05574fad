/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing written bytes to stable storage. */
#include "fs/writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "fs/share.h"
#include "fs/stand_in.h"
#include "store/object.h"

/* How often the thread looks while files are being written, and how old unsynced bytes of an open file get.
 */
#define WRITEBACK_TICK_NS (CLOCK_NS_PER_SECOND / 4)
#define WRITEBACK_AGE_NS  (3 * CLOCK_NS_PER_SECOND)
#define WRITEBACK_IDLE_NS CLOCK_NS_PER_SECOND
/* The same of an open file that may become equal to an older one (the kernel's own default). */
#define WRITEBACK_HELD_NS (30 * CLOCK_NS_PER_SECOND)
/* The namespace is synced at most this often unless somebody asks. */
#define WRITEBACK_COMMIT_NS CLOCK_NS_PER_SECOND

/* What a commit of the namespace has at least: a page of its database. */
enum { WRITEBACK_COMMIT_BYTES = 4096 };

/* For a file whose objects change while they are synced. */
enum { WRITEBACK_TRIES = 10 };

struct writeback {
    struct thread thread;
    struct node *first;
    bool kicked;
};

/* The node joins the list with a reference of its own. Its lock is held. */
static void writeback_enlist(struct filesystem *fs, struct node *node)
{
    struct writeback *writeback = fs->writeback;
    thread_lock(&writeback->thread);
    if (!node->in_writeback) {
        node->in_writeback = true;
        node->writeback_next = writeback->first;
        writeback->first = node_hold(fs, node);
    }
    thread_unlock(&writeback->thread);
}

void writeback_add(struct filesystem *fs, struct node *node)
{
    node->changes++;
    if (!node->dirty) {
        node->dirty = true;
        node->synced_at = clock_monotonic();
        node->synced_size = -1;
    }
    writeback_enlist(fs, node);
}

void writeback_kick(struct filesystem *fs)
{
    thread_lock(&fs->writeback->thread);
    fs->writeback->kicked = true;
    thread_wake(&fs->writeback->thread);
    thread_unlock(&fs->writeback->thread);
}

static errint writeback_sync_marked(struct filesystem *fs, uint64_t marked)
{
    if (marked <= meta_commit_durable(fs->meta))
        return 0;
    errint error = fault_hit("fs.mark");
    return error ? error : meta_sync(fs->meta);
}

errint writeback_sync_mark(struct filesystem *fs, const struct node *node)
{
    return writeback_sync_marked(fs, node->marked);
}

/* -- one file ---------------------------------------------------------------------------------------------
 */

/* What a sync of the file must cover, taken under its lock. */
struct writeback_view {
    bool dirty, gone;
    bool changed; /* since the last sync */
    bool told_apart;
    uint64_t changes, marked;
    int64_t synced_at, stood_at;
    unsigned writers;
    enum meta_kind kind;
    struct backing *backing, *overlay; /* references of their own */
    struct stat object;
};

static struct backing *writeback_hold(struct filesystem *fs, struct backing *backing)
{
    struct backing *held = NULL;
    return backing && backing_get(&fs->backings, backing->object, &held) == 0 ? held : NULL;
}

static struct writeback_view writeback_look(struct filesystem *fs, struct node *node)
{
    struct writeback_view view = {0};
    node_lock_shared(node);
    view.dirty = node->dirty;
    view.gone = node->gone;
    view.writers = node->writers;
    view.kind = node->kind;
    view.synced_at = node->synced_at;
    view.stood_at = node->stood_at;
    view.told_apart = node->told_apart;
    view.changes = node->changes;
    view.marked = node->marked;
    int64_t synced_size = node->synced_size, synced_mtime = node->synced_mtime;
    if (view.dirty && !view.gone) {
        view.backing = writeback_hold(fs, node->backing);
        view.overlay = writeback_hold(fs, node->overlay);
    }
    node_unlock(node);
    struct backing *main = view.overlay ? view.overlay : view.backing;
    if (!main || fstat(main->fd, &view.object) < 0)
        view.object = (struct stat){.st_size = -1};
    view.changed =
        view.object.st_size != synced_size || clock_from_timespec(&view.object.st_mtim) != synced_mtime;
    return view;
}

static void writeback_release(struct filesystem *fs, struct writeback_view *view)
{
    backing_put(&fs->backings, view->backing);
    backing_put(&fs->backings, view->overlay);
}

static int writeback_compare_objects(const void *a, const void *b)
{
    const struct meta_extent *left = a, *right = b;
    return (left->object > right->object) - (left->object < right->object);
}

/* -ENOENT: one of the objects is not there any more. A file that is gone has nothing to sync. */
static errint writeback_sync_extents_once(struct filesystem *fs, struct node *node)
{
    cleanup_free struct meta_extent *extents = NULL;
    size_t count = 0;
    errint error = meta_extents(fs->meta, node->ino, &extents, &count);
    if (error)
        return error == -ENOENT ? 0 : error;
    if (count > 0)
        qsort(extents, count, sizeof *extents, writeback_compare_objects);
    for (size_t i = 0; i < count && !error; i++) {
        if (i > 0 && extents[i].object == extents[i - 1].object)
            continue;
        struct backing *backing;
        error = backing_get(&fs->backings, extents[i].object, &backing);
        if (error)
            break;
        error = object_sync(fs->store, extents[i].object, backing->fd);
        backing_put(&fs->backings, backing);
    }
    return error;
}

/*
 * Objects that an EXTENTS file got from an earlier daemon's copy on write are synced by number. The file may
 * be re-pointed to equal bytes meanwhile, and its objects go: then it is looked at again.
 */
static errint writeback_sync_extents(struct filesystem *fs, struct node *node)
{
    errint error = -ENOENT;
    for (int i = 0; i < WRITEBACK_TRIES && error == -ENOENT; i++)
        error = writeback_sync_extents_once(fs, node);
    return error;
}

static errint writeback_sync_view(struct filesystem *fs, struct node *node, const struct writeback_view *view)
{
    errint error = fault_hit("fs.sync");
    if (error)
        return error;
    if (view->overlay)
        error = object_sync(fs->store, view->overlay->object, view->overlay->fd);
    if (!error && view->backing)
        error = object_sync(fs->store, view->backing->object, view->backing->fd);
    else if (!error && view->kind == META_EXTENTS)
        error = writeback_sync_extents(fs, node);
    return error;
}

/* Records what is on stable storage. `clean`: the file is, as a whole. */
static errint writeback_record(struct filesystem *fs, struct node *node, const struct writeback_view *view)
{
    cleanup_ids struct ids shadows = {0};
    node_lock(node);
    bool clean = node->writers == 0 && view->writers == 0 && node->kind != META_OBJECT &&
                 node->changes == view->changes;
    errint error = 0;
    if (!node->gone && node->dirty && node->kind == META_OBJECT) {
        struct meta_inode row;
        error = meta_get(fs->meta, node->ino, &row);
        if (!error)
            error = node_refresh_row(node, &row);
        unsigned fields = META_SET_SIZE | META_SET_MTIME | META_SET_CTIME;
        if (!error)
            error = meta_set(fs->meta, node->ino, fields, &row, 0, NULL);
    }
    if (!error && !node->gone && node->dirty) {
        node->synced_at = clock_monotonic();
        node->synced_size = view->object.st_size;
        node->synced_mtime = clock_from_timespec(&view->object.st_mtim);
        int64_t size = node->kind == META_OBJECT ? (int64_t)view->object.st_size : node->size;
        error = meta_synced(fs->meta, node->ino, size, clean, &shadows);
        if (!error)
            node->stood_at = 0;
        if (!error && clean)
            node->dirty = false;
    }
    node_unlock(node);
    node_reap_all(fs, &shadows); /* a power cut cannot bring them back any more */
    return error;
}

/*
 * A failed sync may have lost pages for good: the file is torn, and who asks next is told. It is not tried
 * again before the next fsync, since a later success would prove nothing of them.
 */
static void writeback_failed(struct filesystem *fs, struct node *node, errint error)
{
    log_error("inode %llu: its bytes cannot be brought to stable storage: %s", (unsigned long long)node->ino,
              strerror(-error));
    atomic_store(&node->write_error, error);
    struct meta_inode row;
    node_lock(node);
    node->dirty = false;
    if (meta_get(fs->meta, node->ino, &row) == 0) {
        row.state |= META_TORN;
        meta_set(fs->meta, node->ino, META_SET_STATE, &row, 0, NULL);
    }
    node_unlock(node);
}

/* What is written in place is always dirty, except after a failure: what was written since can be synced. */
static void writeback_take_up(struct filesystem *fs, struct node *node)
{
    node_lock(node);
    if (node->loaded && !node->gone && !node->dirty && (node->kind == META_OBJECT || node->overlay))
        writeback_add(fs, node);
    node_unlock(node);
}

errint writeback_sync_node(struct filesystem *fs, struct node *node)
{
    writeback_take_up(fs, node);
    struct writeback_view view = writeback_look(fs, node);
    errint error = writeback_sync_marked(fs, view.marked);
    if (!error && view.dirty && !view.gone) {
        error = writeback_sync_view(fs, node, &view);
        if (error)
            writeback_failed(fs, node, error);
        else
            error = writeback_record(fs, node, &view);
    }
    writeback_release(fs, &view);
    errint earlier = atomic_exchange(&node->write_error, 0);
    if (error || earlier)
        return error ? error : earlier;
    return meta_sync(fs->meta);
}

errint writeback_fsync_node(struct filesystem *fs, struct node *node)
{
    if (!stand_in_take(fs, node))
        return writeback_sync_node(fs, node);
    errint earlier = atomic_exchange(&node->write_error, 0);
    return earlier ? earlier : meta_sync(fs->meta);
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

/* Whether the file, or what it may become, is to be compared with older ones before it is written. */
static bool writeback_is_held(struct filesystem *fs, struct node *node, const struct writeback_view *view)
{
    int64_t now = clock_monotonic();
    struct meta_inode row;
    if (fs->options->sharing != FS_SHARING_FORWARD || thread_is_stopping(&fs->writeback->thread))
        return false;
    if (view->kind != META_OBJECT)
        return atomic_load(&node->sync_after) > now;
    bool may = view->changed && !view->told_apart && !atomic_load(&node->unlike) &&
               now - view->synced_at < WRITEBACK_HELD_NS && meta_get(fs->meta, node->ino, &row) == 0 &&
               share_expects(fs, row.uid, view->object.st_size, view->writers > 0);
    if (!may || stand_in_is_likely(fs, node, view->writers > 0))
        return may;
    atomic_store(&node->unlike, true);
    return false;
}

/* Looks after one file: starts its write-back, or syncs it and records that. */
static void writeback_visit(struct filesystem *fs, struct node *node)
{
    struct writeback_view view = writeback_look(fs, node);
    bool marked = writeback_sync_marked(fs, view.marked) == 0;
    if (!marked)
        log_error("inode %llu: the namespace cannot be brought to stable storage: its bytes wait",
                  (unsigned long long)node->ino);
    if (marked && view.dirty && !view.gone && !writeback_is_held(fs, node, &view)) {
        int64_t now = clock_monotonic();
        bool closed = view.writers == 0 && view.kind != META_OBJECT;
        bool aged = view.changed && now - view.synced_at >= WRITEBACK_AGE_NS;
        /* Stores through a map change no time of a file whose pages were not written since. */
        bool stood = view.stood_at && now - view.stood_at >= WRITEBACK_HELD_NS;
        if (closed || aged || stood) {
            errint error = writeback_sync_view(fs, node, &view);
            if (!error)
                error = writeback_record(fs, node, &view);
            if (error)
                writeback_failed(fs, node, error);
        } else if (view.changed) {
            struct backing *backing = view.overlay ? view.overlay : view.backing;
            if (backing)
                sync_file_range(backing->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        }
    }
    writeback_release(fs, &view);
}

/* Visits everything that is on the list now. */
static void writeback_round(struct filesystem *fs)
{
    struct writeback *writeback = fs->writeback;
    thread_lock(&writeback->thread);
    struct node *list = writeback->first;
    writeback->first = NULL;
    thread_unlock(&writeback->thread);
    while (list) {
        struct node *node = list;
        list = node->writeback_next;
        writeback_visit(fs, node);
        node_lock(node);
        thread_lock(&writeback->thread);
        node->in_writeback = false;
        thread_unlock(&writeback->thread);
        if (!node->gone && node->dirty)
            writeback_enlist(fs, node);
        node_unlock(node);
        node_put(fs, node);
    }
    cleanup_ids struct ids shadows = {0};
    if (meta_shadows_released(fs->meta, &shadows) < 0)
        log_warning("no memory to remove replaced files now; the next mount does it");
    node_reap_all(fs, &shadows); /* a power cut cannot bring them back any more */
}

static bool writeback_wait(struct writeback *writeback)
{
    thread_lock(&writeback->thread);
    int64_t wait = writeback->first ? WRITEBACK_TICK_NS : WRITEBACK_IDLE_NS;
    int64_t until = clock_monotonic() + wait;
    while (!writeback->kicked && !thread_is_stopping(&writeback->thread) &&
           thread_sleep_until(&writeback->thread, until))
        continue;
    writeback->kicked = false;
    bool stopping = thread_is_stopping(&writeback->thread);
    thread_unlock(&writeback->thread);
    return !stopping;
}

static void *writeback_run(void *context)
{
    struct filesystem *fs = context;
    int64_t synced_at = 0;
    while (writeback_wait(fs->writeback)) {
        writeback_round(fs);
        bool due = clock_monotonic() - synced_at >= WRITEBACK_COMMIT_NS;
        if (!due || meta_commit_last(fs->meta) == meta_commit_durable(fs->meta))
            continue;
        if (meta_sync(fs->meta) < 0)
            log_error("the namespace cannot be brought to stable storage");
        synced_at = clock_monotonic();
    }
    return NULL;
}

errint writeback_start(struct filesystem *fs)
{
    struct writeback *writeback = calloc(1, sizeof *writeback);
    if (!writeback)
        return -ENOMEM;
    thread_init(&writeback->thread);
    fs->writeback = writeback;
    errint error = thread_start(&writeback->thread, "writeback", writeback_run, fs);
    if (error) {
        thread_release(&writeback->thread);
        free(writeback);
        fs->writeback = NULL;
    }
    return error;
}

void writeback_stop(struct filesystem *fs, bool finish)
{
    struct writeback *writeback = fs->writeback;
    if (!writeback)
        return;
    thread_stop(&writeback->thread);
    if (finish)
        writeback_round(fs);
    while (writeback->first) {
        struct node *node = writeback->first;
        writeback->first = node->writeback_next;
        node->in_writeback = false;
        node_put(fs, node);
    }
    thread_release(&writeback->thread);
    free(writeback);
    fs->writeback = NULL;
}

static void writeback_count_node(struct node *node, void *context)
{
    struct writeback_totals *totals = context;
    if (node->gone || !node->dirty)
        return;
    struct backing *main = node->overlay ? node->overlay : node->backing;
    struct stat object;
    /* Of several objects, which were not all synced yet. */
    if (!main && node->kind == META_EXTENTS && node->writers == 0) {
        totals->files++;
        totals->bytes += node->size;
    }
    if (!main || fstat(main->fd, &object) < 0)
        return;
    if (object.st_size == node->synced_size && clock_from_timespec(&object.st_mtim) == node->synced_mtime)
        return;
    totals->files++;
    /* Of what only grew, the rest is known; what was changed in between may be anywhere. */
    bool grew = node->synced_size >= 0 && object.st_size > node->synced_size;
    totals->bytes += grew ? object.st_size - node->synced_size : object.st_size;
}

struct writeback_totals writeback_count(struct filesystem *fs)
{
    struct writeback_totals totals = {0};
    node_each(fs, writeback_count_node, &totals);
    /* In this order: what became durable in between is counted, and no commit is missed. */
    uint64_t durable = meta_commit_durable(fs->meta), last = meta_commit_last(fs->meta);
    if (last > durable)
        totals.bytes += (int64_t)(last - durable) * WRITEBACK_COMMIT_BYTES;
    return totals;
}
