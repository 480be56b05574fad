/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a file's bytes: from the database, from one object, or from the pieces of several.
 *
 * Bytes that the object's page cache has are taken from there; the rest of a large read comes by O_DIRECT, so
 * that a cold file does not fill memory twice (the kernel caches what it gets from us).
 */
#include "fs/content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/transfer.h"
#include "fs/filesystem.h"
#include "fs/node_extents.h"

/* Below this a buffered read is as good, and leaves the object's own read-ahead in charge. */
enum { CONTENT_DIRECT_MIN = 64 * 1024 };

/* O_DIRECT, widened to whole blocks; the wanted bytes start at *data. */
static ssize_t content_pread_direct(int fd, char *buffer, size_t size, int64_t offset, char **data)
{
    int64_t start = offset & ~(int64_t)(CONTENT_ALIGNMENT - 1);
    int64_t end = (offset + (int64_t)size + CONTENT_ALIGNMENT - 1) & ~(int64_t)(CONTENT_ALIGNMENT - 1);
    ssize_t got = transfer_read_some(fd, buffer, (size_t)(end - start), start);
    if (got < 0)
        return got;
    ssize_t useful = got - (offset - start);
    *data = buffer + (offset - start);
    if (useful <= 0)
        return 0;
    return useful < (ssize_t)size ? useful : (ssize_t)size;
}

static ssize_t content_read_object(struct filesystem *fs, struct backing *backing, bool sealed, char *buffer,
                                   size_t size, int64_t offset, char **data)
{
    *data = buffer;
    if (!sealed || size < CONTENT_DIRECT_MIN)
        return transfer_read_some(backing->fd, buffer, size, offset);
    struct iovec vector = {.iov_base = buffer, .iov_len = size};
    ssize_t cached = preadv2(backing->fd, &vector, 1, offset, RWF_NOWAIT);
    if (cached == (ssize_t)size)
        return cached;
    cleanup_fd int direct = backing_direct(&fs->backings, backing);
    if (direct >= 0) {
        ssize_t got = content_pread_direct(direct, buffer, size, offset, data);
        if (got != -EINVAL)
            return got;
        *data = buffer;
    }
    return transfer_read_some(backing->fd, buffer, size, offset);
}

/* Objects that a read has used already: its pieces come from few, by turns. */
enum { CONTENT_HELD = 16 };

struct content_held {
    struct filesystem *fs;
    struct backing *at[CONTENT_HELD];
};

static void content_held_release(struct content_held *held)
{
    for (size_t i = 0; i < CONTENT_HELD; i++)
        backing_put(&held->fs->backings, held->at[i]);
}

/* *out is there until the next call, or the release. */
static errint content_hold(struct content_held *held, uint64_t object, struct backing **out)
{
    struct backing **slot = &held->at[object % CONTENT_HELD];
    if (!*slot || (*slot)->object != object) {
        backing_put(&held->fs->backings, steal_pointer(*slot));
        errint error = backing_get(&held->fs->backings, object, slot);
        if (error) {
            *slot = NULL;
            return error;
        }
    }
    *out = *slot;
    return 0;
}

/* One piece of a file of several; a short object is damage, never zeros. */
static errint content_read_piece(struct content_held *held, const struct node *node,
                                 const struct meta_extent *extent, char *buffer, int64_t offset,
                                 size_t length)
{
    struct filesystem *fs = held->fs;
    struct backing *backing;
    int64_t at = extent->object_offset + (offset - extent->offset);
    if (damage_touches(fs, extent->object, at, (int64_t)length))
        return -EIO; /* said when it was found */
    errint error = content_hold(held, extent->object, &backing);
    if (error) {
        log_error("inode %llu: object %016llx of bytes %lld to %lld cannot be opened: %s",
                  (unsigned long long)node->ino, (unsigned long long)extent->object,
                  (long long)extent->offset, (long long)(extent->offset + extent->length), strerror(-error));
        return -EIO;
    }
    ssize_t got = transfer_read_some(backing->fd, buffer, length, at);
    if (got >= 0 && (size_t)got != length)
        log_error("inode %llu: object %016llx ends at %lld, expected at least %lld bytes",
                  (unsigned long long)node->ino, (unsigned long long)extent->object, (long long)(at + got),
                  (long long)(at + (int64_t)length));
    if (got < 0)
        return (errint)got;
    return (size_t)got == length ? 0 : -EIO;
}

static ssize_t content_read_extents(struct filesystem *fs, struct node *node, char *buffer, size_t size,
                                    int64_t offset)
{
    if (offset >= node->size)
        return 0;
    if ((int64_t)size > node->size - offset)
        size = (size_t)(node->size - offset);
    __attribute__((cleanup(content_held_release))) struct content_held held = {.fs = fs};
    int64_t end = offset + (int64_t)size, filled = offset;
    for (size_t i = node_find_extent(node, offset); i < node->extent_count; i++) {
        const struct meta_extent *extent = &node->extents[i];
        if (extent->offset >= end)
            break;
        int64_t from = extent->offset > offset ? extent->offset : offset;
        int64_t to = extent->offset + extent->length < end ? extent->offset + extent->length : end;
        memset(buffer + (filled - offset), 0, (size_t)(from - filled));
        errint error =
            content_read_piece(&held, node, extent, buffer + (from - offset), from, (size_t)(to - from));
        if (error)
            return error;
        filled = to;
    }
    memset(buffer + (filled - offset), 0, (size_t)(end - filled));
    return (ssize_t)size;
}

static ssize_t content_read_inline(struct filesystem *fs, struct node *node, char *buffer, size_t size,
                                   int64_t offset, char **data)
{
    if (offset >= node->size)
        return 0;
    if (offset == 0 && (int64_t)size >= node->size)
        return meta_content_read(fs->meta, node->ino, buffer, size);
    cleanup_free char *whole = malloc((size_t)node->size);
    if (!whole)
        return -ENOMEM;
    ssize_t length = meta_content_read(fs->meta, node->ino, whole, (size_t)node->size);
    if (length <= offset)
        return length < 0 ? length : 0;
    size_t rest = (size_t)(length - offset);
    if (rest < size)
        size = rest;
    memcpy(buffer, whole + offset, size);
    *data = buffer;
    return (ssize_t)size;
}

static ssize_t content_read_locked(struct filesystem *fs, struct node *node, char *buffer, size_t size,
                                   int64_t offset, char **data)
{
    *data = buffer;
    switch (node->kind) {
    case META_NONE: return 0;
    case META_INLINE: return content_read_inline(fs, node, buffer, size, offset, data);
    case META_OBJECT: return content_read_object(fs, node->backing, false, buffer, size, offset, data);
    case META_EXTENTS: break;
    }
    if (node->backing) {
        if (damage_touches(fs, node->backing->object, offset, (int64_t)size))
            return -EIO;
        ssize_t got = content_read_object(fs, node->backing, true, buffer, size, offset, data);
        if (got >= 0 && got < (ssize_t)size && offset + got < node->size) {
            log_error("inode %llu: object %016llx ends at %lld, expected %lld bytes",
                      (unsigned long long)node->ino, (unsigned long long)node->backing->object,
                      (long long)(offset + got), (long long)node->size);
            return -EIO;
        }
        return got;
    }
    return content_read_extents(fs, node, buffer, size, offset);
}

ssize_t content_read(struct filesystem *fs, struct node *node, char *buffer, size_t size, int64_t offset,
                     char **data)
{
    node_lock_shared(node);
    bool ready = node->loaded && (node->kind != META_EXTENTS || node->backing || node->extents);
    if (!ready) {
        node_unlock(node);
        node_lock(node);
        errint error = node_load(fs, node);
        if (!error)
            error = node_extents(fs, node);
        if (error) {
            node_unlock(node);
            return error;
        }
    }
    ssize_t got = content_read_locked(fs, node, buffer, size, offset, data);
    node_unlock(node);
    return got;
}
