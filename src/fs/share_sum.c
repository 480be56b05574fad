/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing the objects of a sealed file. */
#include "fs/share_sum.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ckpt/digest.h"
#include "ckpt/match.h"
#include "fs/filesystem.h"

enum {
    SHARE_REST = 10,                  /* times as long as hashing an object took, it is not hashed again */
    SHARE_SPARSE_MIN = 64 * (1 << 20) /* from this size on, objects that are mostly holes are not hashed */
};

errint share_look(struct filesystem *fs, struct node *node, struct share_view *view)
{
    *view = (struct share_view){0};
    struct meta_inode row;
    node_lock(node);
    errint error = node_load(fs, node);
    if (!error)
        error = meta_get(fs->meta, node->ino, &row);
    if (!error && node->kind == META_EXTENTS && node->writers == 0 && !node->overlay) {
        view->ready = true;
        view->dirty = node->dirty;
        view->changes = node->changes;
        view->whole = node->backing ? node->backing->object : 0;
        view->uid = row.uid;
    }
    node_unlock(node);
    return error == -ENOENT ? 0 : error;
}

/* What an object is hashed for. */
struct share_work {
    struct filesystem *fs;
    uint64_t ino;
    bool (*stops)(struct filesystem *fs);
};

static bool share_digest_stops(void *context)
{
    const struct share_work *work = context;
    return work->stops(work->fs);
}

/* The bytes stay as they were written. */
static void share_report_mismatch(void *context, const char *name, int64_t offset, uint32_t expected,
                                  uint32_t found)
{
    const struct share_work *work = context;
    cleanup_free char *path = NULL;
    if (meta_path(work->fs->meta, work->ino, &path) < 0)
        path = NULL;
    log_error("%s: %s at byte %lld: its CRC-32 is %08x, the archive says %08x: it was damaged before or "
              "while it was "
              "written",
              path ? path : "a file", name, (long long)offset, found, expected);
}

static errint share_digest(struct share_work *work, uint64_t object, bool whole, struct sums *sums)
{
    struct filesystem *fs = work->fs;
    struct backing *backing;
    struct stat status;
    errint error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    if (fstat(backing->fd, &status) < 0)
        error = -errno;
    bool sparse = !error && status.st_size >= SHARE_SPARSE_MIN && status.st_blocks < status.st_size / 1024;
    const struct digest_request request = {
        .store = fs->store,
        .fd = backing->fd,
        .size = status.st_size,
        .whole = whole,
        .stop = share_digest_stops,
        .mismatch = share_report_mismatch,
        .context = work,
    };
    enum format_kind kind;
    if (!error)
        error = sparse ? -ENODATA : digest_object(&request, sums, &kind);
    backing_put(&fs->backings, backing);
    return error;
}

/* Whether the file is still what was looked at. The node's lock is held. */
static bool share_is_unchanged(const struct node *node, const struct share_view *view)
{
    return !node->gone && node->kind == META_EXTENTS && node->changes == view->changes;
}

/* Keeps what was computed, unless the file was opened for writing meanwhile. */
static errint share_record(struct filesystem *fs, struct node *node, const struct share_view *view,
                           uint64_t object, const struct sums *sums)
{
    size_t count;
    uint8_t root[META_ROOT_BYTES];
    hash_to_bytes(sums->root, root);
    cleanup_free struct meta_segment *rows = match_rows(sums, &count);
    if (!rows)
        return -ENOMEM;
    /* A table without its row, or with another root than its row, counts for nothing. */
    errint error = sums_write(fs->store, object, sums);
    if (!error)
        error = fault_hit("fs.summed");
    if (error)
        return error;
    node_lock(node);
    if (share_is_unchanged(node, view))
        error = meta_object_summed(fs->meta, object, root, view->uid, rows, count);
    else
        error = -EBUSY;
    node_unlock(node);
    if (error)
        sums_remove(fs->store, object);
    return error;
}

/* An object that a new writer cuts off while it is read ends too early, which is no fault of the disk. */
static bool share_is_disturbed(struct node *node, const struct share_view *view)
{
    node_lock_shared(node);
    bool disturbed = !share_is_unchanged(node, view);
    node_unlock(node);
    return disturbed;
}

/* Whether the object was hashed a short time ago, and was written since. */
static bool share_must_rest(struct share_rests *rests, uint64_t object)
{
    for (size_t i = 0; i < SHARE_RESTS; i++) {
        if (rests->at[i].object == object && rests->at[i].until > clock_monotonic()) {
            rests->until = rests->at[i].until;
            return true;
        }
    }
    return false;
}

static void share_note_rest(struct share_rests *rests, uint64_t object, int64_t begun)
{
    int64_t now = clock_monotonic();
    size_t slot = 0;
    while (slot < SHARE_RESTS && rests->at[slot].object != object)
        slot++;
    if (slot == SHARE_RESTS)
        slot = rests->next++ % SHARE_RESTS;
    rests->at[slot] = (__typeof__(rests->at[0])){object, now + (now - begun) * SHARE_REST};
}

errint share_sum(struct filesystem *fs, struct node *node, const struct share_view *view,
                 struct share_rests *rests, bool (*stops)(struct filesystem *fs))
{
    struct share_work work = {fs, node->ino, stops};
    cleanup_ids struct ids objects = {0};
    errint error = meta_find_unsummed(fs->meta, node->ino, &objects);
    for (size_t i = 0; !error && i < objects.count; i++) {
        cleanup_sums struct sums sums = {0};
        if (share_must_rest(rests, objects.at[i]))
            return -EAGAIN;
        int64_t begun = clock_monotonic();
        error = share_digest(&work, objects.at[i], objects.at[i] == view->whole, &sums);
        share_note_rest(rests, objects.at[i], begun);
        if (error == -EIO && share_is_disturbed(node, view))
            error = -EBUSY;
        if (!error)
            error = share_record(fs, node, view, objects.at[i], &sums);
        if (error == -ENODATA)
            error = 0;
    }
    return error;
}
