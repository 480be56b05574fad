/* SPDX-License-Identifier: Apache-2.0 */
/* Re-pointing extents to another place that has the same bytes: of one file, or of all files of an object. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/internal.h"
#include "meta/sharing.h"

/* The first move of the object that ends behind `offset`; `count` when there is none. */
static size_t repoint_find(const struct meta_move *moves, size_t count, uint64_t object, int64_t offset)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct meta_move *move = &moves[middle];
        bool before =
            move->object < object || (move->object == object && move->offset + move->length <= offset);
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && moves[low].object == object ? low : count;
}

/* What meta_repoint is asked for. */
struct repoint {
    uint64_t ino, to;
    const uint8_t *to_root;
    const struct meta_move *moves;
    size_t count;
};

/* Appends what the extent becomes. */
static errint repoint_extent(struct extent_list *list, struct meta_extent extent,
                             const struct repoint *repoint, int64_t *moved)
{
    const struct meta_move *moves = repoint->moves;
    const size_t count = repoint->count;
    errint error = 0;
    while (!error && extent.length > 0) {
        size_t next = repoint_find(moves, count, extent.object, extent.object_offset);
        const struct meta_move *move = next < count ? &moves[next] : NULL;
        struct meta_extent piece = extent;
        if (!move || move->offset >= extent.object_offset + extent.length) {
            move = NULL;
        } else if (move->offset > extent.object_offset) {
            piece.length = move->offset - extent.object_offset;
            move = NULL;
        } else {
            int64_t rest = move->offset + move->length - extent.object_offset;
            if (rest < piece.length)
                piece.length = rest;
        }
        extent.offset += piece.length;
        extent.object_offset += piece.length;
        extent.length -= piece.length;
        if (move) {
            piece.object_offset = move->to_offset + (piece.object_offset - move->offset);
            piece.object = repoint->to;
            *moved += piece.length;
        }
        error = extent_list_join(list, &piece);
    }
    return error;
}

/* The file's extents as they are to be, and the objects that they were of before. */
static errint repoint_compute(struct meta *meta, const struct repoint *repoint, struct extent_list *list,
                              struct ids *touched, int64_t *moved)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT file_offset, length, object, object_offset FROM extent WHERE ino = $1"
                             " ORDER BY file_offset",
                             DB_INTEGER(repoint->ino));
    if (error)
        return error;
    int found;
    while ((found = db_next(&rows)) > 0) {
        const struct meta_extent extent = {db_integer(&rows, 0), db_integer(&rows, 1),
                                           (uint64_t)db_integer(&rows, 2), db_integer(&rows, 3)};
        int64_t before = *moved;
        error = repoint_extent(list, extent, repoint, moved);
        if (!error && *moved > before &&
            (touched->count == 0 || touched->at[touched->count - 1] != extent.object))
            error = ids_append(touched, extent.object);
        if (error)
            return error;
    }
    return found;
}

static errint repoint_store(struct meta *meta, uint64_t ino, const struct extent_list *list)
{
    errint error = db_run(meta->db, "DELETE FROM extent WHERE ino = $1", DB_INTEGER(ino));
    for (size_t i = 0; !error && i < list->count; i++) {
        const struct meta_extent *extent = &list->at[i];
        error = db_run(meta->db,
                       "INSERT INTO extent (ino, file_offset, length, object, object_offset)"
                       " VALUES ($1, $2, $3, $4, $5)",
                       DB_INTEGER(ino), DB_INTEGER(extent->offset), DB_INTEGER(extent->length),
                       DB_INTEGER(extent->object), DB_INTEGER(extent->object_offset));
    }
    return error;
}

static errint repoint_check_root(struct meta *meta, uint64_t object, const uint8_t *expected)
{
    uint8_t root[META_ROOT_BYTES];
    errint error = object_root(meta, object, root);
    if (error)
        return error == -ENOENT ? -EBUSY : error;
    return memcmp(root, expected, sizeof root) == 0 ? 0 : -EBUSY;
}

/*
 * Some file still is all of the object. Else what only a deleted or changed file had of it is dead already:
 * it may be punched, or the object removed, at any moment.
 */
static errint repoint_check_alive(struct meta *meta, uint64_t object)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT 1 FROM extent e JOIN object o ON o.id = e.object"
                             " WHERE e.object = $1 AND e.object_offset = 0 AND e.length = o.size LIMIT 1",
                             DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    return found > 0 ? 0 : found < 0 ? found : -EBUSY;
}

/*
 * The objects that the file has something of are what they were when they were compared. One that was written
 * since has another root, or none.
 */
static errint repoint_check(struct meta *meta, const struct repoint *repoint, const struct ids *touched)
{
    errint error = repoint_check_root(meta, repoint->to, repoint->to_root);
    if (!error)
        error = repoint_check_alive(meta, repoint->to);
    int damaged = error ? error : object_is_damaged(meta, repoint->to);
    if (damaged)
        return damaged > 0 ? -EBUSY : damaged;
    for (size_t i = 0; !error && i < touched->count; i++) {
        size_t first = repoint_find(repoint->moves, repoint->count, touched->at[i], 0);
        error = repoint_check_root(meta, touched->at[i], repoint->moves[first].root);
    }
    return error;
}

static errint repoint_body(struct change *change, const struct repoint *repoint, int64_t *moved)
{
    struct meta *meta = change->meta;
    cleanup_extents struct extent_list list = {0};
    cleanup_ids struct ids touched = {0};
    struct meta_inode inode;
    *moved = 0;
    errint error = inode_load_file(meta, repoint->ino, &inode);
    if (!error && inode.kind != META_EXTENTS)
        error = -EBUSY;
    if (!error)
        error = repoint_compute(meta, repoint, &list, &touched, moved);
    change->nothing = *moved == 0;
    if (error || *moved == 0)
        return error;
    error = repoint_check(meta, repoint, &touched);
    if (!error)
        error = repoint_store(meta, repoint->ino, &list);
    return error ? error : object_release_all(change, &touched);
}

errint meta_repoint(struct meta *meta, uint64_t ino, uint64_t to, const uint8_t to_root[META_ROOT_BYTES],
                    const struct meta_move *moves, size_t count, int64_t *moved, struct ids *freed)
{
    const struct repoint repoint = {ino, to, to_root, moves, count};
    struct change change = {.meta = meta, .ino = ino, .freed = freed};
    while (change_next(&change))
        change.error = repoint_body(&change, &repoint, moved);
    return change.error;
}

/* -- all files of an object -------------------------------------------------------------------------------
 */

static errint repack_check_sealed(struct meta *meta, const struct meta_repack *repack)
{
    errint error = object_check_sealed(meta, repack->from);
    if (!error)
        error = repoint_check_root(meta, repack->from, repack->from_root);
    if (!error)
        error = repoint_check_root(meta, repack->to, repack->to_root);
    int damaged = error ? error : object_is_damaged(meta, repack->from);
    return damaged > 0 ? -EBUSY : damaged;
}

/* 0 when what is alive is what was copied. */
static errint repack_check_live(struct meta *meta, const struct meta_repack *repack)
{
    cleanup_free struct meta_range *live = NULL;
    size_t count;
    errint error = object_live_ranges(meta, repack->from, &live, &count);
    if (error)
        return error;
    bool same = count == repack->count;
    for (size_t i = 0; same && i < count; i++)
        same = live[i].offset == repack->moves[i].offset && live[i].length == repack->moves[i].length;
    return same ? 0 : -EBUSY;
}

/* 0 when no other file has something of it: nobody keeps one that the caller does not know as it is. */
static errint repack_check_files(struct meta *meta, const struct meta_repack *repack)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT DISTINCT ino FROM extent WHERE object = $1 ORDER BY ino",
                  DB_INTEGER(repack->from));
    if (error)
        return error;
    size_t count = 0;
    int found;
    bool same = true;
    for (; same && (found = db_next(&rows)) > 0; count++)
        same = count < repack->files->count && repack->files->at[count] == (uint64_t)db_integer(&rows, 0);
    if (same && found < 0)
        return found;
    return same && count == repack->files->count ? 0 : -EBUSY;
}

static errint repack_file(struct meta *meta, const struct meta_repack *repack, uint64_t ino)
{
    const struct repoint repoint = {
        .ino = ino, .to = repack->to, .moves = repack->moves, .count = repack->count};
    cleanup_extents struct extent_list list = {0};
    cleanup_ids struct ids touched = {0};
    int64_t moved = 0;
    errint error = repoint_compute(meta, &repoint, &list, &touched, &moved);
    return error ? error : repoint_store(meta, ino, &list);
}

static errint repack_body(struct change *change, const struct meta_repack *repack)
{
    struct meta *meta = change->meta;
    errint error = repack_check_sealed(meta, repack);
    if (!error)
        error = repack_check_live(meta, repack);
    if (!error)
        error = repack_check_files(meta, repack);
    for (size_t i = 0; !error && i < repack->files->count; i++)
        error = repack_file(meta, repack, repack->files->at[i]);
    /* What was looked for elsewhere was looked for: the bytes are the same. */
    if (!error)
        error = db_run(meta->db,
                       "UPDATE summed SET shared = (SELECT s.shared FROM summed s WHERE s.object = $1)"
                       " WHERE object = $2",
                       DB_INTEGER(repack->from), DB_INTEGER(repack->to));
    return error ? error : object_release(change, repack->from);
}

errint meta_repack(struct meta *meta, const struct meta_repack *repack, struct ids *freed)
{
    struct change change = {.meta = meta, .freed = freed};
    while (change_next(&change))
        change.error = repack_body(&change, repack);
    return change.error;
}
