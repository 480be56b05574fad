/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extents: which range of which object each range of a file is.
 *
 * The rows of a file never overlap, and no two neighbours continue each other: they would be one row.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "meta/internal.h"

#define EXTENT_COLUMNS "file_offset, length, object, object_offset"

static int64_t extent_end(const struct meta_extent *extent)
{
    return extent->offset + extent->length;
}

/* What lies from file offset `from` on in an extent that covers it. */
static struct meta_extent extent_tail(const struct meta_extent *extent, int64_t from)
{
    int64_t skipped = from - extent->offset;
    return (struct meta_extent){from, extent->length - skipped, extent->object,
                                extent->object_offset + skipped};
}

static bool extent_continues(const struct meta_extent *first, const struct meta_extent *second)
{
    return extent_end(first) == second->offset && first->object == second->object &&
           first->object_offset + first->length == second->object_offset;
}

/* -- lists ------------------------------------------------------------------------------------------------
 */

void extent_list_release(struct extent_list *list)
{
    free(list->at);
}

errint extent_list_append(struct extent_list *list, const struct meta_extent *extent)
{
    if (!grow_reserve(list->at, list->capacity, list->count + 1))
        return -ENOMEM;
    list->at[list->count++] = *extent;
    return 0;
}

errint extent_list_join(struct extent_list *list, const struct meta_extent *extent)
{
    struct meta_extent *last = list->count ? &list->at[list->count - 1] : NULL;
    if (!last || !extent_continues(last, extent))
        return extent_list_append(list, extent);
    last->length += extent->length;
    return 0;
}

int64_t extent_list_bytes(const struct extent_list *list)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < list->count; i++)
        bytes += list->at[i].length;
    return bytes;
}

/* -- rows -------------------------------------------------------------------------------------------------
 */

static int extent_next(struct db_rows *rows, struct meta_extent *out)
{
    int found = db_next(rows);
    if (found > 0)
        *out = (struct meta_extent){db_integer(rows, 0), db_integer(rows, 1), (uint64_t)db_integer(rows, 2),
                                    db_integer(rows, 3)};
    return found;
}

/* The last extent that begins before `offset`; -ENOENT. */
static errint extent_find_before(struct meta *meta, uint64_t ino, int64_t offset, struct meta_extent *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " EXTENT_COLUMNS " FROM extent WHERE ino = $1 AND file_offset < $2"
                             " ORDER BY file_offset DESC LIMIT 1",
                             DB_INTEGER(ino), DB_INTEGER(offset));
    int found = error ? error : extent_next(&rows, out);
    return found > 0 ? 0 : found < 0 ? found : -ENOENT;
}

/* The extent that begins at `offset`; -ENOENT. */
static errint extent_find_at(struct meta *meta, uint64_t ino, int64_t offset, struct meta_extent *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " EXTENT_COLUMNS " FROM extent WHERE ino = $1 AND file_offset = $2",
                             DB_INTEGER(ino), DB_INTEGER(offset));
    int found = error ? error : extent_next(&rows, out);
    return found > 0 ? 0 : found < 0 ? found : -ENOENT;
}

static errint extent_insert(struct meta *meta, uint64_t ino, const struct meta_extent *extent)
{
    return db_run(meta->db,
                  "INSERT INTO extent (ino, file_offset, length, object, object_offset)"
                  " VALUES ($1, $2, $3, $4, $5)",
                  DB_INTEGER(ino), DB_INTEGER(extent->offset), DB_INTEGER(extent->length),
                  DB_INTEGER(extent->object), DB_INTEGER(extent->object_offset));
}

static errint extent_set_length(struct meta *meta, uint64_t ino, int64_t offset, int64_t length)
{
    return db_run(meta->db, "UPDATE extent SET length = $1 WHERE ino = $2 AND file_offset = $3",
                  DB_INTEGER(length), DB_INTEGER(ino), DB_INTEGER(offset));
}

static errint extent_delete(struct meta *meta, uint64_t ino, int64_t from, int64_t to)
{
    return db_run(meta->db, "DELETE FROM extent WHERE ino = $1 AND file_offset >= $2 AND file_offset < $3",
                  DB_INTEGER(ino), DB_INTEGER(from), DB_INTEGER(to));
}

/* -- cutting and putting ----------------------------------------------------------------------------------
 */

/* The part of extents_cut that concerns extents which begin in [from, to). */
static errint extents_cut_inside(struct meta *meta, uint64_t ino, int64_t from, int64_t to,
                                 struct ids *touched)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " EXTENT_COLUMNS " FROM extent WHERE ino = $1 AND file_offset >= $2"
                             " AND file_offset < $3 ORDER BY file_offset",
                             DB_INTEGER(ino), DB_INTEGER(from), DB_INTEGER(to));
    if (error)
        return error;
    struct meta_extent extent = {0};
    uint64_t noted = 0;
    int found;
    while ((found = extent_next(&rows, &extent)) > 0) {
        if (extent.object == noted)
            continue;
        noted = extent.object;
        error = ids_append(touched, noted);
        if (error)
            return error;
    }
    db_finish(&rows);
    if (found < 0 || extent.length == 0)
        return found;
    error = extent_delete(meta, ino, from, to);
    if (error || extent_end(&extent) <= to)
        return error;
    extent = extent_tail(&extent, to);
    return extent_insert(meta, ino, &extent);
}

errint extents_cut(struct meta *meta, uint64_t ino, int64_t from, int64_t to, struct ids *touched)
{
    struct meta_extent before;
    errint error = extent_find_before(meta, ino, from, &before);
    if (error && error != -ENOENT)
        return error;
    if (!error && extent_end(&before) > from) {
        error = extent_set_length(meta, ino, before.offset, from - before.offset);
        if (!error)
            error = ids_append(touched, before.object);
        if (!error && extent_end(&before) > to) {
            struct meta_extent rest = extent_tail(&before, to);
            return extent_insert(meta, ino, &rest);
        }
        if (error)
            return error;
    }
    return extents_cut_inside(meta, ino, from, to, touched);
}

errint extents_put(struct meta *meta, uint64_t ino, const struct meta_extent *extent)
{
    struct meta_extent before, after, joined = *extent;
    errint error = extent_find_at(meta, ino, extent_end(extent), &after);
    if (error && error != -ENOENT)
        return error;
    if (!error && extent_continues(extent, &after)) {
        joined.length += after.length;
        error = extent_delete(meta, ino, after.offset, after.offset + 1);
        if (error)
            return error;
    }
    error = extent_find_before(meta, ino, extent->offset, &before);
    if (error && error != -ENOENT)
        return error;
    if (!error && extent_continues(&before, extent))
        return extent_set_length(meta, ino, before.offset, before.length + joined.length);
    return extent_insert(meta, ino, &joined);
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

errint meta_extents(struct meta *meta, uint64_t ino, struct meta_extent **out, size_t *count)
{
    *out = NULL;
    *count = 0;
    META_LOCKED(meta);
    struct meta_inode inode;
    errint error = inode_load_file(meta, ino, &inode);
    if (error || inode.kind != META_EXTENTS)
        return error;
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows,
                      "SELECT " EXTENT_COLUMNS " FROM extent WHERE ino = $1 ORDER BY file_offset",
                      DB_INTEGER(ino));
    if (error)
        return error;
    cleanup_extents struct extent_list list = {0};
    struct meta_extent extent;
    int found;
    while ((found = extent_next(&rows, &extent)) > 0) {
        error = extent_list_append(&list, &extent);
        if (error)
            return error;
    }
    if (found < 0)
        return found;
    *count = list.count;
    *out = steal_pointer(list.at);
    return 0;
}

errint extents_collect(struct meta *meta, uint64_t ino, int64_t from, int64_t to, struct extent_list *out)
{
    struct meta_extent extent;
    errint error = extent_find_before(meta, ino, from, &extent);
    if (error && error != -ENOENT)
        return error;
    int64_t start = error ? from : extent.offset;
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows,
                      "SELECT " EXTENT_COLUMNS " FROM extent WHERE ino = $1 AND file_offset >= $2"
                      " AND file_offset < $3 ORDER BY file_offset",
                      DB_INTEGER(ino), DB_INTEGER(start), DB_INTEGER(to));
    if (error)
        return error;
    int found;
    while ((found = extent_next(&rows, &extent)) > 0) {
        if (extent_end(&extent) <= from)
            continue;
        if (extent.offset < from)
            extent = extent_tail(&extent, from);
        if (extent_end(&extent) > to)
            extent.length = to - extent.offset;
        error = extent_list_append(out, &extent);
        if (error)
            return error;
    }
    return found;
}

/* -- mapping ----------------------------------------------------------------------------------------------
 */

static errint extents_check_range(int64_t offset, int64_t length)
{
    int64_t end;
    if (offset < 0 || length <= 0)
        return -EINVAL;
    return __builtin_add_overflow(offset, length, &end) ? -EFBIG : 0;
}

/* A file that can be mapped: -EINVAL when its bytes are kept in another way. */
static errint extents_load_file(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load_file(meta, ino, out);
    return error || out->kind == META_NONE || out->kind == META_EXTENTS ? error : -EINVAL;
}

/* One whose bytes may be replaced: not while some are given up, since it would keep its gaps. */
static errint extents_load_target(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = extents_load_file(meta, ino, out);
    return !error && (out->state & META_SHED) ? -EIO : error;
}

/* The row of a file whose bytes from `offset` on changed, and that now reaches to `end` at least. */
static errint extents_update_file(struct meta *meta, const struct meta_inode *before, int64_t offset,
                                  int64_t end, int64_t now)
{
    struct meta_inode after = *before;
    after.kind = META_EXTENTS;
    after.state |= META_DIRTY;
    after.mtime = after.ctime = now;
    if (after.size < end)
        after.size = end;
    if (after.synced_size > offset)
        after.synced_size = offset;
    return inode_update(meta, before, &after);
}

static errint extents_map(struct change *change, uint64_t ino, const struct meta_extent *wanted, bool extend,
                          int64_t now)
{
    struct meta *meta = change->meta;
    struct meta_inode inode;
    cleanup_ids struct ids touched = {0};
    struct meta_extent extent = *wanted;
    errint error = extents_load_target(meta, ino, &inode);
    if (error)
        return error;
    /* What lies beyond the end must not appear when the file grows later. */
    if (!extend && extent_end(&extent) > inode.size)
        extent.length = inode.size - extent.offset;
    if (extent.length > 0) {
        error = extents_cut(meta, ino, extent.offset, extent_end(&extent), &touched);
        if (!error && extent.object)
            error = object_note(meta, extent.object, extent.object_offset + extent.length);
        if (!error && extent.object)
            error = extents_put(meta, ino, &extent);
        if (!error)
            error = object_release_all(change, &touched);
    }
    return error ? error
                 : extents_update_file(meta, &inode, extent.offset, extend ? extent_end(&extent) : 0, now);
}

errint meta_extents_map(struct meta *meta, uint64_t ino, const struct meta_extent *extent, bool extend,
                        int64_t now, struct ids *freed)
{
    errint error = extents_check_range(extent->offset, extent->length);
    if (!error && extent->object)
        error = extents_check_range(extent->object_offset, extent->length);
    if (error)
        return error;
    struct change change = {.meta = meta, .ino = ino, .freed = freed};
    while (change_next(&change))
        change.error = extents_map(&change, ino, extent, extend, now);
    return change.error;
}

/* -- cloning ----------------------------------------------------------------------------------------------
 */

struct extents_clone {
    uint64_t from, to;
    int64_t from_offset, to_offset, length;
    int64_t now;
};

static errint extents_clone(struct change *change, const struct extents_clone *clone)
{
    struct meta *meta = change->meta;
    struct meta_inode from, to;
    cleanup_extents struct extent_list pieces = {0};
    cleanup_ids struct ids touched = {0};
    errint error = extents_load_file(meta, clone->from, &from);
    if (!error && clone->from_offset + clone->length > from.size)
        error = -EINVAL;
    if (!error)
        error = extents_load_target(meta, clone->to, &to);
    if (!error)
        error = extents_collect(meta, clone->from, clone->from_offset, clone->from_offset + clone->length,
                                &pieces);
    /* What was given up would become a hole. */
    if (!error && (from.state & META_SHED) && extent_list_bytes(&pieces) < clone->length)
        error = -EIO;
    if (!error)
        error = extents_cut(meta, clone->to, clone->to_offset, clone->to_offset + clone->length, &touched);
    for (size_t i = 0; !error && i < pieces.count; i++) {
        pieces.at[i].offset += clone->to_offset - clone->from_offset;
        error = extents_put(meta, clone->to, &pieces.at[i]);
    }
    if (!error)
        error = object_release_all(change, &touched);
    return error ? error
                 : extents_update_file(meta, &to, clone->to_offset, clone->to_offset + clone->length,
                                       clone->now);
}

errint meta_clone(struct meta *meta, uint64_t from, int64_t from_offset, uint64_t to, int64_t to_offset,
                  int64_t length, int64_t now, struct ids *freed)
{
    struct extents_clone clone = {from, to, from_offset, to_offset, length, now};
    errint error = extents_check_range(from_offset, length);
    if (!error)
        error = extents_check_range(to_offset, length);
    if (error)
        return error;
    struct change change = {.meta = meta, .ino = to, .freed = freed};
    while (change_next(&change))
        change.error = extents_clone(&change, &clone);
    return change.error;
}

/* -- truncating -------------------------------------------------------------------------------------------
 */

/* Cuts what is stored; growing needs nothing stored. */
static errint extents_cut_file(struct change *change, struct meta_inode *inode, int64_t size)
{
    cleanup_ids struct ids touched = {0};
    if (size == 0)
        return content_clear(change, inode);
    if (inode->kind == META_NONE)
        inode->kind = META_EXTENTS; /* a hole is an extent that is not there */
    if (size >= inode->size)
        return 0;
    if (inode->kind == META_INLINE)
        return content_cut(change->meta, inode->ino, size);
    errint error = extents_cut(change->meta, inode->ino, size, INT64_MAX, &touched);
    return error ? error : object_release_all(change, &touched);
}

static errint extents_truncate(struct change *change, uint64_t ino, int64_t size, int64_t now)
{
    struct meta_inode before;
    errint error = inode_load_file(change->meta, ino, &before);
    if (!error && before.kind == META_OBJECT)
        error = -EINVAL;
    if (!error && (before.state & META_SHED) && size > 0)
        error = -EIO;
    if (error)
        return error;
    struct meta_inode after = before;
    error = extents_cut_file(change, &after, size);
    if (!error && size > 0)
        error = stand_in_truncate(change, ino, size);
    if (error)
        return error;
    after.size = size;
    after.mtime = after.ctime = now;
    if (!(after.state & META_DIRTY) || after.synced_size > size)
        after.synced_size = size;
    if (size == 0)
        after.state &= ~(uint32_t)(META_TORN | META_SHED);
    return inode_update(change->meta, &before, &after);
}

errint meta_truncate(struct meta *meta, uint64_t ino, int64_t size, int64_t now, uint64_t unique,
                     struct ids *freed)
{
    if (size < 0)
        return -EINVAL;
    struct change change = {.meta = meta, .request = unique, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = extents_truncate(&change, ino, size, now);
    return change.error;
}
