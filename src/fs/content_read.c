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

/* -- the pieces of several objects ------------------------------------------------------------------------
 */

/* What of a file's extent is asked for. */
struct content_piece {
    const struct meta_extent *extent;
    int64_t offset; /* in the file */
    size_t length;
};

static errint content_get_backing(struct filesystem *fs, const struct node *node,
                                  const struct meta_extent *extent, struct backing **backing)
{
    errint error = backing_get(&fs->backings, extent->object, backing);
    if (error)
        log_error("inode %llu: object %016llx of bytes %lld to %lld cannot be opened: %s",
                  (unsigned long long)node->ino, (unsigned long long)extent->object,
                  (long long)extent->offset, (long long)(extent->offset + extent->length), strerror(-error));
    return error ? -EIO : 0;
}

/*
 * `buffer` has room for piece->length + 2 * CONTENT_ALIGNMENT bytes and is aligned; the bytes start at *data,
 * inside it. A short object is damage, never zeros.
 */
static errint content_read_piece(struct filesystem *fs, const struct node *node,
                                 const struct content_piece *piece, char *buffer, char **data)
{
    struct backing *backing;
    const struct meta_extent *extent = piece->extent;
    int64_t at = extent->object_offset + (piece->offset - extent->offset);
    if (damage_touches(fs, extent->object, at, (int64_t)piece->length))
        return -EIO; /* said when it was found */
    errint error = content_get_backing(fs, node, extent, &backing);
    if (error)
        return error;
    ssize_t got = content_read_object(fs, backing, true, buffer, piece->length, at, data);
    if (got >= 0 && (size_t)got != piece->length)
        log_error("inode %llu: object %016llx ends at %lld, expected at least %lld bytes",
                  (unsigned long long)node->ino, (unsigned long long)extent->object, (long long)(at + got),
                  (long long)(at + (int64_t)piece->length));
    backing_put(&fs->backings, backing);
    if (got < 0)
        return (errint)got;
    return (size_t)got == piece->length ? 0 : -EIO;
}

/* The first piece of the extents from `*index` on that lies in a range, and the index behind it. */
static bool content_next_piece(const struct node *node, size_t *index, int64_t offset, int64_t end,
                               struct content_piece *piece)
{
    while (*index < node->extent_count) {
        const struct meta_extent *extent = &node->extents[(*index)++];
        int64_t from = extent->offset > offset ? extent->offset : offset;
        int64_t to = extent->offset + extent->length < end ? extent->offset + extent->length : end;
        if (extent->offset >= end)
            return false;
        if (from < to) {
            *piece = (struct content_piece){extent, from, (size_t)(to - from)};
            return true;
        }
    }
    return false;
}

/* Several pieces are read beside the buffer, as each has an alignment of its own; what no extent covers is
 * zero. */
static errint content_gather(struct filesystem *fs, const struct node *node, char *buffer, size_t size,
                             int64_t offset)
{
    int64_t end = offset + (int64_t)size, done = offset;
    struct content_piece piece;
    cleanup_free char *beside = aligned_alloc(
        CONTENT_ALIGNMENT,
        (size + CONTENT_ALIGNMENT - 1) / CONTENT_ALIGNMENT * CONTENT_ALIGNMENT + 2 * CONTENT_ALIGNMENT);
    if (!beside)
        return -ENOMEM;
    for (size_t i = 0; content_next_piece(node, &i, offset, end, &piece);) {
        char *data;
        errint error = content_read_piece(fs, node, &piece, beside, &data);
        if (error)
            return error;
        memset(buffer + (done - offset), 0, (size_t)(piece.offset - done));
        memcpy(buffer + (piece.offset - offset), data, piece.length);
        done = piece.offset + (int64_t)piece.length;
    }
    memset(buffer + (done - offset), 0, (size_t)(end - done));
    return 0;
}

static ssize_t content_read_extents(struct filesystem *fs, struct node *node, char *buffer, size_t size,
                                    int64_t offset, char **data)
{
    if (offset >= node->size)
        return 0;
    if ((int64_t)size > node->size - offset)
        size = (size_t)(node->size - offset);
    size_t first = 0;
    struct content_piece piece;
    bool found = content_next_piece(node, &first, offset, offset + (int64_t)size, &piece);
    errint error = found && piece.length == size ? content_read_piece(fs, node, &piece, buffer, data)
                                                 : content_gather(fs, node, buffer, size, offset);
    return error ? error : (ssize_t)size;
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
    return content_read_extents(fs, node, buffer, size, offset, data);
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
