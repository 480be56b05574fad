/* SPDX-License-Identifier: Apache-2.0 */
/* Assembled files' names in their directories. */
#include "meta/beside.h"

#include <errno.h>
#include <string.h>

#include "meta/internal.h"

/* What an ordinary file's state has not. */
#define BESIDE_STATE (uint32_t)(META_ASSEMBLED | META_LENT)

/* -- names that come and go by themselves -----------------------------------------------------------------
 */

errint beside_show(struct change *change, uint64_t directory, const char *name,
                   const struct meta_inode *inode)
{
    struct meta_inode after = *inode;
    errint error = name_insert(change->meta, directory, name, strlen(name), inode->ino);
    if (error)
        return error == -EEXIST ? 0 : error;
    after.nlink++;
    return inode_update(change->meta, inode, &after);
}

errint beside_hide(struct change *change, uint64_t ino, bool *kept)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    *kept = false;
    errint error = db_run(meta->db,
                          "DELETE FROM name WHERE ino = $1 AND EXISTS (SELECT 1 FROM assembled a"
                          " WHERE a.ino = name.ino AND a.directory = name.parent AND a.name = name.name)",
                          DB_INTEGER(ino));
    if (error || db_changed(meta->db) == 0)
        return error;
    error = inode_load(meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    after.nlink--;
    *kept = after.nlink > 0;
    if (*kept)
        after.state &= ~BESIDE_STATE;
    return inode_update(meta, &before, &after);
}

static errint beside_hide_all(struct change *change)
{
    cleanup_ids struct ids inodes = {0};
    {
        cleanup_rows struct db_rows rows;
        errint error = db_select(change->meta->db, &rows,
                                 "SELECT a.ino FROM assembled a JOIN name n ON n.parent = a.directory"
                                 " AND n.name = a.name AND n.ino = a.ino");
        if (!error)
            error = rows_collect_ids(&rows, &inodes);
        if (error)
            return error;
    }
    errint error = 0;
    for (size_t i = 0; !error && i < inodes.count; i++) {
        bool kept;
        struct meta_inode inode;
        error = inode_load(change->meta, inodes.at[i], &inode);
        if (!error && (inode.state & META_LENT)) {
            error = assembled_let_go(change, inode.ino); /* the view borrows by itself */
            continue;
        }
        if (!error)
            error = beside_hide(change, inodes.at[i], &kept);
        if (!error && kept)
            error =
                db_run(change->meta->db, "DELETE FROM assembled WHERE ino = $1", DB_INTEGER(inodes.at[i]));
    }
    change->nothing = inodes.count == 0;
    return error;
}

errint meta_assembled_hide_all(struct meta *meta)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = beside_hide_all(&change);
    return change.error;
}

/* -- what others do with them -----------------------------------------------------------------------------
 */

int beside_is(struct meta *meta, uint64_t directory, const char *name, size_t length,
              const struct meta_inode *inode)
{
    if (!(inode->state & META_ASSEMBLED))
        return 0;
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT 1 FROM assembled WHERE directory = $1 AND name = $2 AND ino = $3",
                  DB_INTEGER(directory), DB_BLOB(name, length), DB_INTEGER(inode->ino));
    return error ? error : db_next(&rows);
}

/* From now on the directory shows it no more but by its names. `written`: it keeps them: instead of what is
 * lent there is a file of the directory's own. */
static errint beside_let_stay(struct change *change, struct meta_inode *inode, bool written)
{
    struct meta *meta = change->meta;
    struct meta_inode after = *inode;
    after.state &= ~BESIDE_STATE;
    errint error = 0;
    if (!written || !(inode->state & META_LENT))
        error = db_run(meta->db,
                       "INSERT INTO assembled_removed (directory) SELECT directory FROM assembled"
                       " WHERE ino = $1 ON CONFLICT (directory) DO NOTHING",
                       DB_INTEGER(inode->ino));
    if (!error)
        error = db_run(meta->db, "DELETE FROM assembled WHERE ino = $1", DB_INTEGER(inode->ino));
    if (!error)
        error = inode_update(meta, inode, &after);
    *inode = after;
    return error;
}

errint beside_leave(struct change *change, uint64_t directory, const char *name, size_t length,
                    struct meta_inode *inode)
{
    int is = beside_is(change->meta, directory, name, length, inode);
    return is <= 0 ? is : beside_let_stay(change, inode, false);
}

errint beside_give_way(struct change *change, uint64_t directory, const char *name, size_t length)
{
    uint64_t ino;
    struct meta_inode inode;
    errint error = name_find(change->meta, directory, name, length, &ino);
    if (!error)
        error = inode_load(change->meta, ino, &inode);
    if (error)
        return error == -ENOENT ? 0 : error;
    int is = beside_is(change->meta, directory, name, length, &inode);
    return is <= 0 ? is : assembled_let_go(change, ino);
}

static errint beside_adopt(struct change *change, uint64_t ino)
{
    struct meta_inode inode;
    errint error = inode_load(change->meta, ino, &inode);
    change->nothing = error || !(inode.state & META_ASSEMBLED) || inode.nlink == 0;
    return error || change->nothing ? error : beside_let_stay(change, &inode, true);
}

errint meta_assembled_adopt(struct meta *meta, uint64_t ino)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = beside_adopt(&change, ino);
    return change.error;
}

/* -- what was removed -------------------------------------------------------------------------------------
 */

int meta_assembled_is_removed(struct meta *meta, uint64_t directory)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM assembled_removed WHERE directory = $1",
                             DB_INTEGER(directory));
    return error ? error : db_next(&rows);
}

errint beside_forget(struct meta *meta, uint64_t directory)
{
    return db_run(meta->db, "DELETE FROM assembled_removed WHERE directory = $1", DB_INTEGER(directory));
}
