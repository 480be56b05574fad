/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing files after their last writer has gone. */
#include "fs/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/assembler.h"
#include "fs/checkpoints.h"
#include "fs/clone.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/share.h"
#include "fs/share_models.h"
#include "fs/stored.h"
#include "fs/writeback.h"
#include "store/object.h"

/* The kernel closes its own file a moment after RELEASE; a mapping may last for days. */
#define SEAL_RETRY_FIRST_NS (CLOCK_NS_PER_SECOND / 200)
#define SEAL_RETRY_LATER_NS CLOCK_NS_PER_SECOND
/* How long a file that may equal an older one is not written, so that it can be compared first. */
#define SEAL_HOLD_NS (3 * CLOCK_NS_PER_SECOND)
/* The same of one that is safe by its stand-in. */
#define SEAL_HOLD_STOOD_NS (30 * CLOCK_NS_PER_SECOND)
/* After an error of the disk or the database. */
#define SEAL_RETRY_ERROR_NS (30 * CLOCK_NS_PER_SECOND)

struct sealer {
    struct thread thread;
    struct node *first;
    struct node **last;
    bool finishing;
};

static void seal_enlist(struct filesystem *fs, struct node *node, int64_t due)
{
    struct sealer *sealer = fs->sealer;
    thread_lock(&sealer->thread);
    if (!node->in_sealer) {
        node->in_sealer = true;
        node->seal_due = due;
        node->sealer_next = NULL;
        *sealer->last = node_hold(fs, node);
        sealer->last = &node->sealer_next;
        thread_wake(&sealer->thread);
    } else if (due < node->seal_due) {
        node->seal_due = due;
        thread_wake(&sealer->thread);
    }
    thread_unlock(&sealer->thread);
}

void seal_add(struct filesystem *fs, struct node *node)
{
    seal_enlist(fs, node, 0);
}

/* Whether the object cannot change (and, for `view` readers, not be seen) by anybody but the daemon. */
static bool seal_is_quiet(struct node *node, enum backing_view view)
{
    /* Always asked: a mapping may be older than this node, and than this daemon. Without leases nobody can
     * tell; a mapping that writes on after close() is rarer than a disk without. */
    return backing_is_free(node->backing, view) != 0;
}

static errint seal_inline(struct filesystem *fs, struct node *node, const struct meta_inode *row)
{
    char bytes[64 * 1024];
    ssize_t got = row->size ? pread(node->backing->fd, bytes, (size_t)row->size, 0) : 0;
    if (got != row->size)
        return got < 0 ? -errno : -EIO;
    cleanup_ids struct ids freed = {0};
    errint error =
        meta_to_inline(fs->meta, node->ino, bytes, (size_t)row->size, row->mtime, row->ctime, &freed);
    if (error)
        return error;
    node_drop_content(fs, node);
    node->kind = row->size ? META_INLINE : META_NONE;
    node->size = row->size;
    node->dirty = false;
    node->was_passthrough = false;
    counters_add_sealed(&fs->counters, row->size);
    discard_objects(fs, &freed);
    return 0;
}

static errint seal_object(struct filesystem *fs, struct node *node, const struct meta_inode *row)
{
    cleanup_ids struct ids freed = {0};
    errint error = meta_seal(fs->meta, node->ino, row->size, row->mtime, row->ctime, &freed);
    if (error)
        return error;
    discard_objects(fs, &freed);
    counters_add_sealed(&fs->counters, row->size);
    node->kind = row->size ? META_EXTENTS : META_NONE;
    node->size = row->size;
    if (!row->size)
        node_drop_content(fs, node);
    bool synced = row->size && node_is_as_synced(node, row);
    if (share_expects(fs, row->uid, row->size, false))
        atomic_store(&node->sync_after,
                     clock_monotonic() + (synced && node->stood_at ? SEAL_HOLD_STOOD_NS : SEAL_HOLD_NS));
    node->told_apart = false;
    atomic_store(&node->unlike, false);
    /* An fsync has covered all of it, and nothing came after: a power cut from now on must not call it torn.
     * But where its own bytes were not written, it is compared again, and gives way for good. */
    if (synced && !node->stood_at && meta_synced(fs->meta, node->ino, row->size, true, NULL) == 0)
        node->dirty = false;
    return 0;
}

enum seal_outcome { SEAL_DONE, SEAL_LATER, SEAL_FAILED };

/* With the lock held exclusively. */
static enum seal_outcome seal_locked(struct filesystem *fs, struct node *node, bool *notify)
{
    if (node->gone || node->writers > 0 || !node->loaded)
        return SEAL_DONE;
    if (node->overlay) {
        backing_put(&fs->backings, node->overlay);
        node->overlay = NULL;
    }
    if (node->kind != META_OBJECT) {
        *notify = node->was_passthrough; /* seal_now tells nobody */
        return SEAL_DONE;
    }
    /* A handle may be counted before the kernel has opened the object for it. */
    bool alone = node->passthrough == 0 && seal_is_quiet(node, BACKING_READERS);
    if (!alone && !seal_is_quiet(node, BACKING_WRITERS))
        return SEAL_LATER;
    struct meta_inode row;
    errint error = fault_hit("fs.seal");
    if (!error)
        error = meta_get(fs->meta, node->ino, &row);
    if (!error)
        error = node_refresh_row(node, &row);
    /* An empty file has no object, and who sees the one that it has must keep it: the last handle's end asks
     * again. */
    if (!error && row.size == 0 && !alone)
        return node->passthrough > 0 ? SEAL_DONE : SEAL_LATER;
    if (!error) {
        *notify = node->was_passthrough;
        if (alone && row.size <= (int64_t)fs->options->inline_limit)
            error = seal_inline(fs, node, &row);
        else
            error = seal_object(fs, node, &row);
    }
    if (error && error != -ENOENT) {
        log_warning("inode %llu: cannot be sealed now: %s", (unsigned long long)node->ino, strerror(-error));
        return SEAL_FAILED;
    }
    return SEAL_DONE;
}

void seal_now(struct filesystem *fs, struct node *node)
{
    bool notify = false;
    if (node->kind == META_OBJECT && !node->gone && node->writers == 0) {
        seal_locked(fs, node, &notify);
        seal_add(fs, node);
    }
}

/* Who looks at directories that have come to rest. */
static void seal_tell(struct filesystem *fs, uint64_t ino)
{
    assembler_touch(fs, ino);
    checkpoints_touch(fs, ino);
}

static enum seal_outcome seal_node(struct filesystem *fs, struct node *node)
{
    bool notify = false;
    node_lock(node);
    struct node_copy copy = node->copy;
    enum seal_outcome outcome = seal_locked(fs, node, &notify);
    bool done = outcome == SEAL_DONE && !node->gone && node->kind != META_OBJECT;
    bool sealed = done && node->kind == META_EXTENTS;
    node_unlock(node);
    if (sealed && copy.length > 0)
        clone_give_back(fs, node, &copy);
    /* Stores through a map moved the object's mtime without the kernel's FUSE side knowing. */
    if (notify)
        fuse_lowlevel_notify_inval_inode(fs->session, node->ino, -1, 0);
    if (done)
        seal_tell(fs, node->ino);
    if (sealed) {
        writeback_kick(fs);
        stored_kick(fs);
        share_add(fs, node->ino);
    } else if (done) {
        share_models_pass(fs, node->ino);
    }
    return outcome;
}

/* The first node that is due; else NULL, and `until` says when the next one is. The lock is held. */
static struct node *seal_take(struct sealer *sealer, int64_t now, int64_t *until)
{
    *until = INT64_MAX;
    for (struct node **link = &sealer->first; *link; link = &(*link)->sealer_next) {
        struct node *node = *link;
        if (node->seal_due > now) {
            if (node->seal_due < *until)
                *until = node->seal_due;
            continue;
        }
        *link = node->sealer_next;
        if (!*link)
            sealer->last = link;
        node->in_sealer = false;
        return node;
    }
    return NULL;
}

static int64_t seal_delay(enum seal_outcome outcome, bool first)
{
    if (outcome == SEAL_FAILED)
        return SEAL_RETRY_ERROR_NS;
    return first ? SEAL_RETRY_FIRST_NS : SEAL_RETRY_LATER_NS;
}

static void *seal_run(void *context)
{
    struct filesystem *fs = context;
    struct sealer *sealer = fs->sealer;
    thread_lock(&sealer->thread);
    for (;;) {
        int64_t until;
        bool stopping = thread_is_stopping(&sealer->thread);
        if (stopping && !sealer->finishing)
            break;
        struct node *node = seal_take(sealer, stopping ? INT64_MAX : clock_monotonic(), &until);
        if (!node && stopping)
            break;
        if (!node) {
            thread_sleep_until(&sealer->thread, until);
            continue;
        }
        bool first = node->seal_due == 0;
        thread_unlock(&sealer->thread);
        enum seal_outcome outcome = seal_node(fs, node);
        if (outcome != SEAL_DONE && !stopping)
            seal_enlist(fs, node, clock_monotonic() + seal_delay(outcome, first));
        node_put(fs, node);
        thread_lock(&sealer->thread);
    }
    thread_unlock(&sealer->thread);
    return NULL;
}

errint seal_start(struct filesystem *fs)
{
    struct sealer *sealer = calloc(1, sizeof *sealer);
    if (!sealer)
        return -ENOMEM;
    thread_init(&sealer->thread);
    sealer->last = &sealer->first;
    fs->sealer = sealer;
    errint error = thread_start(&sealer->thread, "seal", seal_run, fs);
    if (error) {
        thread_release(&sealer->thread);
        free(sealer);
        fs->sealer = NULL;
    }
    return error;
}

void seal_stop(struct filesystem *fs, bool finish)
{
    struct sealer *sealer = fs->sealer;
    if (!sealer)
        return;
    thread_lock(&sealer->thread);
    sealer->finishing = finish;
    thread_unlock(&sealer->thread);
    thread_stop(&sealer->thread);
    while (sealer->first) {
        struct node *node = sealer->first;
        sealer->first = node->sealer_next;
        node->in_sealer = false;
        node_put(fs, node);
    }
    thread_release(&sealer->thread);
    free(sealer);
    fs->sealer = NULL;
}
