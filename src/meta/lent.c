/* SPDX-License-Identifier: Apache-2.0 */
/* Clones beside assembled models. */
#include "meta/lent.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/assembled.h"
#include "meta/beside.h"
#include "meta/internal.h"

/* As of templates: a tree is not deeper. */
enum { LENT_LEVELS_MAX = 1 << 16 };

/* -- what is there ----------------------------------------------------------------------------------------
 */

/* Whether the directory's model lies beside its shards: 1, 0 or an error. */
static int lent_has_model(struct meta *meta, uint64_t directory)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT 1 FROM assembled a JOIN name n ON n.parent = a.directory"
                             " AND n.name = a.name AND n.ino = a.ino JOIN inode i ON i.ino = a.ino"
                             " WHERE a.directory = $1 AND (i.state & 16) = 0 LIMIT 1",
                             DB_INTEGER(directory));
    return error ? error : db_next(&rows);
}

/* Whether somebody has removed a file of the directory that was assembled or lent: 1, 0 or an error. */
static int lent_is_unwanted(struct meta *meta, uint64_t directory)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM assembled_removed WHERE directory = $1",
                             DB_INTEGER(directory));
    return error ? error : db_next(&rows);
}

/* The clones that the directory has. */
static errint lent_collect(struct meta *meta, uint64_t directory, struct ids *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT a.ino FROM assembled a JOIN inode i ON i.ino = a.ino"
                             " WHERE a.directory = $1 AND (i.state & 16) <> 0",
                             DB_INTEGER(directory));
    return error ? error : rows_collect_ids(&rows, out);
}

/* The clone that the directory has of that name; 0: none, be it that another file has the name. */
static errint lent_find(struct meta *meta, uint64_t directory, const char *name, uint64_t *ino)
{
    cleanup_rows struct db_rows rows;
    *ino = 0;
    errint error = db_select(meta->db, &rows,
                             "SELECT a.ino FROM assembled a JOIN inode i ON i.ino = a.ino"
                             " WHERE a.directory = $1 AND a.name = $2 AND (i.state & 16) <> 0",
                             DB_INTEGER(directory), DB_BLOB(name, strlen(name)));
    int found = error ? error : db_next(&rows);
    if (found > 0)
        *ino = (uint64_t)db_integer(&rows, 0);
    return found < 0 ? found : 0;
}

/* -- cloning ----------------------------------------------------------------------------------------------
 */

static errint lent_copy_content(struct meta *meta, uint64_t ino, const struct meta_inode *source)
{
    cleanup_extents struct extent_list pieces = {0};
    if (source->kind == META_INLINE)
        return db_run(meta->db,
                      "INSERT INTO content (ino, bytes) SELECT $1, bytes FROM content WHERE ino = $2",
                      DB_INTEGER(ino), DB_INTEGER(source->ino));
    errint error = extents_collect(meta, source->ino, 0, source->size, &pieces);
    for (size_t i = 0; !error && i < pieces.count; i++)
        error = extents_put(meta, ino, &pieces.at[i]);
    return error;
}

static errint lent_clone(struct change *change, uint64_t directory, const char *name,
                         const struct meta_inode *source)
{
    struct meta *meta = change->meta;
    struct meta_inode clone = {
        .mode = S_IFREG | (source->mode & 0777),
        .uid = source->uid,
        .gid = source->gid,
        .size = source->size,
        .atime = source->mtime,
        .mtime = source->mtime,
        .ctime = source->mtime,
        .btime = source->mtime,
        .kind = source->kind,
        .state = META_ASSEMBLED | META_LENT,
        .synced_size = source->size,
    };
    errint error = change_take_number(meta, META_COUNTER_INO, &clone.ino);
    if (!error)
        error = inode_insert(meta, &clone);
    if (!error)
        error = lent_copy_content(meta, clone.ino, source);
    if (!error)
        error = db_run(meta->db, "INSERT INTO assembled (directory, name, ino) VALUES ($1, $2, $3)",
                       DB_INTEGER(directory), DB_BLOB(name, strlen(name)), DB_INTEGER(clone.ino));
    return error ? error : beside_show(change, directory, name, &clone);
}

/* -ENOENT: it is none that can be lent; -EBUSY: not yet. */
static errint lent_load_source(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load(meta, ino, out);
    if (error)
        return error;
    if (!S_ISREG(out->mode) || out->nlink == 0 || (out->state & META_SHED))
        return -ENOENT;
    if (out->kind == META_OBJECT || (out->state & (META_DIRTY | META_TORN)))
        return -EBUSY;
    return out->size > 0 ? 0 : -ENOENT;
}

/*
 * Whether the directory's clone of that name, if it has one, is of what the source is now: it stays, and is
 * taken off `old`. So is that of a source that is written: it stays as it was until that one is whole again.
 */
static errint lent_keep(struct meta *meta, uint64_t directory, const struct meta_lent *file, struct ids *old)
{
    struct meta_inode source, clone;
    uint64_t ino;
    errint error = lent_find(meta, directory, file->name, &ino);
    if (!error && ino)
        error = inode_load(meta, ino, &clone);
    if (error || !ino)
        return error;
    error = lent_load_source(meta, file->source, &source);
    bool stays = error == -EBUSY || (!error && clone.size == source.size && clone.mtime == source.mtime);
    for (size_t i = 0; stays && i < old->count; i++) {
        if (old->at[i] == ino)
            old->at[i--] = old->at[--old->count];
    }
    return error == -EBUSY || error == -ENOENT ? 0 : error;
}

/* -EBUSY: the source cannot be lent yet. */
static errint lent_add(struct change *change, uint64_t directory, const struct meta_lent *file)
{
    struct meta_inode source;
    uint64_t there;
    errint error = name_find(change->meta, directory, file->name, strlen(file->name), &there);
    if (error != -ENOENT)
        return error;
    error = lent_load_source(change->meta, file->source, &source);
    if (error)
        return error == -ENOENT ? 0 : error;
    change->nothing = false;
    return lent_clone(change, directory, file->name, &source);
}

static errint lent_set(struct change *change, uint64_t directory, const struct meta_lent *files, size_t count,
                       bool *busy)
{
    struct meta *meta = change->meta;
    cleanup_ids struct ids old = {0};
    *busy = false;
    change->nothing = true;
    int model = lent_has_model(meta, directory);
    int unwanted = model <= 0 ? model : lent_is_unwanted(meta, directory);
    if (unwanted)
        return unwanted < 0 ? unwanted : 0;
    errint error = lent_collect(meta, directory, &old);
    for (size_t i = 0; model && i < count && !error; i++)
        error = lent_keep(meta, directory, &files[i], &old);
    for (size_t i = 0; i < old.count && !error; i++) {
        change->nothing = false;
        error = assembled_let_go(change, old.at[i]);
    }
    for (size_t i = 0; model && i < count && !error; i++) {
        error = lent_add(change, directory, &files[i]);
        *busy |= error == -EBUSY;
        error = error == -EBUSY ? 0 : error;
    }
    return error;
}

errint meta_lent_set(struct meta *meta, uint64_t directory, const struct meta_lent *files, size_t count,
                     bool *changed)
{
    bool busy = false;
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = lent_set(&change, directory, files, count, &busy);
    if (changed)
        *changed = !change.error && !change.nothing;
    return change.error ? change.error : busy ? -EBUSY : 0;
}

/* -- above ------------------------------------------------------------------------------------------------
 */

errint meta_lent_find_borrowers(struct meta *meta, uint64_t above, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT DISTINCT a.directory FROM name d JOIN assembled a ON a.directory = d.ino"
                             " JOIN name n ON n.parent = a.directory AND n.name = a.name AND n.ino = a.ino"
                             " WHERE d.parent = $1",
                             DB_INTEGER(above));
    return error ? error : rows_collect_ids(&rows, out);
}

/* Whether the directory is the other one, or lies below it: 1, 0 or an error. */
static int lent_is_below(struct meta *meta, uint64_t directory, uint64_t above)
{
    for (int level = 0; level < LENT_LEVELS_MAX; level++) {
        if (directory == above)
            return 1;
        if (directory == META_ROOT_INO)
            return 0;
        errint error = name_parent(meta, directory, &directory);
        if (error)
            return error == -ENOENT ? 0 : error;
    }
    return -ELOOP;
}

errint lent_withdraw_below(struct change *change, uint64_t above)
{
    struct meta *meta = change->meta;
    cleanup_ids struct ids directories = {0};
    {
        cleanup_rows struct db_rows rows;
        errint error = db_select(meta->db, &rows,
                                 "SELECT DISTINCT a.directory FROM assembled a JOIN inode i ON i.ino = a.ino"
                                 " WHERE (i.state & 16) <> 0");
        if (!error)
            error = rows_collect_ids(&rows, &directories);
        if (error)
            return error;
    }
    for (size_t i = 0; i < directories.count; i++) {
        cleanup_ids struct ids clones = {0};
        int below = lent_is_below(meta, directories.at[i], above);
        errint error = below <= 0 ? below : lent_collect(meta, directories.at[i], &clones);
        for (size_t j = 0; j < clones.count && !error; j++)
            error = assembled_let_go(change, clones.at[j]);
        if (error)
            return error;
    }
    return 0;
}
