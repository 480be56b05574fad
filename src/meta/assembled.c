/* SPDX-License-Identifier: Apache-2.0 */
/* Files without a name that a directory shows all the same. */
#include "meta/assembled.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/internal.h"

enum { ASSEMBLED_ROWS = 256 };

/* -- making -----------------------------------------------------------------------------------------------
 */

static errint assembled_begin(struct change *change, const struct meta_inode *like, uint64_t *ino)
{
    struct meta_inode inode = {
        .mode = S_IFREG | (like->mode & 0777),
        .uid = like->uid,
        .gid = like->gid,
        .size = like->size,
        .atime = like->mtime,
        .mtime = like->mtime,
        .ctime = like->mtime,
        .btime = like->mtime,
        .kind = META_EXTENTS,
        .state = META_ASSEMBLED,
        .synced_size = like->size,
    };
    errint error = change_take_number(change->meta, META_COUNTER_INO, ino);
    inode.ino = *ino;
    return error ? error : inode_insert(change->meta, &inode);
}

errint meta_assembled_begin(struct meta *meta, const struct meta_inode *like, uint64_t *ino)
{
    if (like->size <= 0)
        return -EINVAL;
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = assembled_begin(&change, like, ino);
    return change.error;
}

static errint assembled_put_own(struct meta *meta, uint64_t ino, const struct meta_assembled_part *part)
{
    const struct meta_extent extent = {part->offset, part->length, part->object, part->from};
    errint error = object_note(meta, part->object, part->from + part->length);
    return error ? error : extents_put(meta, ino, &extent);
}

static errint assembled_put_range(struct meta *meta, uint64_t ino, const struct meta_assembled_part *part)
{
    struct meta_inode from;
    cleanup_extents struct extent_list pieces = {0};
    errint error = inode_load_file(meta, part->ino, &from);
    if (error == -ENOENT)
        return -EBUSY;
    if (!error && (from.kind != META_EXTENTS || (from.state & (META_DIRTY | META_TORN)) ||
                   part->from > from.size || part->length > from.size - part->from))
        error = -EBUSY;
    if (!error)
        error = extents_collect(meta, part->ino, part->from, part->from + part->length, &pieces);
    /* What was given up would become a hole. */
    if (!error && (from.state & META_SHED) && extent_list_bytes(&pieces) < part->length)
        error = -EIO;
    for (size_t i = 0; !error && i < pieces.count; i++) {
        pieces.at[i].offset += part->offset - part->from;
        error = extents_put(meta, ino, &pieces.at[i]);
    }
    return error;
}

static errint assembled_map(struct change *change, uint64_t ino, const struct meta_assembled_part *parts,
                            size_t count)
{
    struct meta_inode inode;
    errint error = inode_load_file(change->meta, ino, &inode);
    if (!error && !(inode.state & META_ASSEMBLED))
        error = -EINVAL;
    for (size_t i = 0; !error && i < count; i++) {
        int64_t end, from_end;
        if (parts[i].offset < 0 || parts[i].from < 0 || parts[i].length <= 0 ||
            __builtin_add_overflow(parts[i].offset, parts[i].length, &end) ||
            __builtin_add_overflow(parts[i].from, parts[i].length, &from_end) || end > inode.size)
            return -EINVAL;
        error = parts[i].object ? assembled_put_own(change->meta, ino, &parts[i])
                                : assembled_put_range(change->meta, ino, &parts[i]);
    }
    return error;
}

errint meta_assembled_map(struct meta *meta, uint64_t ino, const struct meta_assembled_part *parts,
                          size_t count)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = assembled_map(&change, ino, parts, count);
    return change.error;
}

/* -- showing and withdrawing ------------------------------------------------------------------------------
 */

errint assembled_let_go(struct change *change, uint64_t ino)
{
    struct meta *meta = change->meta;
    bool kept = false;
    errint error = beside_hide(change, ino, &kept);
    if (!error)
        error = db_run(meta->db, "DELETE FROM assembled WHERE ino = $1", DB_INTEGER(ino));
    return error || kept ? error : ids_append(change->shadows ? change->shadows : &meta->released, ino);
}

errint assembled_withdraw(struct change *change, uint64_t directory)
{
    cleanup_ids struct ids inodes = {0};
    cleanup_rows struct db_rows rows;
    errint error = db_select(change->meta->db, &rows, "SELECT ino FROM assembled WHERE directory = $1",
                             DB_INTEGER(directory));
    if (!error)
        error = rows_collect_ids(&rows, &inodes);
    /* With the model there what was removed was lent: with the next model it is lent again. */
    if (!error && inodes.count > 0)
        error = db_run(change->meta->db,
                       "DELETE FROM assembled_removed WHERE directory = $1 AND EXISTS (SELECT 1"
                       " FROM assembled a JOIN inode i ON i.ino = a.ino WHERE a.directory = $1"
                       " AND (i.state & 16) = 0)",
                       DB_INTEGER(directory));
    for (size_t i = 0; !error && i < inodes.count; i++)
        error = assembled_let_go(change, inodes.at[i]);
    change->nothing = inodes.count == 0;
    return error;
}

errint assembled_forget(struct change *change, uint64_t directory)
{
    errint error = assembled_withdraw(change, directory);
    if (!error)
        error = db_run(change->meta->db, "DELETE FROM assembled_input WHERE directory = $1",
                       DB_INTEGER(directory));
    return error ? error : beside_forget(change->meta, directory);
}

errint meta_assembled_withdraw(struct meta *meta, uint64_t directory, bool *changed)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = assembled_withdraw(&change, directory);
    if (changed)
        *changed = !change.error && !change.nothing;
    return change.error;
}

static errint assembled_withdraw_input(struct change *change, uint64_t input, struct ids *directories)
{
    cleanup_ids struct ids found = {0};
    cleanup_rows struct db_rows rows;
    errint error = db_select(change->meta->db, &rows,
                             "SELECT DISTINCT a.directory FROM assembled_input i JOIN assembled a"
                             " ON a.directory = i.directory WHERE i.input = $1 AND i.input <> i.directory",
                             DB_INTEGER(input));
    if (!error)
        error = rows_collect_ids(&rows, &found);
    for (size_t i = 0; !error && i < found.count; i++) {
        error = assembled_withdraw(change, found.at[i]);
        if (!error)
            error = ids_append(directories, found.at[i]);
    }
    change->nothing = found.count == 0;
    return error;
}

errint meta_assembled_withdraw_input(struct meta *meta, uint64_t input, struct ids *directories)
{
    size_t before = directories->count;
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change)) {
        directories->count = before;
        change.error = assembled_withdraw_input(&change, input, directories);
    }
    return change.error;
}

int assembled_is(struct meta *meta, uint64_t ino)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM assembled WHERE ino = $1", DB_INTEGER(ino));
    return error ? error : db_next(&rows);
}

static errint assembled_publish(struct change *change, uint64_t directory, const char *name, uint64_t ino,
                                bool beside, const struct meta_assembled_input *inputs, size_t count)
{
    struct meta *meta = change->meta;
    struct meta_inode inode, parent;
    errint error = inode_load(meta, ino, &inode);
    if (!error)
        error = inode_load_directory(meta, directory, &parent);
    if (!error && parent.nlink == 0)
        error = -ENOENT;
    if (!error)
        error = assembled_forget(change, directory);
    change->nothing = false;
    if (!error)
        error = db_run(meta->db, "INSERT INTO assembled (directory, name, ino) VALUES ($1, $2, $3)",
                       DB_INTEGER(directory), DB_BLOB(name, strlen(name)), DB_INTEGER(ino));
    for (size_t i = 0; !error && i < count; i++)
        error = db_run(meta->db,
                       "INSERT INTO assembled_input (directory, path, input, mtime) VALUES ($1, $2, $3, $4)"
                       " ON CONFLICT (directory, path) DO NOTHING",
                       DB_INTEGER(directory), DB_BLOB(inputs[i].path, strlen(inputs[i].path)),
                       DB_INTEGER(inputs[i].ino), DB_INTEGER(inputs[i].mtime));
    return error || !beside ? error : beside_show(change, directory, name, &inode);
}

errint meta_assembled_publish(struct meta *meta, uint64_t directory, const char *name, uint64_t ino,
                              bool beside, const struct meta_assembled_input *inputs, size_t count)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = assembled_publish(&change, directory, name, ino, beside, inputs, count);
    return change.error;
}

static errint assembled_drop_input(struct change *change, uint64_t directory, const char *path)
{
    errint error = db_run(change->meta->db, "DELETE FROM assembled_input WHERE directory = $1 AND path = $2",
                          DB_INTEGER(directory), DB_BLOB(path, strlen(path)));
    change->nothing = !error && db_changed(change->meta->db) == 0;
    return error;
}

errint meta_assembled_drop_input(struct meta *meta, uint64_t directory, const char *path)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = assembled_drop_input(&change, directory, path);
    return change.error;
}

static errint assembled_publish_more(struct change *change, uint64_t directory, const char *name,
                                     uint64_t ino)
{
    struct meta *meta = change->meta;
    struct meta_inode inode;
    cleanup_rows struct db_rows rows = {0};
    errint error = inode_load(meta, ino, &inode);
    if (!error)
        error = db_select(meta->db, &rows, "SELECT 1 FROM assembled WHERE directory = $1 LIMIT 1",
                          DB_INTEGER(directory));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    db_finish(&rows);
    return db_run(meta->db, "INSERT INTO assembled (directory, name, ino) VALUES ($1, $2, $3)",
                  DB_INTEGER(directory), DB_BLOB(name, strlen(name)), DB_INTEGER(ino));
}

errint meta_assembled_publish_more(struct meta *meta, uint64_t directory, const char *name, uint64_t ino)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = assembled_publish_more(&change, directory, name, ino);
    return change.error;
}

/* -- looking ----------------------------------------------------------------------------------------------
 */

errint meta_assembled_find(struct meta *meta, uint64_t directory, const char *name, size_t length,
                           struct meta_inode *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows,
                  "SELECT " INODE_COLUMNS " FROM assembled a JOIN inode i ON i.ino = a.ino"
                  " WHERE a.directory = $1 AND (a.name = $2 OR ($3 AND (i.state & 16) = 0))"
                  " ORDER BY a.ino LIMIT 1",
                  DB_INTEGER(directory), DB_BLOB(name ? name : "", name ? length : 0), DB_INTEGER(!name));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    inode_from_row(&rows, out);
    return 0;
}

int meta_assembled_shown(struct meta *meta, uint64_t ino)
{
    META_LOCKED(meta);
    return assembled_is(meta, ino);
}

errint meta_assembled_list(struct meta *meta, uint64_t directory, uint64_t after,
                           bool (*entry)(void *context, const char *name, size_t length,
                                         const struct meta_inode *inode),
                           void *context)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " INODE_COLUMNS ", a.name FROM assembled a JOIN inode i ON i.ino = a.ino"
                             " WHERE a.directory = $1 AND a.ino > $2 ORDER BY a.ino",
                             DB_INTEGER(directory), DB_INTEGER(after));
    int found = error ? error : db_next(&rows);
    for (; found > 0; found = db_next(&rows)) {
        struct meta_inode inode;
        size_t length;
        const char *name = db_bytes(&rows, INODE_COLUMN_COUNT, &length);
        inode_from_row(&rows, &inode);
        if (length > META_NAME_MAX)
            return -EUCLEAN;
        if (!entry(context, name, length, &inode))
            return 0;
    }
    return found;
}

errint meta_assembled_inputs(struct meta *meta, uint64_t directory,
                             bool (*input)(void *context, const char *path, size_t length, uint64_t ino,
                                           int64_t mtime),
                             void *context)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT path, input, mtime FROM assembled_input WHERE directory = $1"
                             " ORDER BY path",
                             DB_INTEGER(directory));
    int found = error ? error : db_next(&rows);
    for (; found > 0; found = db_next(&rows)) {
        size_t length;
        const char *path = db_bytes(&rows, 0, &length);
        if (!input(context, path, length, (uint64_t)db_integer(&rows, 1), db_integer(&rows, 2)))
            return 0;
    }
    return found;
}

static errint assembled_find_all(struct meta *meta, const char *text, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, text);
    return error ? error : rows_collect_ids(&rows, out);
}

errint meta_assembled_all_inputs(struct meta *meta, struct ids *out)
{
    return assembled_find_all(
        meta,
        "SELECT DISTINCT i.input FROM assembled_input i JOIN assembled a ON a.directory = i.directory"
        " WHERE i.input <> i.directory",
        out);
}

errint meta_assembled_torn(struct meta *meta, struct ids *out)
{
    return assembled_find_all(meta,
                              "SELECT DISTINCT a.directory FROM assembled a WHERE EXISTS"
                              " (SELECT 1 FROM inode i WHERE i.ino = a.ino AND (i.state & 2) <> 0) OR EXISTS"
                              " (SELECT 1 FROM assembled_input x JOIN inode i ON i.ino = x.input"
                              " WHERE x.directory = a.directory AND (i.state & 2) <> 0)",
                              out);
}

int meta_find_files_after(struct meta *meta, uint64_t *after, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT ino, (mode & 61440) = 32768 AND nlink > 0 FROM inode WHERE ino > $1"
                             " ORDER BY ino LIMIT $2",
                             DB_INTEGER(*after), DB_INTEGER(ASSEMBLED_ROWS));
    return error ? error : object_collect_page(&rows, ASSEMBLED_ROWS, after, out);
}
