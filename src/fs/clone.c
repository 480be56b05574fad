/* SPDX-License-Identifier: Apache-2.0 */
/* Copies inside the filesystem that need not move bytes. */
#include "fs/clone.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/node_extents.h"
#include "fs/seal.h"
#include "fs/writeback.h"

/* One call copies at most this much, so that no lock is held long and a signal is heard. */
enum {
    CLONE_COPY_MAX = 16 << 20,
    CLONE_COMPARE = 1 << 20,
    CLONE_SHARE_MIN = 512, /* shorter ranges cost less than their rows */
};

/* The destination as rows of extents: what its own object holds so far is sealed as it is. */
static errint clone_prepare(struct filesystem *fs, struct node *to)
{
    if (to->kind == META_INLINE) {
        errint error = content_make_writable(fs, to);
        if (error)
            return error;
    }
    if (to->kind != META_OBJECT)
        return 0;
    struct meta_inode row;
    errint error = meta_get(fs->meta, to->ino, &row);
    if (!error)
        error = node_refresh_row(to, &row);
    cleanup_ids struct ids freed = {0};
    if (!error)
        error = meta_seal(fs->meta, to->ino, row.size, row.mtime, row.ctime, &freed);
    if (error)
        return error;
    to->kind = row.size ? META_EXTENTS : META_NONE;
    to->size = row.size;
    if (!row.size)
        node_drop_content(fs, to);
    discard_objects(fs, &freed);
    return 0;
}

/* What the destination is made of now: of a file that is put together of many ranges the earlier ones are not
 * read again. */
static void clone_note(struct node *from, int64_t from_offset, struct node *to, int64_t to_offset,
                       int64_t length)
{
    int64_t end = from_offset + length;
    if (node_find_extent(to, to_offset) < to->extent_count)
        node_forget_extents(to);
    for (size_t i = node_find_extent(from, from_offset); i < from->extent_count && to->extents; i++) {
        struct meta_extent piece = from->extents[i];
        if (piece.offset >= end)
            break;
        int64_t cut = piece.offset < from_offset ? from_offset - piece.offset : 0;
        piece.offset += cut;
        piece.object_offset += cut;
        piece.length -= cut;
        if (piece.length > end - piece.offset)
            piece.length = end - piece.offset;
        piece.offset += to_offset - from_offset;
        node_note_extent(to, &piece);
    }
}

/* One object is not the whole file any more, or not yet: which one is, is found when it is loaded again. */
static errint clone_adopt(struct filesystem *fs, struct node *to, bool whole)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, to->ino, &row);
    if (error)
        return error;
    if (!whole) {
        backing_put(&fs->backings, steal_pointer(to->backing));
        to->copy = (struct node_copy){0};
        to->kind = row.kind;
        to->size = row.size;
        to->dirty = row.state & META_DIRTY;
        return 0;
    }
    struct backing *overlay = steal_pointer(to->overlay);
    error = node_adopt_row(fs, to, &row);
    to->overlay = overlay;
    return error;
}

static errint clone_rows(struct filesystem *fs, struct node *from, int64_t from_offset, struct node *to,
                         int64_t to_offset, int64_t length)
{
    content_freeze(fs, from);
    errint error = clone_prepare(fs, to);
    bool replaces = to_offset < to->size;
    if (!error)
        error = node_extents(fs, from);
    if (!error)
        error = node_extents(fs, to);
    cleanup_ids struct ids freed = {0};
    if (!error)
        error = meta_clone(fs->meta, from->ino, from_offset, to->ino, to_offset, length, clock_file_time(),
                           &freed);
    if (!error) {
        clone_note(from, from_offset, to, to_offset, length);
        error = clone_adopt(fs, to, to_offset == 0 && from_offset == 0 && length == from->size);
    }
    if (error)
        return error;
    content_release(fs, to, &freed);
    if (replaces)
        discard_kick(fs);
    writeback_add(fs, to);
    return 0;
}

/* Shares blocks between the two objects where the disk can: 0, or -EOPNOTSUPP. */
static errint clone_reflink(struct filesystem *fs, const struct node *from, int64_t from_offset,
                            struct node *to, int64_t to_offset, int64_t length)
{
    if (!from->backing || to->kind != META_OBJECT)
        return -EOPNOTSUPP;
    cleanup_fd int fd = backing_writer(&fs->backings, to->backing);
    if (fd < 0)
        return fd;
    struct file_clone_range range = {
        .src_fd = from->backing->fd,
        .src_offset = (uint64_t)from_offset,
        .src_length = (uint64_t)length,
        .dest_offset = (uint64_t)to_offset,
    };
    return ioctl(fd, FICLONERANGE, &range) < 0 ? -EOPNOTSUPP : 0;
}

/* Copies bytes through memory, without a node's lock over the reads. */
static ssize_t clone_copy(struct filesystem *fs, struct node *from, int64_t from_offset, struct node *to,
                          int64_t to_offset, int64_t length)
{
    if (length > CLONE_COPY_MAX)
        length = CLONE_COPY_MAX;
    size_t room = length < CLONE_COMPARE
                      ? CONTENT_ALIGNMENT + (size_t)length / CONTENT_ALIGNMENT * CONTENT_ALIGNMENT
                      : CLONE_COMPARE;
    cleanup_free char *buffer = aligned_alloc(CONTENT_ALIGNMENT, room + 2 * CONTENT_ALIGNMENT);
    if (!buffer)
        return -ENOMEM;
    int64_t done = 0;
    while (done < length) {
        size_t want = length - done < CLONE_COMPARE ? (size_t)(length - done) : CLONE_COMPARE;
        char *data;
        ssize_t got = content_read(fs, from, buffer, want, from_offset + done, &data);
        if (got < 0)
            return done ? done : got;
        if (got == 0)
            break;
        errint error = content_write(fs, to, data, (size_t)got, to_offset + done);
        if (error)
            return done ? done : error;
        done += got;
    }
    return done;
}

/* Remembers what was copied, as long as it stays one run: what cp and shutil do. */
static void clone_remember(struct node *from, int64_t from_offset, struct node *to, int64_t to_offset,
                           int64_t length)
{
    struct node_copy *copy = &to->copy;
    bool follows = copy->length > 0 && copy->from == from->ino &&
                   from_offset == copy->from_offset + copy->length &&
                   to_offset == copy->offset + copy->length;
    if (follows)
        copy->length += length;
    else
        *copy = (struct node_copy){from->ino, from_offset, to_offset, length};
}

/* What was given up of a file is neither copied nor made a hole. */
static errint clone_check_shed(struct filesystem *fs, struct node *from, int64_t offset, int64_t length)
{
    errint error = from->shed ? node_extents(fs, from) : 0;
    return error || !from->shed || node_extents_cover(from, offset, length) ? error : -EIO;
}

ssize_t clone_range(struct filesystem *fs, struct node *from, int64_t from_offset, struct node *to,
                    int64_t to_offset, int64_t length)
{
    node_lock_two(from, to);
    int64_t size = content_size(from);
    errint error = size < 0 ? (errint)size : 0;
    if (!error && from_offset >= size) {
        node_unlock_two(from, to);
        return 0;
    }
    if (!error && length > size - from_offset)
        length = size - from_offset;
    if (!error)
        error = clone_check_shed(fs, from, from_offset, length);
    bool overlaps = from == to && from_offset < to_offset + length && to_offset < from_offset + length;
    if (!error && overlaps)
        error = -EINVAL;
    bool served = to->mode == NODE_DAEMON && to->passthrough == 0 && !content_is_mapped(to);
    bool done = false;
    if (!error && from != to && length >= CLONE_SHARE_MIN)
        seal_now(fs, from);
    bool sealed = from->kind == META_EXTENTS && from != to;
    if (!error && sealed && served && length >= CLONE_SHARE_MIN) {
        error = clone_rows(fs, from, from_offset, to, to_offset, length);
        done = !error;
    } else if (!error && sealed) {
        done = clone_reflink(fs, from, from_offset, to, to_offset, length) == 0;
    }
    node_unlock_two(from, to);
    if (error || done)
        return error ? error : (ssize_t)length;
    ssize_t copied = clone_copy(fs, from, from_offset, to, to_offset, length);
    if (copied > 0 && sealed) {
        node_lock(to);
        clone_remember(from, from_offset, to, to_offset, copied);
        node_unlock(to);
    }
    return copied;
}

/* -- giving back ------------------------------------------------------------------------------------------
 */

static bool clone_is_equal(struct filesystem *fs, struct node *a, int64_t a_offset, struct node *b,
                           int64_t b_offset, int64_t length)
{
    size_t room = CLONE_COMPARE + 2 * CONTENT_ALIGNMENT;
    cleanup_free char *one = aligned_alloc(CONTENT_ALIGNMENT, room);
    cleanup_free char *other = aligned_alloc(CONTENT_ALIGNMENT, room);
    if (!one || !other)
        return false;
    for (int64_t done = 0; done < length;) {
        size_t want = length - done < CLONE_COMPARE ? (size_t)(length - done) : CLONE_COMPARE;
        char *left, *right;
        ssize_t got = content_read(fs, a, one, want, a_offset + done, &left);
        if (got <= 0 || content_read(fs, b, other, (size_t)got, b_offset + done, &right) != got ||
            memcmp(left, right, (size_t)got) != 0)
            return false;
        done += got;
    }
    return true;
}

/* Both files as they were when they were compared: sealed, unopened for writing, unchanged. */
static bool clone_is_unchanged(struct filesystem *fs, struct node *node, const struct meta_inode *before)
{
    struct meta_inode now;
    return !node->gone && node->writers == 0 && node->kind == META_EXTENTS &&
           meta_get(fs->meta, node->ino, &now) == 0 && now.kind == META_EXTENTS && now.size == before->size &&
           now.mtime == before->mtime && now.ctime == before->ctime;
}

static void clone_share(struct filesystem *fs, struct node *from, struct node *to,
                        const struct node_copy *copy, const struct meta_inode *row)
{
    cleanup_ids struct ids freed = {0};
    content_freeze(fs, from);
    content_freeze(fs, to);
    errint error = meta_clone(fs->meta, from->ino, copy->from_offset, to->ino, copy->offset, copy->length,
                              row->mtime, &freed);
    struct meta_inode now = *row;
    if (!error)
        error = meta_set(fs->meta, to->ino, META_SET_MTIME | META_SET_CTIME, row, 0, &now);
    if (!error)
        error = node_adopt_row(fs, to, &now);
    if (error)
        log_warning("inode %llu: its copy of inode %llu stays a copy: %s", (unsigned long long)to->ino,
                    (unsigned long long)from->ino, strerror(-error));
    else
        writeback_add(fs, to);
    discard_objects(fs, &freed);
    discard_kick(fs);
}

void clone_give_back(struct filesystem *fs, struct node *to, const struct node_copy *copy)
{
    struct meta_inode from_row, to_row;
    if (copy->length < CLONE_SHARE_MIN || meta_get(fs->meta, copy->from, &from_row) < 0 ||
        meta_get(fs->meta, to->ino, &to_row) < 0 || from_row.kind != META_EXTENTS || copy->offset != 0 ||
        copy->length != to_row.size || from_row.uid != to_row.uid)
        return;
    struct node *from = node_get(fs, copy->from);
    if (!from)
        return;
    if (clone_is_equal(fs, from, copy->from_offset, to, copy->offset, copy->length)) {
        node_lock_two(from, to);
        if (node_load(fs, from) == 0 && clone_is_unchanged(fs, from, &from_row) &&
            clone_is_unchanged(fs, to, &to_row) && to->mode != NODE_PASSTHROUGH && !content_is_mapped(to))
            clone_share(fs, from, to, copy, &to_row);
        node_unlock_two(from, to);
    }
    node_put(fs, from);
}
