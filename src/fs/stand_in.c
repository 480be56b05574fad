/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the older object that has all bytes of a file which is synced. */
#include "fs/stand_in.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ckpt/match.h"
#include "fs/filesystem.h"
#include "fs/share.h"
#include "fs/share_compare.h"
#include "meta/sharing.h"
#include "meta/stand_in.h"

/* So many older objects are looked at while a file is being written. */
enum { STAND_IN_LIKELY_MAX = 32 };

/* A file as it was when its fsync began, or when it was looked at. */
struct stand_in_file {
    struct backing *backing; /* a reference of its own; NULL: it cannot have a stand-in */
    struct meta_inode row;   /* with the object's size and times */
};

static errint stand_in_look(struct filesystem *fs, struct node *node, struct stand_in_file *file)
{
    errint error = 0;
    *file = (struct stand_in_file){0};
    node_lock_shared(node);
    bool fits = node->loaded && node->dirty && !node->gone && !node->told_apart && node->kind == META_OBJECT;
    if (fits)
        error = meta_get(fs->meta, node->ino, &file->row);
    if (fits && !error)
        error = node_refresh_row(node, &file->row);
    if (fits && !error)
        error = backing_get(&fs->backings, node->backing->object, &file->backing);
    node_unlock(node);
    return error;
}

static bool stand_in_stops(struct filesystem *fs)
{
    return atomic_load(&fs->stopping);
}

static bool stand_in_digest_stops(void *context)
{
    return stand_in_stops(context);
}

/* With verify-on-share=yes equal hashes are a hint only; with share-owners=yes where others have it too. */
static int stand_in_compare_bytes(struct filesystem *fs, const struct stand_in_file *file, uint64_t older,
                                  const uint8_t *root)
{
    const struct fs_options *options = fs->options;
    int wanted = options->verify_on_share;
    if (!wanted && options->share_owners)
        wanted = meta_object_has_others(fs->meta, older, file->row.uid);
    if (wanted <= 0)
        return wanted < 0 ? wanted : 1;
    struct meta_move move = {.object = older, .length = file->row.size, .root = root};
    struct match match = {.moves = &move, .move_count = 1};
    const struct ids which = {.at = &older, .count = 1};
    errint error = share_compare(fs, file->backing->object, &which, &match, stand_in_stops);
    return error ? error : match.move_count == 1;
}

/* 1: the older object has all bytes of the file, and its root is given; 0; or a negative errno. */
static int stand_in_compare(struct filesystem *fs, const struct stand_in_file *file, uint64_t older,
                            uint8_t root[META_ROOT_BYTES])
{
    cleanup_sums struct sums sums = {0};
    errint error = sums_read(fs->store, older, &sums);
    if (error)
        return error == -ENOENT || error == -EUCLEAN ? 0 : error;
    const struct sums_request request = {
        .store = fs->store,
        .fd = file->backing->fd,
        .size = file->row.size,
        .stop = stand_in_digest_stops,
        .context = fs,
    };
    int same = sums_compare(&request, &sums);
    hash_to_bytes(sums.root, root);
    return same == 1 ? stand_in_compare_bytes(fs, file, older, root) : same;
}

/* Writes it down, if the file and the older object are still what was compared. */
static errint stand_in_record(struct filesystem *fs, struct node *node, const struct stand_in_file *file,
                              uint64_t older, const uint8_t *root)
{
    const struct meta_inode *row = &file->row;
    const struct meta_stand_in wanted = {
        .ino = node->ino,
        .object = file->backing->object,
        .uid = row->uid,
        .size = row->size,
        .mtime = row->mtime,
        .ctime = row->ctime,
        .older = older,
        .older_root = root,
    };
    node_lock(node);
    errint error = node->gone || node->kind != META_OBJECT ? -EBUSY : fault_hit("fs.stand-in");
    if (!error)
        error = meta_stand_in_put(fs->meta, &wanted);
    if (!error) {
        node->stood_at = node->synced_at = clock_monotonic();
        node->synced_size = row->size;
        node->synced_mtime = row->mtime;
    }
    node_unlock(node);
    fault_hit("fs.stood-in"); /* too late for an error: it is there to kill */
    return error;
}

/* 1: it has one; 0: it equals none of them; or a negative errno. */
static int stand_in_find(struct filesystem *fs, struct node *node, const struct stand_in_file *file,
                         const struct ids *candidates)
{
    uint8_t root[META_ROOT_BYTES];
    for (size_t i = 0; i < candidates->count; i++) {
        uint64_t older = candidates->at[i];
        int same = older == file->backing->object ? 0 : stand_in_compare(fs, file, older, root);
        if (same < 0)
            return same;
        errint error = same ? stand_in_record(fs, node, file, older, root) : -EBUSY;
        if (error != -EBUSY)
            return error ? error : 1;
    }
    return 0;
}

static int stand_in_try(struct filesystem *fs, struct node *node, const struct stand_in_file *file)
{
    cleanup_ids struct ids candidates = {0};
    errint error = share_find_expected(fs, file->row.uid, file->row.size, false, &candidates);
    if (error || candidates.count == 0)
        return error;
    int found = stand_in_find(fs, node, file, &candidates);
    if (found == 0) {
        node_lock(node);
        node->told_apart = true;
        node_unlock(node);
    }
    return found;
}

bool stand_in_take(struct filesystem *fs, struct node *node)
{
    struct stand_in_file file;
    if (!fs->share || fs->options->sharing != FS_SHARING_FORWARD)
        return false;
    int found = stand_in_look(fs, node, &file);
    if (found == 0 && file.backing)
        found = stand_in_try(fs, node, &file);
    backing_put(&fs->backings, file.backing);
    if (found < 0 && found != -ENOENT && found != -ECANCELED)
        log_warning("inode %llu: is synced without a look at older ones: %s", (unsigned long long)node->ino,
                    strerror(-found));
    return found > 0;
}

/* -- while it is being written ----------------------------------------------------------------------------
 */

/* 1: the chunk is the older object's, or not there as a whole yet; 0; or an error. */
static int stand_in_check_chunk(struct filesystem *fs, const struct stand_in_file *file,
                                const struct sums_chunk *chunk)
{
    const int fd = file->backing->fd;
    int64_t end = chunk->offset + chunk->length;
    bool there = end <= file->row.size && lseek(fd, chunk->offset, SEEK_HOLE) >= end;
    return there ? sums_check_chunk(fs->store, fd, chunk) : 1;
}

/* The same of the object's first chunk, and of the last one that the file may have as a whole. */
static int stand_in_begins(struct filesystem *fs, const struct stand_in_file *file, uint64_t older)
{
    cleanup_sums struct sums sums = {0};
    errint error = older == file->backing->object ? -ENOENT : sums_read(fs->store, older, &sums);
    if (error || sums.chunk_count == 0)
        return error == -ENOENT || error == -EUCLEAN ? 0 : error;
    size_t behind = sums_chunk_at(&sums, file->row.size);
    int same = stand_in_check_chunk(fs, file, &sums.chunks[0]);
    if (same == 1 && behind > 1)
        same = stand_in_check_chunk(fs, file, &sums.chunks[behind - 1]);
    return same;
}

bool stand_in_is_likely(struct filesystem *fs, struct node *node, bool grows)
{
    struct stand_in_file file;
    cleanup_ids struct ids candidates = {0};
    int likely = stand_in_look(fs, node, &file);
    if (likely == 0 && file.backing && file.row.size > 0)
        likely = share_find_expected(fs, file.row.uid, file.row.size, grows, &candidates);
    /* An error tells nothing, and so many that not all can be looked at do not either. */
    if (candidates.count == 0 || candidates.count > STAND_IN_LIKELY_MAX)
        likely = 1;
    for (size_t i = 0; i < candidates.count && likely == 0; i++)
        likely = stand_in_begins(fs, &file, candidates.at[i]);
    backing_put(&fs->backings, file.backing);
    return likely != 0;
}
