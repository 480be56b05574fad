/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up bytes of files that stay. */
#include "meta/shed.h"

#include <errno.h>

#include "meta/internal.h"

/* -- what there is ----------------------------------------------------------------------------------------
 */

/* *row: the file as it is now. */
static errint shed_check(struct meta *meta, const struct meta_shed *shed, struct meta_inode *row)
{
    const struct meta_inode *file = shed->file;
    errint error = inode_load_file(meta, file->ino, row);
    if (error)
        return error;
    if (row->kind == META_OBJECT || (row->state & (META_DIRTY | META_TORN)) || row->size != file->size ||
        row->mtime != file->mtime || row->ctime != file->ctime)
        return -EBUSY;
    /* Another name of it may be in a checkpoint that stays whole, or in none. */
    bool gives = row->kind == META_EXTENTS && !(row->state & (META_SHED | META_ASSEMBLED)) && row->nlink == 1;
    return gives ? 0 : -ENODATA;
}

static errint shed_check_holes(struct meta *meta, const struct meta_inode *row)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT sum(length) FROM extent WHERE ino = $1", DB_INTEGER(row->ino));
    int found = error ? error : db_next(&rows);
    if (found < 0)
        return found;
    return found > 0 && db_integer(&rows, 0) == row->size ? 0 : -ENODATA;
}

/* Whether nobody else has the bytes, and what is dead of their object can be given back: 1, 0, an error. */
static int shed_is_own(struct meta *meta, uint64_t ino, const struct meta_extent *extent)
{
    uint8_t root[16];
    errint error = object_root(meta, extent->object, root);
    if (error)
        return error == -ENOENT ? 0 : error;
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows,
                      "SELECT 1 FROM extent WHERE object = $1 AND object_offset < $2"
                      " AND object_offset + length > $3 AND ino <> $4 LIMIT 1",
                      DB_INTEGER(extent->object), DB_INTEGER(extent->object_offset + extent->length),
                      DB_INTEGER(extent->object_offset), DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    return found < 0 ? found : !found;
}

/* The same of all that a range of the file is made of. */
static int shed_is_own_range(struct meta *meta, uint64_t ino, const struct meta_shed_range *range)
{
    cleanup_extents struct extent_list list = {0};
    errint error = extents_collect(meta, ino, range->offset, range->offset + range->length, &list);
    int own = error ? error : 1;
    for (size_t i = 0; i < list.count && own > 0; i++)
        own = shed_is_own(meta, ino, &list.at[i]);
    return own;
}

/* -- giving up --------------------------------------------------------------------------------------------
 */

/* Calls `take` for each range that is worth it. */
static errint shed_each(struct meta *meta, const struct meta_shed *shed,
                        errint (*take)(void *context, const struct meta_shed_range *range), void *context)
{
    const struct meta_shed_range whole = {0, shed->file->size};
    if (shed->count == 0)
        return take(context, &whole);
    errint error = shed_check_holes(meta, shed->file);
    for (size_t i = 0; i < shed->count && !error; i++) {
        int own = shed_is_own_range(meta, shed->file->ino, &shed->ranges[i]);
        error = own > 0 ? take(context, &shed->ranges[i]) : own;
    }
    return error;
}

static errint shed_add_up(void *context, const struct meta_shed_range *range)
{
    int64_t *bytes = context;
    *bytes += range->length;
    return 0;
}

errint meta_shed_measure(struct meta *meta, const struct meta_shed *shed, int64_t *bytes)
{
    META_LOCKED(meta);
    struct meta_inode row;
    *bytes = 0;
    errint error = shed_check(meta, shed, &row);
    if (!error)
        error = shed_each(meta, shed, shed_add_up, bytes);
    return error == -EBUSY || error == -ENODATA || error == -ENOENT ? 0 : error;
}

/* A file while its bytes are given up. */
struct shed_cut {
    struct meta *meta;
    uint64_t ino;
    int64_t bytes;
    struct ids touched;
};

static errint shed_cut(void *context, const struct meta_shed_range *range)
{
    struct shed_cut *cut = context;
    cut->bytes += range->length;
    return extents_cut(cut->meta, cut->ino, range->offset, range->offset + range->length, &cut->touched);
}

static errint shed_file(struct change *change, const struct meta_shed *shed)
{
    struct shed_cut cut = {.meta = change->meta, .ino = shed->file->ino};
    struct meta_inode before;
    errint error = shed_check(change->meta, shed, &before);
    if (!error)
        error = shed_each(change->meta, shed, shed_cut, &cut);
    if (!error && cut.bytes == 0)
        error = -ENODATA;
    if (!error)
        error = object_release_all(change, &cut.touched);
    ids_release(&cut.touched);
    if (error)
        return error;
    struct meta_inode after = before;
    after.state |= META_SHED;
    return inode_update(change->meta, &before, &after);
}

errint meta_shed(struct meta *meta, const struct meta_shed *shed, struct ids *freed)
{
    struct change change = {.meta = meta, .ino = shed->file->ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = shed_file(&change, shed);
    return change.error;
}
