/* SPDX-License-Identifier: Apache-2.0 */
/* Changing a file's bytes, and what the file is made of. Reading is in content_read.c. */
#include "fs/content.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/node_extents.h"
#include "fs/writeback.h"
#include "store/object.h"

int64_t content_size(const struct node *node)
{
    if (node->kind == META_OBJECT) {
        struct stat object;
        return fstat(node->backing->fd, &object) < 0 ? -errno : object.st_size;
    }
    return node->kind == META_NONE ? 0 : node->size;
}

void content_freeze(struct filesystem *fs, struct node *node)
{
    backing_put(&fs->backings, node->overlay);
    node->overlay = NULL;
}

void content_release(struct filesystem *fs, struct node *node, const struct ids *freed)
{
    for (size_t i = 0; i < freed->count; i++) {
        if (node->overlay && node->overlay->object == freed->at[i])
            content_freeze(fs, node);
    }
    discard_objects(fs, freed);
}

/* Gives the object the mtime that the file has, so that only a write makes them differ. */
static errint content_stamp_object(int fd, int64_t mtime)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, clock_to_timespec(mtime)};
    return futimens(fd, times) < 0 ? -errno : 0;
}

/* A file without an object gets one that holds `bytes`. */
static errint content_move_to_object(struct filesystem *fs, struct node *node, const char *bytes, size_t size)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, node->ino, &row);
    if (error)
        return error;
    uint64_t object = meta_object_next(fs->meta);
    struct backing *backing = NULL;
    if (!object)
        return -EIO;
    error = backing_create(&fs->backings, object, &backing);
    if (error)
        return error;
    cleanup_fd int fd = backing_writer(&fs->backings, backing);
    error = fd < 0 ? fd : transfer_write(fd, bytes, size, 0);
    if (!error)
        error = content_stamp_object(fd, row.mtime);
    cleanup_ids struct ids freed = {0};
    if (!error)
        error = meta_to_object(fs->meta, node->ino, object, (int64_t)size, &freed);
    if (error) {
        backing_put(&fs->backings, backing);
        object_remove(fs->store, object);
        return error;
    }
    node_drop_content(fs, node);
    node->kind = META_OBJECT;
    node->backing = backing;
    discard_objects(fs, &freed);
    writeback_add(fs, node);
    return 0;
}

static errint content_unseal(struct filesystem *fs, struct node *node)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, node->ino, &row);
    if (!error)
        error = meta_unseal(fs->meta, node->ino);
    if (error)
        return error == -EBUSY ? 0 : error;
    node_forget_extents(node);
    node->kind = META_OBJECT;
    /* The mark must be on stable storage before changed bytes are: soon, and never after our own write-back
     * (writeback_sync_mark). */
    node->marked = meta_commit_last(fs->meta);
    writeback_add(fs, node);
    writeback_kick(fs);
    return content_stamp_object(node->backing->fd, row.mtime);
}

errint content_make_writable(struct filesystem *fs, struct node *node)
{
    errint error = fault_hit("fs.writable");
    if (!error && node->shed)
        error = -EIO;
    if (error)
        return error;
    switch (node->kind) {
    case META_OBJECT: writeback_add(fs, node); return 0;
    case META_NONE: return content_move_to_object(fs, node, NULL, 0);
    case META_EXTENTS: return node->backing ? content_unseal(fs, node) : 0;
    case META_INLINE: break;
    }
    cleanup_free char *bytes = malloc((size_t)node->size + 1);
    if (!bytes)
        return -ENOMEM;
    ssize_t length = meta_content_read(fs->meta, node->ino, bytes, (size_t)node->size);
    return length < 0 ? (errint)length : content_move_to_object(fs, node, bytes, (size_t)length);
}

/*
 * A descriptor for a change that the disk may write before any sync of this file: the rest of a block that is
 * cut is zeroed with the next transaction that commits, whoever asks for it (ext4, data=ordered).
 */
static int content_early_writer(struct filesystem *fs, struct node *node)
{
    errint error = writeback_sync_mark(fs, node);
    return error ? error : backing_writer(&fs->backings, node->backing);
}

static errint content_truncate_object(struct filesystem *fs, struct node *node, int64_t size)
{
    cleanup_fd int fd = content_early_writer(fs, node);
    if (fd < 0)
        return fd;
    if (ftruncate(fd, size) < 0)
        return -errno;
    /* Also where the size stays the same: truncation is a change of the file. */
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    return futimens(fd, times) < 0 ? -errno : 0;
}

/* Cuts or grows what the database knows alone. */
static errint content_truncate_row(struct filesystem *fs, struct node *node, int64_t size)
{
    cleanup_ids struct ids freed = {0};
    errint error = meta_truncate(fs->meta, node->ino, size, clock_file_time(), fs_current_unique(), &freed);
    struct meta_inode row;
    if (!error)
        error = meta_get(fs->meta, node->ino, &row);
    if (error)
        return error;
    struct backing *overlay = node->overlay;
    node->overlay = NULL;
    error = node_adopt_row(fs, node, &row);
    if (node->kind == META_EXTENTS && !error)
        node->overlay = overlay;
    else
        backing_put(&fs->backings, overlay);
    content_release(fs, node, &freed);
    discard_kick(fs);
    if (node->dirty)
        writeback_add(fs, node);
    return error;
}

bool content_is_mapped(struct node *node)
{
    return node->backing && backing_is_free(node->backing, BACKING_READERS) == 0;
}

bool content_may_repoint(struct node *node)
{
    return node->kind == META_EXTENTS && node->mode != NODE_PASSTHROUGH && node->writers == 0 &&
           !node->overlay && !content_is_mapped(node);
}

errint content_truncate(struct filesystem *fs, struct node *node, int64_t size)
{
    /* Passthrough handles, and mappings that outlive them, see the object itself: then it is what must be
     * cut. */
    bool seen = node->mode == NODE_PASSTHROUGH || content_is_mapped(node);
    node->told_apart = false;
    atomic_store(&node->unlike, false);
    if (size == 0 && node->kind != META_OBJECT && !seen)
        return content_truncate_row(fs, node, 0);
    errint error = content_make_writable(fs, node);
    if (error)
        return error;
    return node->kind == META_OBJECT ? content_truncate_object(fs, node, size)
                                     : content_truncate_row(fs, node, size);
}

/* -- copy on write ----------------------------------------------------------------------------------------
 */

/*
 * How many bytes of the range lie in a row in the overlay already, and where there (*at); or, if its first
 * byte does not, how many come before one that does, with *at negative.
 */
static int64_t content_in_overlay(const struct node *node, int64_t offset, int64_t length, int64_t *at)
{
    size_t i = node_find_extent(node, offset);
    *at = -1;
    for (; i < node->extent_count && node->extents[i].offset < offset + length; i++) {
        const struct meta_extent *extent = &node->extents[i];
        if (extent->object != node->overlay->object)
            continue;
        if (extent->offset > offset)
            return extent->offset - offset;
        *at = extent->object_offset + (offset - extent->offset);
        int64_t covered = extent->offset + extent->length - offset;
        return covered < length ? covered : length;
    }
    return length;
}

static errint content_map(struct filesystem *fs, struct node *node, int64_t offset, int64_t length,
                          uint64_t object, int64_t object_offset, bool extend)
{
    cleanup_ids struct ids freed = {0};
    const struct meta_extent extent = {offset, length, object, object_offset};
    errint error = meta_extents_map(fs->meta, node->ino, &extent, extend, clock_file_time(), &freed);
    if (error)
        return error;
    node_note_extent(node, &extent);
    /* The object that was the whole file is not any more. */
    backing_put(&fs->backings, node->backing);
    node->backing = NULL;
    node->kind = META_EXTENTS;
    if (extend && offset + length > node->size)
        node->size = offset + length;
    content_release(fs, node, &freed);
    writeback_add(fs, node);
    return 0;
}

static errint content_overlay(struct filesystem *fs, struct node *node)
{
    if (node->overlay)
        return 0;
    uint64_t object = meta_object_next(fs->meta);
    return object ? backing_create(&fs->backings, object, &node->overlay) : -EIO;
}

/*
 * Changed ranges are put behind each other in the overlay, so that many small ones take the room of their
 * bytes, not a block of the disk each; what lies there already is written over. The number of bytes written,
 * or an error.
 */
static int64_t content_write_piece(struct filesystem *fs, struct node *node, const char *bytes, size_t size,
                                   int64_t offset)
{
    struct stat object;
    int64_t at;
    errint error = content_overlay(fs, node);
    if (!error)
        error = node_extents(fs, node);
    cleanup_fd int fd = error ? error : backing_writer(&fs->backings, node->overlay);
    if (fd < 0)
        return fd;
    int64_t length = content_in_overlay(node, offset, (int64_t)size, &at);
    bool known = at >= 0;
    if (!known && fstat(fd, &object) < 0)
        return -errno;
    if (!known)
        at = object.st_size;
    error = transfer_write(fd, bytes, (size_t)length, at);
    if (error)
        return error;
    int64_t now = clock_file_time();
    const struct meta_inode times = {.mtime = now, .ctime = now};
    error = known ? meta_set(fs->meta, node->ino, META_SET_MTIME | META_SET_CTIME, &times, 0, NULL)
                  : content_map(fs, node, offset, length, node->overlay->object, at, true);
    return error ? error : length;
}

static errint content_write_over(struct filesystem *fs, struct node *node, const char *bytes, size_t size,
                                 int64_t offset)
{
    while (size > 0) {
        int64_t written = content_write_piece(fs, node, bytes, size, offset);
        if (written < 0)
            return (errint)written;
        bytes += written;
        offset += written;
        size -= (size_t)written;
    }
    return 0;
}

static errint content_write_object(struct filesystem *fs, struct node *node, const char *bytes, size_t size,
                                   int64_t offset)
{
    cleanup_fd int fd = backing_writer(&fs->backings, node->backing);
    return fd < 0 ? fd : transfer_write(fd, bytes, size, offset);
}

errint content_write(struct filesystem *fs, struct node *node, const char *bytes, size_t size, int64_t offset)
{
    if (size == 0)
        return 0;
    node_lock_shared(node);
    if (node->kind == META_OBJECT) {
        errint error = content_write_object(fs, node, bytes, size, offset);
        node_unlock(node);
        return error;
    }
    node_unlock(node);
    node_lock(node);
    errint error = content_make_writable(fs, node);
    if (!error)
        error = node->kind == META_OBJECT ? content_write_object(fs, node, bytes, size, offset)
                                          : content_write_over(fs, node, bytes, size, offset);
    node_unlock(node);
    return error;
}

/* -- fallocate and lseek ----------------------------------------------------------------------------------
 */

static errint content_allocate_over(struct filesystem *fs, struct node *node, int mode, int64_t offset,
                                    int64_t length)
{
    int64_t end = offset + length;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        int64_t inside = end < node->size ? length : node->size - offset;
        errint error = inside > 0 ? content_map(fs, node, offset, inside, 0, 0, false) : 0;
        if (error)
            return error;
    }
    /* A reservation inside shared bytes has nothing to hold on to; writes there are checked as they come. */
    if (!(mode & FALLOC_FL_KEEP_SIZE) && end > node->size)
        return content_truncate_row(fs, node, end);
    return 0;
}

errint content_allocate(struct filesystem *fs, struct node *node, int mode, int64_t offset, int64_t length)
{
    switch (mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE: break;
    default: return -EOPNOTSUPP;
    }
    errint error = content_make_writable(fs, node);
    if (error)
        return error;
    if (node->kind != META_OBJECT)
        return content_allocate_over(fs, node, mode, offset, length);
    cleanup_fd int fd = content_early_writer(fs, node);
    if (fd < 0)
        return fd;
    return fallocate(fd, mode, offset, length) < 0 ? -errno : 0;
}

/* Where the extents and the gaps between them say that data or a hole comes next. */
static int64_t content_seek_extents(const struct node *node, int64_t offset, int whence)
{
    int64_t position = offset;
    for (size_t i = node_find_extent(node, offset); i < node->extent_count; i++) {
        const struct meta_extent *extent = &node->extents[i];
        if (whence == SEEK_DATA)
            return extent->offset > position ? extent->offset : position;
        if (extent->offset > position)
            return position;
        position = extent->offset + extent->length;
    }
    if (whence == SEEK_DATA)
        return -ENXIO;
    return position < node->size ? position : node->size;
}

int64_t content_seek(struct filesystem *fs, struct node *node, int64_t offset, int whence)
{
    int64_t size = content_size(node);
    if (size < 0)
        return size;
    if (offset < 0 || offset >= size)
        return -ENXIO;
    /* Stores through a mapping may not have reached us: only what is certainly a hole may be called one. What
     * cannot be read is none. */
    if (node->shed)
        return whence == SEEK_DATA ? offset : size;
    if (node->mode == NODE_DAEMON && node->writers > 0)
        return whence == SEEK_DATA ? offset : size;
    if (node->backing) {
        int64_t found = lseek(node->backing->fd, offset, whence);
        return found < 0 ? -errno : found;
    }
    if (node->kind != META_EXTENTS)
        return whence == SEEK_DATA ? offset : size;
    errint error = node_extents(fs, node);
    return error ? error : content_seek_extents(node, offset, whence);
}
