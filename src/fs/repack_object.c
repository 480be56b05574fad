/* SPDX-License-Identifier: Apache-2.0 */
/* Repacking one object. */
#include "fs/repack_object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/fault.h"
#include "base/log.h"
#include "ckpt/match.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/repack_copy.h"
#include "meta/damage.h"
#include "store/object.h"

/*
 * Half: then a copy never writes more than it gives back, each byte that stays is written at most once more
 * for each halving of what is around it, and an object never takes more than twice what is alive of it. Less
 * than a MiB is not worth a sync, a transaction and a new place for every file, unless nearly all of the
 * object is dead: many small objects shall not stay for a few bytes each.
 */
enum {
    REPACK_DEAD_SHARE = 2,    /* 1/2 */
    REPACK_LIVE_SHARE = 8,    /* 1/8: of what is nearly all dead, no more than that is alive */
    REPACK_DEAD_MIN = 1 << 20 /* bytes */
};

/* A remnant is written anew at once, by a thread that others wait for; what it gives back is worth the sync.
 */
enum {
    REPACK_REMNANT_MAX = 1 << 20,
    REPACK_REMNANT_SHARE = 2,      /* 1/2 of what is kept, at most */
    REPACK_REMNANT_GAIN = 32 << 10 /* bytes, at least */
};

bool repack_is_remnant(int64_t live, int64_t kept)
{
    return live > 0 && live <= REPACK_REMNANT_MAX && live <= kept / REPACK_REMNANT_SHARE &&
           kept - live >= REPACK_REMNANT_GAIN;
}

bool repack_is_worth(int64_t dead, int64_t kept)
{
    if (dead <= 0 || dead < kept / REPACK_DEAD_SHARE)
        return false;
    return dead >= REPACK_DEAD_MIN || kept - dead <= kept / REPACK_LIVE_SHARE;
}

/* -- who is in the way ------------------------------------------------------------------------------------
 */

/* A file that nobody uses is in nobody's way. */
static errint repack_check_file(struct filesystem *fs, uint64_t ino)
{
    struct node *node = node_find(fs, ino);
    if (!node)
        return 0;
    node_lock(node);
    bool free = !node->loaded || node->gone || content_may_repoint(node);
    node_unlock(node);
    node_put(fs, node);
    return free ? 0 : -EBUSY;
}

errint repack_check(struct filesystem *fs, uint64_t object)
{
    cleanup_ids struct ids files = {0};
    int damaged = meta_object_damaged(fs->meta, object);
    if (damaged)
        return damaged > 0 ? -EUCLEAN : damaged;
    errint error = reclaim_check_seen(fs, object);
    if (!error)
        error = meta_find_users(fs->meta, object, &files);
    for (size_t i = 0; !error && i < files.count; i++)
        error = repack_check_file(fs, files.at[i]);
    return error;
}

/* -- one object -------------------------------------------------------------------------------------------
 */

struct repack_work {
    struct filesystem *fs;
    uint64_t object;
    uint8_t root[META_ROOT_BYTES];
    struct reclaim_plan plan;
    int64_t live; /* bytes */
    bool remnant; /* the disk can punch */
    bool made;    /* the files have the copy */
    struct repack_copy copy;
};

/* Whether the disk keeps less of it than its size: what is dead may then be nearly all that there is. */
static int repack_is_sparse(struct filesystem *fs, uint64_t object, int64_t size)
{
    struct backing *backing;
    errint error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    int64_t kept = object_stored_bytes(backing->fd);
    backing_put(&fs->backings, backing);
    return kept < 0 ? (int)kept : kept < size;
}

/* Without a look at its bytes and hashes: 1, 0 (then it is not) or an error. */
static int repack_may_be_worth(struct repack_work *work)
{
    cleanup_free struct meta_range *live = NULL;
    size_t count;
    int64_t size;
    errint error = meta_object_size(work->fs->meta, work->object, &size);
    if (!error)
        error = meta_live_ranges(work->fs->meta, work->object, &live, &count);
    if (error)
        return error;
    int64_t dead = size;
    for (size_t i = 0; i < count; i++)
        dead -= live[i].length;
    return repack_is_worth(dead, size) ? 1 : repack_is_sparse(work->fs, work->object, size);
}

/* The plan is of the bytes that the database knows. */
static errint repack_make_plan(struct repack_work *work)
{
    uint8_t found[META_ROOT_BYTES];
    errint error = meta_object_root(work->fs->meta, work->object, work->root);
    if (!error)
        error = reclaim_plan_make(work->fs, work->object, &work->plan);
    if (error)
        return error;
    hash_to_bytes(work->plan.sums.root, found);
    if (memcmp(found, work->root, sizeof found) != 0)
        return -EBUSY;
    for (size_t i = 0; i < work->plan.live_count; i++)
        work->live += work->plan.live[i].length;
    return 0;
}

/* By what the disk keeps: 1, 0 or an error. */
static int repack_is_worth_now(const struct repack_work *work)
{
    const struct reclaim_plan *plan = &work->plan;
    const struct meta_range whole = {work->object, 0, plan->sums.size};
    struct backing *backing;
    if (plan->live_count == 0)
        return 0; /* the last file has just gone, and the object goes with it */
    errint error = backing_get(&work->fs->backings, work->object, &backing);
    if (error)
        return error;
    int64_t dead = reclaim_plan_count_kept(plan, backing->fd);
    int64_t kept = reclaim_count_kept(backing->fd, &whole);
    int worth = work->remnant ? repack_is_remnant(work->live, kept) : repack_is_worth(dead, kept);
    backing_put(&work->fs->backings, backing);
    return worth;
}

/* Twice as much as it takes: repacking must not be what fills the disk. */
static errint repack_check_space(const struct repack_work *work)
{
    struct statvfs disk;
    if (atomic_load(&work->fs->disk_full))
        return -ENOSPC;
    if (fstatvfs(work->fs->store->fd, &disk) < 0)
        return 0; /* the copy meets the same error, and tells it */
    return (int64_t)disk.f_bavail >= 2 * (work->live / (int64_t)(disk.f_frsize ? disk.f_frsize : 1) + 1)
               ? 0
               : -ENOSPC;
}

/* -- re-pointing ------------------------------------------------------------------------------------------
 */

/* The files of the object, in the order of their numbers, each with its lock held exclusively. */
struct repack_files {
    struct filesystem *fs;
    struct ids ids;
    struct node **nodes;
    size_t locked;
};

static void repack_files_release(struct repack_files *files)
{
    while (files->locked > 0) {
        struct node *node = files->nodes[--files->locked];
        node_unlock(node);
        node_put(files->fs, node);
    }
    free(files->nodes);
    ids_release(&files->ids);
}

#define cleanup_files __attribute__((cleanup(repack_files_release)))

/* Who opens one from now on waits. -EBUSY: one of them cannot be touched now. */
static errint repack_files_lock(struct filesystem *fs, uint64_t object, struct repack_files *files)
{
    errint error = meta_find_users(fs->meta, object, &files->ids);
    if (error)
        return error;
    files->nodes = calloc(files->ids.count + 1, sizeof(struct node *));
    if (!files->nodes)
        return -ENOMEM;
    for (size_t i = 0; !error && i < files->ids.count; i++) {
        struct node *node = node_get(fs, files->ids.at[i]);
        if (!node)
            return -ENOMEM;
        node_lock(node);
        files->nodes[files->locked++] = node;
        error = node_load(fs, node);
        /* What is not on stable storage yet, a power cut looks at by its place. */
        if (!error && (node->dirty || !content_may_repoint(node)))
            error = -EBUSY;
    }
    return error == -ENOENT ? -EBUSY : error;
}

/* The bytes are the same: what the kernel has cached of the files stays right. */
static void repack_files_adopt(struct filesystem *fs, const struct repack_files *files)
{
    for (size_t i = 0; i < files->locked; i++) {
        struct node *node = files->nodes[i];
        struct meta_inode row;
        errint error = meta_get(fs->meta, node->ino, &row);
        if (!error)
            error = node_adopt_row(fs, node, &row);
        if (error) {
            node_drop_content(fs, node);
            node->loaded = false;
        }
    }
}

static errint repack_repoint(struct repack_work *work)
{
    struct filesystem *fs = work->fs;
    cleanup_files struct repack_files files = {.fs = fs};
    cleanup_ids struct ids freed = {0};
    uint8_t root[META_ROOT_BYTES];
    hash_to_bytes(work->copy.sums.root, root);
    errint error = repack_files_lock(fs, work->object, &files);
    if (!error)
        error = reclaim_check_seen(fs, work->object);
    if (!error)
        error = fault_hit("fs.repack.commit");
    if (error)
        return error;
    const struct meta_repack repack = {
        .from = work->object,
        .to = work->copy.to,
        .from_root = work->root,
        .to_root = root,
        .moves = work->copy.moves,
        .count = work->copy.move_count,
        .files = &files.ids,
    };
    error = meta_repack(fs->meta, &repack, &freed);
    if (error)
        return error;
    work->made = true;
    fault_hit("fs.repack.done"); /* too late for an error: it is there to kill or to hang */
    repack_files_adopt(fs, &files);
    discard_objects(fs, &freed);
    return 0;
}

/* -- the new object ---------------------------------------------------------------------------------------
 */

/* The hashes of what was copied are known: they need not wait for another look at the bytes. */
static errint repack_record_sums(const struct repack_work *work)
{
    struct filesystem *fs = work->fs;
    uint8_t root[META_ROOT_BYTES];
    uint32_t uid = 0;
    size_t count;
    cleanup_free struct meta_segment *rows = match_rows(&work->copy.sums, &count);
    hash_to_bytes(work->copy.sums.root, root);
    errint error = rows ? meta_object_uid(fs->meta, work->object, &uid) : -ENOMEM;
    /* An object without segments was too small for any. */
    if (error && error != -ENOENT)
        return error;
    error = fault_hit("fs.repack.sums");
    if (!error)
        error = sums_write(fs->store, work->copy.to, &work->copy.sums);
    if (!error)
        error = fault_hit("fs.repack.summed");
    return error ? error : meta_object_summed(fs->meta, work->copy.to, root, uid, rows, count);
}

/* What was made of it so far goes; what cannot go now, the next start removes. */
static void repack_drop(struct repack_work *work)
{
    cleanup_ids struct ids made = {0};
    errint error = object_remove(work->fs->store, work->copy.to);
    if (!error)
        error = ids_append(&made, work->copy.to);
    if (!error)
        error = meta_object_forget(work->fs->meta, &made);
    if (error)
        log_warning("object %016llx: an unfinished copy stays until the next mount: %s",
                    (unsigned long long)work->copy.to, strerror(-error));
}

/* Damaged bytes are nobody's to copy: they stay where they are, and are told. */
static void repack_note_damage(const struct repack_work *work)
{
    const struct meta_range *damaged = &work->copy.damaged;
    bool changed = false;
    errint error = meta_damage_replace(work->fs->meta, damaged, work->root, damaged, 1, &changed);
    if (!error && changed) {
        log_error(
            "object %016llx: bytes %lld to %lld are damaged: it is not repacked, and reads of them give "
            "EIO; `ckptfs verify` tells the files",
            (unsigned long long)work->object, (long long)damaged->offset,
            (long long)(damaged->offset + damaged->length));
        damage_changed(work->fs, work->object);
    }
}

static errint repack_make(struct repack_work *work)
{
    struct repack_copy *copy = &work->copy;
    copy->to = meta_object_next(work->fs->meta);
    if (!copy->to)
        return -EIO;
    errint error = fault_hit("fs.repack.row");
    if (!error)
        error = meta_object_make(work->fs->meta, copy->to, work->live);
    if (error)
        return error;
    atomic_store(&work->fs->copying, copy->to);
    error = fault_hit("fs.repack.create");
    if (!error)
        error = repack_copy_make(copy);
    if (!error)
        error = repack_record_sums(work);
    if (!error)
        error = repack_repoint(work);
    if (error)
        repack_drop(work);
    atomic_store(&work->fs->copying, 0);
    return error;
}

static errint repack_run(struct repack_work *work)
{
    errint error = repack_check(work->fs, work->object);
    if (!error)
        error = repack_make_plan(work);
    int worth = error ? error : repack_is_worth_now(work);
    if (worth <= 0)
        return worth;
    error = repack_check_space(work);
    if (!error)
        error = repack_make(work);
    if (error == -EUCLEAN && work->copy.damaged.length > 0)
        repack_note_damage(work);
    return error;
}

static void repack_release_work(struct repack_work *work)
{
    repack_copy_release(&work->copy);
    reclaim_plan_release(&work->plan);
}

errint repack_object(struct filesystem *fs, uint64_t object, bool (*stops)(struct filesystem *fs))
{
    struct repack_work work = {.fs = fs, .object = object};
    work.copy = (struct repack_copy){.fs = fs, .from = object, .plan = &work.plan, .stops = stops};
    int result = repack_may_be_worth(&work);
    if (result > 0)
        result = repack_run(&work);
    repack_release_work(&work);
    return result == -EUCLEAN || result == -ENOENT ? 0 : result;
}

int repack_remnant(struct filesystem *fs, uint64_t object, bool (*stops)(struct filesystem *fs))
{
    struct repack_work work = {.fs = fs, .object = object, .remnant = true};
    work.copy = (struct repack_copy){.fs = fs, .from = object, .plan = &work.plan, .stops = stops};
    int result = repack_run(&work);
    repack_release_work(&work);
    return result < 0 ? result : work.made;
}
