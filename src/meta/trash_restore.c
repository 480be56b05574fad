/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves the trash: back to the mount, or for good. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/trash_internal.h"

/* -- back -------------------------------------------------------------------------------------------------
 */

static errint trash_merge_level(struct change *change, const struct trash_pair *pair, int64_t now, int level);

/* Names that both have: subdirectories of the one, then of the other. -EEXIST for all else. */
static errint trash_find_common(struct meta *meta, const struct trash_pair *pair, struct ids *from,
                                struct ids *to)
{
    static const char text[] =
        "SELECT a.ino, b.ino, i.mode, j.mode FROM name a JOIN name b ON b.parent = $1 AND b.name = a.name"
        " JOIN inode i ON i.ino = a.ino JOIN inode j ON j.ino = b.ino WHERE a.parent = $2";
    cleanup_rows struct db_rows rows;
    int found = db_select(meta->db, &rows, text, DB_INTEGER(pair->to), DB_INTEGER(pair->from));
    while (!found && (found = db_next(&rows)) > 0) {
        if (!S_ISDIR((uint32_t)db_integer(&rows, 2)) || !S_ISDIR((uint32_t)db_integer(&rows, 3)))
            return -EEXIST;
        found = ids_append(from, (uint64_t)db_integer(&rows, 0));
        if (!found)
            found = ids_append(to, (uint64_t)db_integer(&rows, 1));
    }
    return found;
}

static errint trash_merge_common(struct change *change, const struct trash_pair *pair, int64_t now, int level)
{
    cleanup_ids struct ids from = {0}, to = {0};
    errint error = trash_find_common(change->meta, pair, &from, &to);
    for (size_t i = 0; i < from.count && !error; i++) {
        error = trash_merge_level(change, &(struct trash_pair){from.at[i], to.at[i], pair->times}, now,
                                  level + 1);
        if (!error)
            error = db_run(change->meta->db, "DELETE FROM name WHERE parent = $1 AND ino = $2",
                           DB_INTEGER(pair->from), DB_INTEGER(from.at[i]));
        if (!error)
            error = trash_drop_directory(change, from.at[i], now);
    }
    return error;
}

static errint trash_count_directories(struct meta *meta, uint64_t directory, uint32_t *count)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT count(*) FROM name n JOIN inode i ON i.ino = n.ino"
                             " WHERE n.parent = $1 AND (i.mode & 61440) = 16384",
                             DB_INTEGER(directory));
    int found = error ? error : db_next(&rows);
    *count = found > 0 ? (uint32_t)db_integer(&rows, 0) : 0;
    return found < 0 ? found : 0;
}

static errint trash_merge_level(struct change *change, const struct trash_pair *pair, int64_t now, int level)
{
    struct meta *meta = change->meta;
    struct meta_inode from, to, after;
    uint32_t subdirectories = 0;
    errint error = level == TRASH_LEVELS_MAX ? -ELOOP : trash_merge_common(change, pair, now, level);
    if (!error)
        error = inode_load_directory(meta, pair->from, &from);
    if (!error)
        error = name_load_parent(meta, pair->to, &to);
    if (!error)
        error = trash_count_directories(meta, pair->from, &subdirectories);
    if (!error)
        error = db_run(meta->db, "UPDATE name SET parent = $1 WHERE parent = $2", DB_INTEGER(pair->to),
                       DB_INTEGER(pair->from));
    if (error)
        return error;
    after = to;
    after.nlink += subdirectories;
    if (pair->times) {
        after.atime = from.atime;
        after.mtime = from.mtime;
    }
    after.ctime = now;
    return inode_update(meta, &to, &after);
}

errint trash_merge(struct change *change, const struct trash_pair *pair, int64_t now)
{
    return trash_merge_level(change, pair, now, 0);
}

static errint trash_restore_into_rest(struct change *change, const struct meta_trash *row, int64_t now)
{
    errint error = trash_merge(change, &(struct trash_pair){row->ino, row->directory, true}, now);
    if (!error)
        error = trash_close(change->meta, row->directory);
    if (!error)
        error = trash_forget(change, row, now);
    if (!error)
        error = trash_take_out(change, row->ino);
    return error ? error : trash_drop_directory(change, row->ino, now);
}

static errint trash_restore_whole(struct change *change, const struct meta_trash *row,
                                  const struct meta_trash_restore *wanted)
{
    struct meta *meta = change->meta;
    struct meta_inode parent, before = {0};
    errint error = name_load_parent(meta, wanted->parent, &parent);
    if (!error)
        error = inode_load_directory(meta, row->ino, &before);
    if (!error)
        error = name_insert(meta, wanted->parent, wanted->name, wanted->length, row->ino);
    if (!error)
        error = trash_take_out(change, row->ino);
    if (!error)
        error = name_touch_parent(meta, &parent, 1, wanted->now);
    struct meta_inode after = before;
    after.ctime = wanted->now;
    if (!error)
        error = inode_update(meta, &before, &after);
    return error ? error : trash_forget(change, row, wanted->now);
}

static errint trash_restore(struct change *change, const struct meta_trash_restore *wanted, uint64_t *out)
{
    struct meta *meta = change->meta;
    struct meta_trash row;
    uint64_t there = 0;
    errint error = trash_load(meta, wanted->ino, &row);
    if (!error && row.kind != META_TRASH_CLOSED && row.kind != META_TRASH_OPEN)
        error = -ENOENT;
    int reached = error ? error : trash_is_reached(meta, wanted->parent);
    if (reached <= 0)
        return reached < 0 ? reached : -ENOENT;
    error = name_find(meta, wanted->parent, wanted->name, wanted->length, &there);
    if (error && error != -ENOENT)
        return error;
    bool rest = !error && there == row.directory;
    if (!error && !rest)
        return -EEXIST;
    change->ino = *out = rest ? row.directory : row.ino;
    return rest ? trash_restore_into_rest(change, &row, wanted->now)
                : trash_restore_whole(change, &row, wanted);
}

errint meta_trash_restore(struct meta *meta, const struct meta_trash_restore *wanted, uint64_t unique,
                          uint64_t *out)
{
    errint error = name_check(wanted->name, wanted->length, true);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique};
    while (change_next(&change))
        change.error = trash_restore(&change, wanted, out);
    return change.error;
}

/* -- for good ---------------------------------------------------------------------------------------------
 */

struct trash_child {
    struct meta_name name;
    struct meta_inode inode;
};

/* The first name in a directory: 1, 0 when there is none, or an error. */
static int trash_first_child(struct meta *meta, uint64_t directory, struct trash_child *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " INODE_COLUMNS ", n.name FROM name n JOIN inode i ON i.ino = n.ino"
                             " WHERE n.parent = $1 LIMIT 1",
                             DB_INTEGER(directory));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found;
    const char *bytes = db_bytes(&rows, INODE_COLUMN_COUNT, &out->name.length);
    if (out->name.length > META_NAME_MAX)
        return -EUCLEAN;
    memcpy(out->name.bytes, bytes, out->name.length);
    out->name.bytes[out->name.length] = '\0';
    out->name.parent = directory;
    inode_from_row(&rows, &out->inode);
    return 1;
}

/* A file, or an empty directory. */
static errint trash_remove_child(struct change *change, const struct trash_child *child, int64_t now)
{
    struct meta *meta = change->meta;
    const struct meta_name *name = &child->name;
    if (child->inode.state & META_ASSEMBLED)
        return assembled_let_go(change, child->inode.ino);
    errint error = name_delete(meta, name->parent, name->bytes, name->length);
    if (!error && S_ISDIR(child->inode.mode)) {
        error = trash_directory_removed(
            change, &(struct trash_removed){&child->inode, name->parent, name->bytes, name->length, now});
        return error ? error : trash_drop_directory(change, child->inode.ino, now);
    }
    struct meta_inode after = child->inode;
    after.nlink--;
    if (!error)
        error = inode_update(meta, &child->inode, &after);
    return error || after.nlink > 0 ? error : shadow_let_go(change, child->inode.ino);
}

/* Removes what comes first below the directory: 1, 0 when it is empty, or an error. */
static int trash_remove_first(struct change *change, uint64_t directory, int64_t now)
{
    struct trash_child child, below;
    int found = trash_first_child(change->meta, directory, &child);
    for (int level = 0; found > 0 && S_ISDIR(child.inode.mode); level++) {
        int deeper =
            level == TRASH_LEVELS_MAX ? -ELOOP : trash_first_child(change->meta, child.inode.ino, &below);
        if (deeper < 0)
            return deeper;
        if (deeper == 0)
            break;
        child = below;
    }
    if (found <= 0)
        return found;
    errint error = trash_remove_child(change, &child, now);
    return error ? error : 1;
}

static errint trash_remove_entry(struct change *change, const struct meta_trash *row, int64_t now)
{
    struct meta_inode inode;
    errint error = inode_load_directory(change->meta, row->ino, &inode);
    if (!error)
        error = trash_forget(change, row, now);
    if (!error)
        error = trash_take_out(change, row->ino);
    if (!error)
        error = trash_directory_removed(
            change, &(struct trash_removed){&inode, row->parent, row->name, row->length, now});
    return error ? error : trash_drop_directory(change, row->ino, now);
}

struct trash_giving_up {
    uint64_t ino;
    unsigned limit;
    int64_t now;
    bool more;
};

static errint trash_give_up(struct change *change, struct trash_giving_up *wanted)
{
    struct meta_trash row;
    errint error = trash_load(change->meta, wanted->ino, &row);
    wanted->more = !error && row.kind != META_TRASH_ABOVE;
    if (error || !wanted->more) {
        change->nothing = true;
        return error == -ENOENT ? 0 : error;
    }
    error = db_run(change->meta->db, "UPDATE trash SET kind = 3 WHERE ino = $1", DB_INTEGER(row.ino));
    int removed = error ? error : 1;
    for (unsigned i = 0; i < wanted->limit && removed > 0; i++)
        removed = trash_remove_first(change, row.ino, wanted->now);
    if (removed)
        return removed < 0 ? removed : 0;
    wanted->more = false;
    return trash_remove_entry(change, &row, wanted->now);
}

int meta_trash_give_up(struct meta *meta, uint64_t ino, unsigned limit, int64_t now, struct ids *released)
{
    struct trash_giving_up wanted = {.ino = ino, .limit = limit, .now = now};
    struct change change = {.meta = meta, .shadows = released, .spends = true};
    while (change_next(&change))
        change.error = trash_give_up(&change, &wanted);
    return change.error ? change.error : wanted.more;
}
