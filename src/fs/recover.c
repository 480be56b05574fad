/* SPDX-License-Identifier: Apache-2.0 */
/* What a start finds after a crash. */
#include "fs/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "fs/discard.h"
#include "fs/seal.h"
#include "fs/sequence.h"
#include "fs/writeback.h"
#include "meta/stand_in.h"
#include "store/object.h"

enum { RECOVER_NAMED_MAX = 100 };

/* -- power cuts -------------------------------------------------------------------------------------------
 */

enum { RECOVER_BLOCK_MAX = 64 << 10 };

/* Where the zeros begin that [from, end) ends with; both lie in one block. */
static int64_t recover_find_zeros(int fd, int64_t from, int64_t end)
{
    uint8_t bytes[RECOVER_BLOCK_MAX];
    if (from >= end || transfer_read(fd, bytes, (size_t)(end - from), from) < 0)
        return from < end ? from : end;
    while (end > from && bytes[end - from - 1] == 0)
        end--;
    return end;
}

/*
 * What is appended inside a block that is on the disk already moves the end of the file before the bytes are
 * there, and until then there are zeros (ext4: fs/ext4/inode.c, ext4_da_should_update_i_disksize). So zeros
 * at the end of the block where the sync ended, and at the end of all, count as not written.
 */
static int64_t recover_end_of_bytes(int fd, int64_t synced, int64_t end, int64_t block)
{
    if (block <= 0 || block > RECOVER_BLOCK_MAX)
        block = RECOVER_BLOCK_MAX;
    int64_t whole = (synced + block - 1) / block * block;
    if (whole >= end)
        return recover_find_zeros(fd, synced, end);
    int64_t zeros = recover_find_zeros(fd, synced, whole);
    return zeros < whole ? zeros : recover_find_zeros(fd, (end - 1) / block * block, end);
}

/* How many bytes from `from` on an object certainly holds: written, and not beyond its end. */
static int64_t recover_object_end(struct filesystem *fs, uint64_t object, int64_t from)
{
    cleanup_fd int fd = object_open(fs->store, object, O_RDONLY);
    if (fd < 0)
        return 0;
    struct stat status;
    if (fstat(fd, &status) < 0)
        return 0;
    int64_t end = object_data_end(fd, from < status.st_size ? from : status.st_size);
    if (end > status.st_size)
        end = status.st_size;
    return from < end ? recover_end_of_bytes(fd, from, end, status.st_blksize) : end;
}

/* How many of the extent's bytes, from its first on, its object certainly holds. `synced`: of the file. */
static int64_t recover_extent_length(struct filesystem *fs, const struct meta_extent *extent, int64_t synced)
{
    int64_t known = extent->offset < synced ? synced - extent->offset : 0;
    if (known > extent->length)
        known = extent->length;
    int64_t end = recover_object_end(fs, extent->object, extent->object_offset + known);
    int64_t length = end - extent->object_offset;
    return length < 0 ? 0 : length < extent->length ? length : extent->length;
}

/* A range that is lost, with what is there behind it, reads as zeros. */
static errint recover_make_hole(struct filesystem *fs, const struct meta_inode *row, int64_t from,
                                int64_t end)
{
    cleanup_ids struct ids freed = {0}; /* found again as objects that nothing refers to */
    const struct meta_extent hole = {.offset = from, .length = end - from};
    return meta_extents_map(fs->meta, row->ino, &hole, false, row->mtime, &freed);
}

/*
 * Of a file that was never synced the beginning is kept, up to the first byte that is lost. One that was
 * synced and then changed keeps its size and all that is there: what lies behind a lost change, and the bytes
 * that this one replaced, may have been synced long before.
 */
static errint recover_extents_until(struct filesystem *fs, const struct meta_inode *row, int64_t *until)
{
    bool was_synced = row->synced_size >= 0;
    cleanup_free struct meta_extent *extents = NULL;
    size_t count = 0;
    errint error = meta_extents(fs->meta, row->ino, &extents, &count);
    for (size_t i = 0; i < count && !error; i++) {
        const struct meta_extent *extent = &extents[i];
        int64_t length = recover_extent_length(fs, extent, was_synced ? row->synced_size : 0);
        if (length == extent->length)
            continue;
        if (!was_synced) {
            *until = extent->offset + length;
            break;
        }
        error = recover_make_hole(fs, row, extent->offset + length, extent->offset + extent->length);
    }
    return error;
}

/* The size of what is certainly what was written to the file, or was in it before. */
static errint recover_whole_until(struct filesystem *fs, const struct meta_inode *row, int64_t *until)
{
    *until = row->size;
    if (row->kind == META_EXTENTS)
        return recover_extents_until(fs, row, until);
    if (row->kind == META_OBJECT)
        *until = recover_object_end(fs, row->object, row->synced_size > 0 ? row->synced_size : 0);
    return 0;
}

/* What an fsync has found in an older file is the file; else its beginning, as far as it is there. */
static errint recover_content(struct filesystem *fs, const struct meta_inode *row, bool *whole)
{
    cleanup_ids struct ids freed = {0}; /* found again as objects that nothing refers to */
    errint error = meta_stand_in_restore(fs->meta, row->ino, whole, &freed);
    if (error != -ENOENT)
        return error;
    *whole = false;
    int64_t until;
    error = recover_whole_until(fs, row, &until);
    return error ? error : meta_tear(fs->meta, row->ino, until, &freed);
}

static errint recover_file(struct filesystem *fs, uint64_t ino, struct ids *torn)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, ino, &row);
    if (error || !S_ISREG(row.mode))
        return error == -ENOENT ? 0 : error;
    cleanup_free char *path = NULL;
    if (meta_path(fs->meta, ino, &path) < 0)
        path = NULL;
    struct meta_inode kept = row;
    bool whole;
    error = recover_content(fs, &row, &whole);
    if (error || whole)
        return error;
    error = meta_get(fs->meta, ino, &kept);
    if (!error)
        error = ids_append(torn, ino);
    if (torn->count <= RECOVER_NAMED_MAX)
        log_warning(
            "torn path=\"%s\" kept_bytes=%lld recorded_bytes=%lld: unsynced writes were lost in a crash",
            path ? path : "?", (long long)kept.size, (long long)row.size);
    return error;
}

/* What is behind the recorded end of a sealed object belongs to no file: passthrough must not show it. */
static errint recover_cut_object(struct filesystem *fs, uint64_t object, int64_t size)
{
    cleanup_fd int fd = object_open(fs->store, object, O_RDWR);
    if (fd < 0)
        return fd;
    return ftruncate(fd, size) < 0 ? -errno : 0;
}

/*
 * A file that was opened for writing, or cut, moments before: the disk can have kept the change of the object
 * and lost the transaction that marked the file. A sealed object that has not its recorded size tells.
 */
static errint recover_object(struct filesystem *fs, uint64_t object, struct ids *torn)
{
    int64_t recorded;
    struct stat status = {0};
    errint error = meta_object_size(fs->meta, object, &recorded);
    cleanup_fd int fd = object_open(fs->store, object, O_RDONLY);
    if (error || fd < 0 || fstat(fd, &status) < 0 || status.st_size == recorded)
        return error; /* a missing object is told later */
    if (status.st_size > recorded)
        error = recover_cut_object(fs, object, recorded);
    cleanup_ids struct ids users = {0};
    if (!error)
        error = meta_find_users(fs->meta, object, &users);
    for (size_t i = 0; i < users.count && !error; i++) {
        if (!ids_contain_sorted(torn, users.at[i]))
            error = recover_file(fs, users.at[i], torn);
        ids_sort(torn);
    }
    return error;
}

static errint recover_power_cut(struct filesystem *fs)
{
    cleanup_ids struct ids dirty = {0}, sealed = {0}, torn = {0}, restored = {0}, freed = {0};
    errint error = meta_find_dirty(fs->meta, &dirty);
    for (size_t i = 0; i < dirty.count && !error; i++)
        error = recover_file(fs, dirty.at[i], &torn);
    ids_sort(&torn);
    if (!error)
        error = meta_find_sealed(fs->meta, &sealed);
    for (size_t i = 0; i < sealed.count && !error; i++)
        error = recover_object(fs, sealed.at[i], &torn);
    if (!error)
        error = fault_hit("fs.recover");
    if (!error)
        error = meta_restore_shadows(fs->meta, &torn, &restored, &freed);
    if (error)
        return error;
    atomic_store(&fs->torn_found, torn.count);
    log_warning("the store was not closed and its disk was cut off since: %zu files may have lost bytes, "
                "%zu replaced files are back under their names",
                torn.count, restored.count);
    return 0;
}

/* What it guards against is rare; not to have it keeps nobody from working. */
static void recover_advance(struct filesystem *fs)
{
    errint error = sequence_advance(fs->store, fs->meta);
    if (error)
        log_warning("an older copy of meta.db would not be known as one: %s", strerror(-error));
}

errint recover_at_mount(struct filesystem *fs)
{
    cleanup_free char *clean = NULL;
    cleanup_free char *before = NULL;
    char now[128];
    errint error = store_epoch(fs->store, now);
    if (error)
        return error;
    if (meta_setting_get(fs->meta, "clean", &clean) == 0 && strcmp(clean, "1") != 0 &&
        meta_setting_get(fs->meta, "epoch", &before) == 0 && strcmp(before, now) != 0)
        error = recover_power_cut(fs);
    if (!error)
        error = meta_setting_put(fs->meta, "clean", "0");
    if (!error)
        error = meta_setting_put(fs->meta, "epoch", now);
    if (!error)
        error = meta_sync(fs->meta);
    if (!error)
        recover_advance(fs);
    return error;
}

errint recover_mark_clean(struct filesystem *fs)
{
    cleanup_ids struct ids dirty = {0};
    recover_advance(fs);
    errint error = meta_find_dirty(fs->meta, &dirty);
    /* What could not be sealed or synced (a mapping that is still there) keeps the next mount looking. */
    if (!error && dirty.count == 0)
        error = meta_setting_put(fs->meta, "clean", "1");
    return error ? error : meta_sync(fs->meta);
}

/* -- what is left to do -----------------------------------------------------------------------------------
 */

static errint recover_dirty(struct filesystem *fs)
{
    cleanup_ids struct ids dirty = {0};
    errint error = meta_find_dirty(fs->meta, &dirty);
    for (size_t i = 0; i < dirty.count && !error; i++) {
        struct node *node = node_get(fs, dirty.at[i]);
        if (!node)
            return -ENOMEM;
        node_lock(node);
        errint loaded = node_load(fs, node);
        if (loaded) {
            log_error("inode %llu: %s", (unsigned long long)node->ino, strerror(-loaded));
        } else {
            /* Mappings outlive handles, and daemons. */
            node->was_passthrough = true;
            node->dirty = false;
            writeback_add(fs, node);
            if (node->kind == META_OBJECT && node->writers == 0)
                seal_add(fs, node);
        }
        node_unlock(node);
        node_put(fs, node);
    }
    return error;
}

errint recover_orphans(struct filesystem *fs)
{
    cleanup_ids struct ids orphans = {0};
    errint error = meta_find_orphans(fs->meta, &orphans);
    for (size_t i = 0; i < orphans.count && !error; i++) {
        struct node *node = node_get(fs, orphans.at[i]);
        if (!node)
            return -ENOMEM;
        node_reap(fs, node);
        node_put(fs, node);
    }
    return error;
}

/* Object files that no row knows: made just before a crash. `unreferenced`, sorted, may be gone already. */
static errint recover_strays(struct filesystem *fs, const struct ids *unreferenced)
{
    cleanup_ids struct ids files = {0}, rows = {0};
    errint error = object_list(fs->store, &files);
    if (!error)
        error = meta_find_objects(fs->meta, &rows);
    if (error)
        return error;
    ids_sort(&files);
    ids_sort(&rows);
    size_t missing = 0;
    for (size_t i = 0; i < files.count; i++) {
        if (!ids_contain_sorted(&rows, files.at[i]))
            object_remove(fs->store, files.at[i]);
    }
    for (size_t i = 0; i < rows.count; i++)
        missing += !ids_contain_sorted(&files, rows.at[i]) && !ids_contain_sorted(unreferenced, rows.at[i]);
    if (missing)
        log_error("%zu objects are missing from the store: reading their files gives EIO", missing);
    return 0;
}

errint recover_unfinished(struct filesystem *fs, bool takeover)
{
    errint error = recover_dirty(fs);
    if (!error)
        error = recover_orphans(fs);
    cleanup_ids struct ids unreferenced = {0};
    if (!error)
        error = meta_find_unreferenced(fs->meta, &unreferenced);
    ids_sort(&unreferenced);
    if (!error)
        discard_objects(fs, &unreferenced);
    /* At a take-over requests may be about to be sent again whose objects exist and whose rows do not. */
    if (!error && !takeover)
        error = recover_strays(fs, &unreferenced);
    return error;
}
