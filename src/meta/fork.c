/* SPDX-License-Identifier: Apache-2.0 */
/* A new inode that takes over another's names, for a file whose open readers must go on seeing the old bytes.
 */
#include <errno.h>
#include <string.h>

#include "meta/internal.h"

/* What the old inode keeps and the new one gets too. */
static errint fork_copy_rows(struct meta *meta, uint64_t from, uint64_t to)
{
    errint error = db_run(meta->db,
                          "INSERT INTO extent (ino, file_offset, length, object, object_offset)"
                          " SELECT $1, file_offset, length, object, object_offset FROM extent WHERE ino = $2",
                          DB_INTEGER(to), DB_INTEGER(from));
    if (!error)
        error = db_run(
            meta->db, "INSERT INTO xattr (ino, name, value) SELECT $1, name, value FROM xattr WHERE ino = $2",
            DB_INTEGER(to), DB_INTEGER(from));
    /* Stored bytes, which the names fall back on when the object's are lost, go with the names. */
    if (!error)
        error =
            db_run(meta->db, "UPDATE content SET ino = $1 WHERE ino = $2", DB_INTEGER(to), DB_INTEGER(from));
    /* As does what takes the place of unsynced ones. */
    return error ? error : stand_in_move(meta, from, to);
}

static errint fork_move_names(struct meta *meta, uint64_t from, uint64_t to)
{
    errint error =
        db_run(meta->db, "UPDATE name SET ino = $1 WHERE ino = $2", DB_INTEGER(to), DB_INTEGER(from));
    if (!error)
        error = db_run(meta->db, "UPDATE shadow SET successor = $1 WHERE successor = $2", DB_INTEGER(to),
                       DB_INTEGER(from));
    if (!error)
        error = db_run(meta->db, "UPDATE pin SET ino = $1 WHERE ino = $2", DB_INTEGER(to), DB_INTEGER(from));
    return error;
}

static errint fork_body(struct change *change, uint64_t ino, struct meta_inode *out)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    errint error = inode_load_file(meta, ino, &before);
    if (error)
        return error;
    if (before.nlink == 0)
        return -ENOENT;
    if (before.kind != META_EXTENTS)
        return -EBUSY;
    *out = before;
    error = change_take_number(meta, META_COUNTER_INO, &out->ino);
    if (!error)
        error = inode_insert(meta, out);
    if (!error)
        error = fork_copy_rows(meta, ino, out->ino);
    if (!error)
        error = fork_move_names(meta, ino, out->ino);
    struct meta_inode after = before;
    after.nlink = 0;
    return error ? error : inode_update(meta, &before, &after);
}

errint meta_fork(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = fork_body(&change, ino, out);
    return change.error;
}
