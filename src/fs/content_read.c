/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a file's bytes: from the database, from one object, or from the pieces of several.
 *
 * Bytes that the object's page cache has are taken from there; the rest of a large read comes by O_DIRECT, so
 * that a cold file does not fill memory twice (the kernel caches what it gets from us).
 */
#include "fs/content.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/page_cache.h"
#include "base/transfer.h"
#include "fs/filesystem.h"
#include "fs/node_extents.h"

/* Below this a buffered read is as good, and leaves the object's own read-ahead in charge. */
enum { CONTENT_DIRECT_MIN = 64 * 1024 };

/* How far an offset is behind the begin of its block. */
static size_t content_lead(int64_t offset)
{
    return (size_t)(offset & (CONTENT_ALIGNMENT - 1));
}

/* O_DIRECT, widened to whole blocks: so `to` lies in memory as `offset` does on the disk, and what is around
 * it in its first and its last block is overwritten. */
static ssize_t content_pread_direct(int fd, char *to, size_t size, int64_t offset)
{
    size_t lead = content_lead(offset);
    size_t whole = (lead + size + CONTENT_ALIGNMENT - 1) / CONTENT_ALIGNMENT * CONTENT_ALIGNMENT;
    ssize_t got = transfer_read_some(fd, to - lead, whole, offset - (int64_t)lead);
    if (got <= (ssize_t)lead)
        return got < 0 ? got : 0;
    size_t useful = (size_t)got - lead;
    return (ssize_t)(useful < size ? useful : size);
}

/* `to` lies in memory as content_pread_direct wants it, with room around. */
static ssize_t content_read_sealed(struct filesystem *fs, struct backing *backing, char *to, size_t size,
                                   int64_t offset)
{
    if (size >= CONTENT_DIRECT_MIN && !page_cache_has(backing->fd, offset, size)) {
        cleanup_fd int direct = backing_direct(&fs->backings, backing);
        ssize_t got = direct < 0 ? -EINVAL : content_pread_direct(direct, to, size, offset);
        if (got != -EINVAL)
            return got;
    }
    return transfer_read_some(backing->fd, to, size, offset);
}

/* -- the pieces of several objects ------------------------------------------------------------------------
 */

/* What of a file's extent is asked for. */
struct content_piece {
    const struct meta_extent *extent;
    int64_t offset; /* in the file */
    size_t length;
};

static int64_t content_piece_at(const struct content_piece *piece)
{
    return piece->extent->object_offset + (piece->offset - piece->extent->offset);
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

/* Has the disk begin with a piece that is read later, beside what is read before. */
static void content_announce_piece(struct content_held *held, const struct content_piece *piece)
{
    struct backing *backing;
    if (content_hold(held, piece->extent->object, &backing) == 0)
        posix_fadvise(backing->fd, (off_t)content_piece_at(piece), (off_t)piece->length, POSIX_FADV_WILLNEED);
}

/* How a piece is read: CONTENT_WIDENED wants memory that lies as content_pread_direct says. */
enum content_way { CONTENT_BUFFERED, CONTENT_WIDENED };

/* A short object is damage, never zeros. */
static errint content_read_piece(struct content_held *held, const struct node *node,
                                 const struct content_piece *piece, char *to, enum content_way way)
{
    struct filesystem *fs = held->fs;
    struct backing *backing;
    const struct meta_extent *extent = piece->extent;
    int64_t at = content_piece_at(piece);
    if (damage_touches(fs, extent->object, at, (int64_t)piece->length))
        return -EIO; /* said when it was found */
    errint error = content_hold(held, extent->object, &backing);
    if (error) {
        log_error("inode %llu: object %016llx of bytes %lld to %lld cannot be opened: %s",
                  (unsigned long long)node->ino, (unsigned long long)extent->object,
                  (long long)extent->offset, (long long)(extent->offset + extent->length), strerror(-error));
        return -EIO;
    }
    ssize_t got = way == CONTENT_WIDENED ? content_read_sealed(fs, backing, to, piece->length, at)
                                         : transfer_read_some(backing->fd, to, piece->length, at);
    if (got >= 0 && (size_t)got != piece->length)
        log_error("inode %llu: object %016llx ends at %lld, expected at least %lld bytes",
                  (unsigned long long)node->ino, (unsigned long long)extent->object, (long long)(at + got),
                  (long long)(at + (int64_t)piece->length));
    if (got < 0)
        return (errint)got;
    return (size_t)got == piece->length ? 0 : -EIO;
}

/* The next piece of the range, from the extent `*index` on, which goes behind it. */
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

/* The longest piece of the range; its length is 0 when no extent lies there. The others are announced. */
static struct content_piece content_choose_longest(struct content_held *held, const struct node *node,
                                                   size_t first, int64_t offset, int64_t end)
{
    struct content_piece piece, longest = {0};
    for (size_t i = first; content_next_piece(node, &i, offset, end, &piece);) {
        if (piece.length > longest.length)
            longest = piece;
    }
    for (size_t i = first; content_next_piece(node, &i, offset, end, &piece);) {
        if (piece.extent != longest.extent)
            content_announce_piece(held, &piece);
    }
    return longest;
}

/*
 * The bytes are put so that the longest piece lies in the buffer as it does on the disk: it is not copied. It
 * is read first, as that overwrites what is around it. What no extent covers is zero, unless it was shed.
 */
static ssize_t content_read_extents(struct filesystem *fs, struct node *node, char *buffer, size_t size,
                                    int64_t offset, char **data)
{
    if (offset >= node->size)
        return 0;
    int64_t end = node->size - offset < (int64_t)size ? node->size : offset + (int64_t)size, done = offset;
    if (node->shed && !node_extents_cover(node, offset, end - offset))
        return -EIO;
    size_t first = node_find_extent(node, offset);
    __attribute__((cleanup(content_held_release))) struct content_held held = {.fs = fs};
    struct content_piece piece, longest = content_choose_longest(&held, node, first, offset, end);
    errint error = 0;
    if (longest.length > 0) {
        *data = buffer + content_lead(content_piece_at(&longest) - (longest.offset - offset));
        error = content_read_piece(&held, node, &longest, *data + (longest.offset - offset), CONTENT_WIDENED);
    }
    for (size_t i = first; !error && content_next_piece(node, &i, offset, end, &piece);) {
        memset(*data + (done - offset), 0, (size_t)(piece.offset - done));
        if (piece.extent != longest.extent)
            error =
                content_read_piece(&held, node, &piece, *data + (piece.offset - offset), CONTENT_BUFFERED);
        done = piece.offset + (int64_t)piece.length;
    }
    if (error)
        return error;
    memset(*data + (done - offset), 0, (size_t)(end - done));
    return end - offset;
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
    case META_OBJECT: return transfer_read_some(node->backing->fd, buffer, size, offset);
    case META_EXTENTS: break;
    }
    if (node->backing) {
        if (damage_touches(fs, node->backing->object, offset, (int64_t)size))
            return -EIO;
        *data = buffer + content_lead(offset);
        ssize_t got = content_read_sealed(fs, node->backing, *data, size, offset);
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

errint content_read_all(struct filesystem *fs, struct node *node, char *scratch, char *to, size_t length,
                        int64_t offset, bool (*stops)(struct filesystem *fs))
{
    while (length > 0) {
        size_t part = length < FS_MAX_WRITE ? length : FS_MAX_WRITE;
        char *data;
        if (stops(fs))
            return -ECANCELED;
        ssize_t got = content_read(fs, node, scratch, part, offset, &data);
        if (got <= 0)
            return got < 0 ? (errint)got : -EIO;
        memcpy(to, data, (size_t)got);
        to += got;
        offset += got;
        length -= (size_t)got;
    }
    return 0;
}
