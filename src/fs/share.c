/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing sealed files, and re-pointing older ones into them. */
#include "fs/share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/share_models.h"
#include "fs/share_out.h"
#include "fs/share_sum.h"
#include "fs/writeback.h"
#include "meta/sharing.h"

/* Until the write-back has brought a new file to stable storage. */
#define SHARE_RETRY_DIRTY_NS (CLOCK_NS_PER_SECOND / 2)
/* While somebody sees an older file in a way that forbids to touch it; doubled each time. */
#define SHARE_RETRY_BUSY_NS  (5 * CLOCK_NS_PER_SECOND)
#define SHARE_RETRY_MAX_NS   (300 * CLOCK_NS_PER_SECOND)
#define SHARE_OWNERS_SETTING "share-owners"
/* Between two looks for what an earlier daemon left. */
#define SHARE_PAUSE_NS 100000

/* Smaller files are written as fast as they are compared. */
#define SHARE_EXPECTED_MIN (1 << 20)

enum {
    SHARE_EXPECTED = 256, /* so many are remembered: a save may be as many files */
    SHARE_BUCKETS = 1024,
    SHARE_NICE = 10,
};

struct share_entry {
    struct share_entry *next; /* of those to be looked at now, or of those that wait */
    struct share_entry *bucket_next;
    uint64_t ino;
    int64_t due, delay;
    enum { SHARE_QUEUED, SHARE_WAITING, SHARE_VISITED } where;
    bool again; /* it was sealed once more while it was looked at */
};

struct share {
    struct thread thread;
    struct share_entry *first, **last; /* to be looked at now, in the order of their seals */
    struct share_entry *waiting;
    struct share_entry *buckets[SHARE_BUCKETS]; /* all entries: each file has one */
    int64_t next_due;                           /* of those that wait; INT64_MAX: there are none */
    size_t count;
    uint64_t found; /* objects of before this start up to this one were taken up; the thread's own */
    uint64_t found_end;
    atomic_bool finding; /* there are more */
    struct {
        uint32_t uid;
        int64_t size;
        uint64_t object;
    } expected[SHARE_EXPECTED]; /* what files were found equal to, the last ones */
    size_t expected_next;
    /* The thread's own. */
    bool told_full;
    struct share_rests rests;
};

enum share_outcome { SHARE_DONE, SHARE_DIRTY, SHARE_BUSY, SHARE_RESTS_FIRST };

/* -- the queue --------------------------------------------------------------------------------------------
 */

static struct share_entry **share_bucket(struct share *share, uint64_t ino)
{
    return &share->buckets[ino % SHARE_BUCKETS];
}

/* The lock is held. */
static struct share_entry *share_find_entry(struct share *share, uint64_t ino)
{
    struct share_entry *entry = *share_bucket(share, ino);
    while (entry && entry->ino != ino)
        entry = entry->bucket_next;
    return entry;
}

/* The lock is held. */
static void share_remove_entry(struct share *share, struct share_entry *entry)
{
    struct share_entry **link = share_bucket(share, entry->ino);
    while (*link != entry)
        link = &(*link)->bucket_next;
    *link = entry->bucket_next;
    share->count--;
    free(entry);
}

/* Appends to what can be looked at now. The lock is held. */
static void share_append(struct share *share, struct share_entry *entry)
{
    entry->where = SHARE_QUEUED;
    entry->next = NULL;
    *share->last = entry;
    share->last = &entry->next;
}

/* Keeps it until it is due. The lock is held. */
static void share_postpone(struct share *share, struct share_entry *entry, int64_t due)
{
    entry->where = SHARE_WAITING;
    entry->due = due;
    entry->next = share->waiting;
    share->waiting = entry;
    if (due < share->next_due)
        share->next_due = due;
}

/* Moves what has become due to the others. The lock is held. */
static void share_collect_due(struct share *share, int64_t now)
{
    if (share->next_due > now)
        return;
    share->next_due = INT64_MAX;
    struct share_entry *list = share->waiting;
    share->waiting = NULL;
    while (list) {
        struct share_entry *entry = list;
        list = entry->next;
        if (entry->due <= now)
            share_append(share, entry);
        else
            share_postpone(share, entry, entry->due);
    }
}

/* The next entry to look at, taken off; NULL: none is due. The lock is held. */
static struct share_entry *share_take(struct share *share)
{
    share_collect_due(share, clock_monotonic());
    struct share_entry *entry = share->first;
    if (!entry)
        return NULL;
    share->first = entry->next;
    if (!share->first)
        share->last = &share->first;
    entry->where = SHARE_VISITED;
    return entry;
}

/* Files that are closed often are looked at once for many closes. The lock is held. */
static void share_renew_entry(struct share *share, struct share_entry *entry)
{
    entry->again = entry->where == SHARE_VISITED;
    if (entry->where == SHARE_WAITING)
        entry->due = share->next_due = 0;
    entry->delay = SHARE_RETRY_BUSY_NS;
}

void share_add(struct filesystem *fs, uint64_t ino)
{
    struct share *share = fs->share;
    if (!share)
        return;
    thread_lock(&share->thread);
    struct share_entry *entry = share_find_entry(share, ino);
    if (entry) {
        share_renew_entry(share, entry);
    } else if ((entry = malloc(sizeof *entry))) { /* else the next start finds it */
        struct share_entry **bucket = share_bucket(share, ino);
        *entry = (struct share_entry){.ino = ino, .delay = SHARE_RETRY_BUSY_NS, .bucket_next = *bucket};
        *bucket = entry;
        share_append(share, entry);
        share->count++;
    }
    thread_wake(&share->thread);
    thread_unlock(&share->thread);
}

size_t share_waiting(struct filesystem *fs)
{
    if (!fs->share)
        return 0;
    thread_lock(&fs->share->thread);
    size_t count = fs->share->count;
    thread_unlock(&fs->share->thread);
    return count + atomic_load(&fs->share->finding);
}

/* -- what is expected ------------------------------------------------------------------------------------
 */

/* The lock is held. */
static bool share_is_expected(const struct share *share, size_t slot, uint32_t uid, int64_t size, bool grows)
{
    int64_t expected = share->expected[slot].size;
    return share->expected[slot].uid == uid && expected > 0 && (grows ? expected >= size : expected == size);
}

bool share_expects(struct filesystem *fs, uint32_t uid, int64_t size, bool grows)
{
    struct share *share = fs->share;
    bool found = false;
    if (!share || fs->options->sharing != FS_SHARING_FORWARD)
        return false;
    thread_lock(&share->thread);
    for (size_t i = 0; i < SHARE_EXPECTED && !found; i++)
        found = share_is_expected(share, i, uid, size, grows);
    thread_unlock(&share->thread);
    return found;
}

errint share_find_expected(struct filesystem *fs, uint32_t uid, int64_t size, bool grows, struct ids *out)
{
    struct share *share = fs->share;
    errint error = 0;
    if (!share || fs->options->sharing != FS_SHARING_FORWARD)
        return 0;
    thread_lock(&share->thread);
    for (size_t i = 1; i <= SHARE_EXPECTED && !error; i++) {
        size_t slot = (share->expected_next + SHARE_EXPECTED - i) % SHARE_EXPECTED;
        if (share_is_expected(share, slot, uid, size, grows))
            error = ids_append(out, share->expected[slot].object);
    }
    thread_unlock(&share->thread);
    return error;
}

/* The lock is held. */
static bool share_has_expected(const struct share *share, uint64_t object)
{
    for (size_t i = 0; i < SHARE_EXPECTED; i++) {
        if (share->expected[i].object == object)
            return true;
    }
    return false;
}

void share_expect(struct filesystem *fs, uint32_t uid, int64_t size, uint64_t object)
{
    struct share *share = fs->share;
    if (size < SHARE_EXPECTED_MIN)
        return;
    thread_lock(&share->thread);
    if (!share_has_expected(share, object)) {
        size_t slot = share->expected_next++ % SHARE_EXPECTED;
        share->expected[slot].uid = uid;
        share->expected[slot].size = size;
        share->expected[slot].object = object;
    }
    thread_unlock(&share->thread);
}

static bool share_stops(struct filesystem *fs)
{
    return thread_is_stopping(&fs->share->thread);
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static enum share_outcome share_outcome_of(struct filesystem *fs, const struct node *node, errint error)
{
    struct share *share = fs->share;
    switch (error) {
    case 0:
    case -ENOENT:
    case -ECANCELED: return SHARE_DONE;
    case -EBUSY: return SHARE_BUSY;
    case -EAGAIN: return SHARE_RESTS_FIRST;
    case -ENOSPC:
        if (!share->told_full)
            log_warning("the disk is full: files are hashed and looked at for equal bytes later");
        share->told_full = true;
        return SHARE_BUSY;
    default:
        log_warning("inode %llu: cannot be looked at for equal bytes now: %s", (unsigned long long)node->ino,
                    strerror(-error));
        return SHARE_BUSY;
    }
}

/* An object that is not the whole of any file shares nothing out. */
static errint share_settle_object(struct filesystem *fs, uint64_t object)
{
    uint64_t whole;
    errint error = meta_find_whole(fs->meta, object, &whole);
    return error || whole ? error : meta_object_shared_out(fs->meta, object);
}

/* What is not the whole of a file is hashed, so that it can be verified. What it lost can be punched now. */
static errint share_settle(struct filesystem *fs, struct node *node, const struct share_view *view)
{
    cleanup_free struct meta_extent *extents = NULL;
    size_t count;
    if (view->whole)
        return share_out(fs, node->ino, view->uid, view->whole, share_stops);
    errint error = meta_extents(fs->meta, node->ino, &extents, &count);
    for (size_t i = 0; !error && i < count; i++) {
        if (i == 0 || extents[i].object != extents[i - 1].object)
            error = share_settle_object(fs, extents[i].object);
    }
    discard_kick(fs);
    return error;
}

static enum share_outcome share_visit_node(struct filesystem *fs, struct node *node)
{
    struct share_view view;
    errint error = share_look(fs, node, &view);
    if (error || !view.ready)
        return share_outcome_of(fs, node, error);
    error = share_sum(fs, node, &view, &fs->share->rests, share_stops);
    if (error)
        /* A writer came: its seal brings the file back. */
        return error == -EBUSY ? SHARE_DONE : share_outcome_of(fs, node, error);
    if (view.dirty && view.whole && fs->options->sharing == FS_SHARING_FORWARD) {
        int gave_way = share_forward(fs, node->ino, view.uid, view.whole, share_stops);
        if (gave_way > 0)
            return SHARE_DONE;
        if (gave_way < 0 && gave_way != -EBUSY)
            return share_outcome_of(fs, node, gave_way);
    }
    if (view.dirty)
        error = share_look(fs, node, &view);
    if (error || !view.ready)
        return share_outcome_of(fs, node, error);
    if (view.dirty)
        return SHARE_DIRTY;
    error = share_settle(fs, node, &view);
    if (!error) {
        fs->share->told_full = false;
        share_models_touch(fs, node->ino);
    }
    return share_outcome_of(fs, node, error);
}

static enum share_outcome share_visit(struct filesystem *fs, uint64_t ino)
{
    struct node *node = node_get(fs, ino);
    if (!node)
        return SHARE_BUSY;
    enum share_outcome outcome = share_visit_node(fs, node);
    if (atomic_exchange(&node->sync_after, 0))
        writeback_kick(fs);
    node_put(fs, node);
    return outcome;
}

/* Returns with the lock held. */
static void share_finish_entry(struct filesystem *fs, struct share_entry *entry, enum share_outcome outcome)
{
    struct share *share = fs->share;
    thread_lock(&share->thread);
    bool again = entry->again;
    entry->again = false;
    if (outcome == SHARE_RESTS_FIRST) {
        int64_t soon = clock_monotonic() + SHARE_RETRY_DIRTY_NS;
        share_postpone(share, entry, share->rests.until > soon ? share->rests.until : soon);
    } else if (again) {
        share_append(share, entry);
    } else if (outcome == SHARE_DONE) {
        share_remove_entry(share, entry);
    } else if (outcome == SHARE_DIRTY) {
        share_postpone(share, entry, clock_monotonic() + SHARE_RETRY_DIRTY_NS);
    } else {
        share_postpone(share, entry, clock_monotonic() + entry->delay);
        entry->delay = entry->delay * 2 < SHARE_RETRY_MAX_NS ? entry->delay * 2 : SHARE_RETRY_MAX_NS;
    }
}

/*
 * Some of the objects that an earlier daemon did not come to. All of them at once could be more than there is
 * memory for. What was sealed since the start is queued by its seal.
 */
static void share_take_up(struct filesystem *fs)
{
    struct share *share = fs->share;
    cleanup_ids struct ids objects = {0};
    int more = meta_find_unshared_after(fs->meta, &share->found, &objects);
    errint error = more < 0 ? more : 0;
    for (size_t i = 0; !error && i < objects.count && objects.at[i] < share->found_end; i++) {
        cleanup_ids struct ids files = {0};
        uint64_t whole;
        error = meta_find_whole(fs->meta, objects.at[i], &whole);
        if (!error && !whole)
            error = meta_find_users(fs->meta, objects.at[i], &files);
        if (!error && (whole || files.count > 0))
            share_add(fs, whole ? whole : files.at[files.count - 1]);
    }
    if (error)
        log_warning("files of before this start are not looked at for equal bytes: %s", strerror(-error));
    if (error || !more || share->found >= share->found_end)
        atomic_store(&share->finding, false);
    else /* without a pause, those who wait for the database might never get it */
        nanosleep(&(struct timespec){.tv_nsec = SHARE_PAUSE_NS}, NULL);
}

static void *share_run(void *context)
{
    struct filesystem *fs = context;
    struct share *share = fs->share;
    thread_be_nice(SHARE_NICE);
    thread_lock(&share->thread);
    while (!thread_is_stopping(&share->thread)) {
        struct share_entry *entry = share_take(share);
        if (!entry && atomic_load(&share->finding)) {
            thread_unlock(&share->thread);
            share_take_up(fs);
            thread_lock(&share->thread);
            continue;
        }
        if (!entry) {
            thread_sleep_until(&share->thread, share->next_due);
            continue;
        }
        thread_unlock(&share->thread);
        share_finish_entry(fs, entry, share_visit(fs, entry->ino));
    }
    thread_unlock(&share->thread);
    return NULL;
}

/*
 * The store remembers: what was shared stays so on a mount without the option, and what is told to users must
 * depend on no more than that somebody asked for it once.
 */
static errint share_note_owners(struct filesystem *fs)
{
    cleanup_free char *value = NULL;
    bool starts = fs->options->share_owners && !fs->options->read_only;
    errint error = meta_setting_get(fs->meta, SHARE_OWNERS_SETTING, &value);
    fs->owners_share = !error || starts;
    if (error == -ENOENT)
        error = starts ? meta_setting_put(fs->meta, SHARE_OWNERS_SETTING, "1") : 0;
    return error;
}

errint share_start(struct filesystem *fs)
{
    errint noted = share_note_owners(fs);
    if (noted || fs->options->sharing == FS_SHARING_OFF || fs->options->read_only)
        return noted;
    struct share *share = calloc(1, sizeof *share);
    if (!share)
        return -ENOMEM;
    thread_init(&share->thread);
    share->last = &share->first;
    share->next_due = INT64_MAX;
    share->found_end = meta_object_next(fs->meta);
    atomic_init(&share->finding, share->found_end != 0);
    fs->share = share;
    errint error = thread_start(&share->thread, "share", share_run, fs);
    if (error) {
        thread_release(&share->thread);
        free(share);
        fs->share = NULL;
    }
    return error;
}

static void share_drop(struct share_entry *list)
{
    while (list) {
        struct share_entry *entry = list;
        list = entry->next;
        free(entry);
    }
}

void share_stop(struct filesystem *fs)
{
    struct share *share = fs->share;
    if (!share)
        return;
    thread_stop(&share->thread);
    share_drop(share->first);
    share_drop(share->waiting);
    thread_release(&share->thread);
    free(share);
    fs->share = NULL;
}
