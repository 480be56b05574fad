/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of the rows of a directory, and how they come back or go. */
#include "meta/kept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "meta/hidden.h"
#include "meta/trash_internal.h"

enum { KEPT_LEVELS_MAX = 64, KEPT_NAME_MAX = 40 };

#define KEPT_PARTIAL "-partial"

static size_t kept_print_name(char name[KEPT_NAME_MAX], const struct meta_kept *kept)
{
    return (size_t)snprintf(name, KEPT_NAME_MAX, "%" PRIu64 "%s", kept->checkpoint,
                            kept->partial ? KEPT_PARTIAL : "");
}

static errint kept_add_link(struct meta *meta, uint64_t directory, int links)
{
    struct meta_inode before;
    errint error = inode_load_directory(meta, directory, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    after.nlink += (uint32_t)links;
    return inode_update(meta, &before, &after);
}

/* -- copying ----------------------------------------------------------------------------------------------
 */

struct kept_entry {
    size_t length;
    char name[META_NAME_MAX];
    struct meta_inode inode;
};

/* The names of one directory: rows cannot be read while others are written. */
struct kept_entries {
    struct kept_entry *at;
    size_t count, capacity;
};

static void kept_release_entries(struct kept_entries *entries)
{
    free(entries->at);
}

static errint kept_append(struct kept_entries *entries, struct db_rows *rows)
{
    size_t length;
    const char *name = db_bytes(rows, INODE_COLUMN_COUNT, &length);
    if (length > META_NAME_MAX)
        return -EUCLEAN;
    if (!grow_reserve(entries->at, entries->capacity, entries->count + 1))
        return -ENOMEM;
    struct kept_entry *entry = &entries->at[entries->count++];
    entry->length = length;
    memcpy(entry->name, name, length);
    inode_from_row(rows, &entry->inode);
    return 0;
}

static errint kept_read_entries(struct meta *meta, uint64_t directory, struct kept_entries *out)
{
    cleanup_rows struct db_rows rows;
    int found = db_select(meta->db, &rows,
                          "SELECT " INODE_COLUMNS ", n.name FROM name n JOIN inode i ON i.ino = n.ino"
                          " WHERE n.parent = $1 ORDER BY n.cookie",
                          DB_INTEGER(directory));
    while (!found && (found = db_next(&rows)) > 0)
        found = kept_append(out, &rows);
    return found;
}

/* The copy of an inode, without a name. */
static errint kept_copy_inode(struct change *change, const struct meta_inode *from, uint64_t *out)
{
    struct meta *meta = change->meta;
    struct meta_inode copy = *from;
    copy.nlink = S_ISDIR(from->mode) ? 2 : 1;
    errint error = change_take_number(meta, META_COUNTER_INO, &copy.ino);
    if (!error)
        error = inode_insert(meta, &copy);
    if (!error)
        error = db_run(meta->db,
                       "INSERT INTO xattr (ino, name, value) SELECT $1, x.name, x.value FROM xattr x"
                       " WHERE x.ino = $2",
                       DB_INTEGER(copy.ino), DB_INTEGER(from->ino));
    if (!error && from->kind == META_INLINE)
        error = db_run(meta->db,
                       "INSERT INTO content (ino, bytes) SELECT $1, c.bytes FROM content c WHERE c.ino = $2",
                       DB_INTEGER(copy.ino), DB_INTEGER(from->ino));
    if (!error && from->kind == META_EXTENTS)
        error = db_run(meta->db,
                       "INSERT INTO extent (ino, file_offset, length, object, object_offset) SELECT $1,"
                       " e.file_offset, e.length, e.object, e.object_offset FROM extent e WHERE e.ino = $2",
                       DB_INTEGER(copy.ino), DB_INTEGER(from->ino));
    *out = copy.ino;
    return error;
}

static errint kept_copy_level(struct change *change, uint64_t from, uint64_t to, unsigned level,
                              int64_t *bytes);

/* A directory that is there already is filled up; a file is left as it is. */
static errint kept_copy_entry(struct change *change, const struct kept_entry *entry, uint64_t to,
                              unsigned level, int64_t *bytes)
{
    struct meta *meta = change->meta;
    const struct meta_inode *inode = &entry->inode;
    bool directory = S_ISDIR(inode->mode);
    uint64_t copy;
    if (inode->state & META_ASSEMBLED)
        return 0;
    if (inode->kind == META_OBJECT || (inode->state & META_DIRTY))
        return -EBUSY;
    errint error = name_find(meta, to, entry->name, entry->length, &copy);
    if (!error && !directory)
        return 0;
    if (error == -ENOENT) {
        error = kept_copy_inode(change, inode, &copy);
        if (!error)
            error = name_insert(meta, to, entry->name, entry->length, copy);
        if (!error && directory)
            error = kept_add_link(meta, to, 1);
        if (S_ISREG(inode->mode) && __builtin_add_overflow(*bytes, inode->size, bytes))
            *bytes = INT64_MAX;
    }
    return error || !directory ? error : kept_copy_level(change, inode->ino, copy, level + 1, bytes);
}

static errint kept_copy_level(struct change *change, uint64_t from, uint64_t to, unsigned level,
                              int64_t *bytes)
{
    __attribute__((cleanup(kept_release_entries))) struct kept_entries entries = {0};
    errint error = level > KEPT_LEVELS_MAX ? -ELOOP : kept_read_entries(change->meta, from, &entries);
    for (size_t i = 0; i < entries.count && !error; i++)
        error = kept_copy_entry(change, &entries.at[i], to, level, bytes);
    return error;
}

/* The directory's copy, with the attributes that it had before the removal that is under way. */
static errint kept_copy(struct change *change, const struct meta_kept_take *wanted, uint64_t *out)
{
    struct meta *meta = change->meta;
    struct meta_inode directory;
    uint64_t removed = 0;
    int64_t bytes = 0;
    errint error = trash_find_open(meta, wanted->checkpoint, &removed);
    if (!error || error == -ENOENT)
        error = inode_load_directory(meta, removed ? removed : wanted->checkpoint, &directory);
    if (!error)
        error = kept_copy_inode(change, &directory, out);
    if (!error)
        error = kept_copy_level(change, wanted->checkpoint, *out, 0, &bytes);
    if (!error && removed)
        error = kept_copy_level(change, removed, *out, 0, &bytes);
    return error ? error : bytes < wanted->bytes ? -ENODATA : 0;
}

static errint kept_take(struct change *change, const struct meta_kept_take *wanted, struct meta_kept *out)
{
    struct meta *meta = change->meta;
    struct meta_inode directory;
    char name[KEPT_NAME_MAX];
    uint64_t all;
    *out = (struct meta_kept){.checkpoint = wanted->checkpoint, .partial = wanted->partial};
    errint error = name_load_parent(meta, wanted->checkpoint, &directory);
    if (!error)
        error = hidden_open(change, META_HIDDEN_KEPT, wanted->now, &all);
    if (!error)
        error = kept_copy(change, wanted, &out->ino);
    if (!error)
        error = name_insert(meta, all, name, kept_print_name(name, out), out->ino);
    return error ? error : kept_add_link(meta, all, 1);
}

errint meta_kept_take(struct meta *meta, const struct meta_kept_take *wanted, struct meta_kept *out)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = kept_take(&change, wanted, out);
    return change.error;
}

/* -- back, or away ----------------------------------------------------------------------------------------
 */

/* It has no name any more; -ENOENT: it had none. */
static errint kept_take_out(struct meta *meta, const struct meta_kept *kept)
{
    char name[KEPT_NAME_MAX];
    size_t length = kept_print_name(name, kept);
    uint64_t all, there;
    errint error = name_find(meta, META_HIDDEN_PARENT, META_HIDDEN_KEPT, strlen(META_HIDDEN_KEPT), &all);
    if (!error)
        error = name_find(meta, all, name, length, &there);
    if (!error && there != kept->ino)
        error = -ENOENT;
    if (!error)
        error = name_delete(meta, all, name, length);
    return error ? error : kept_add_link(meta, all, -1);
}

/* What is set for the checkpoint is so for what has its name; what is known of it as one goes. */
static errint kept_move_settings(struct meta *meta, uint64_t from, uint64_t to)
{
    errint error = db_run(meta->db, "UPDATE policy SET directory = $1 WHERE directory = $2 AND key <> $3",
                          DB_INTEGER(to), DB_INTEGER(from), DB_BLOB("template", strlen("template")));
    if (!error)
        error = db_run(meta->db, "UPDATE pin SET ino = $1 WHERE ino = $2", DB_INTEGER(to), DB_INTEGER(from));
    return error ? error : checkpoint_forget(meta, from);
}

static errint kept_move_away(struct meta *meta, const struct meta_kept_restore *wanted)
{
    struct meta_inode before;
    errint error = inode_load_directory(meta, wanted->kept.checkpoint, &before);
    if (!error)
        error = name_insert(meta, wanted->target, wanted->name, wanted->length, before.ino);
    if (!error)
        error = kept_add_link(meta, wanted->target, 1);
    if (error)
        return error;
    struct meta_inode after = before;
    after.ctime = wanted->now;
    return inode_update(meta, &before, &after);
}

static errint kept_restore(struct change *change, const struct meta_kept_restore *wanted)
{
    struct meta *meta = change->meta;
    struct meta_name name;
    errint error = kept_take_out(meta, &wanted->kept);
    if (!error)
        error = trash_name_of(meta, wanted->kept.checkpoint, &name);
    if (!error)
        error = name_point(meta, name.parent, name.bytes, name.length, wanted->kept.ino);
    if (!error)
        error = kept_move_away(meta, wanted);
    return error ? error : kept_move_settings(meta, wanted->kept.checkpoint, wanted->kept.ino);
}

errint meta_kept_restore(struct meta *meta, const struct meta_kept_restore *wanted)
{
    errint error = name_check(wanted->name, wanted->length, true);
    if (error)
        return error;
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = kept_restore(&change, wanted);
    return change.error;
}

/* It has the name for as long as it takes to go from there. */
static errint kept_remove(struct change *change, const struct meta_kept_removal *removal)
{
    struct meta *meta = change->meta;
    struct meta_trash row = {.kind = META_TRASH_CLOSED, .removed = removal->now, .remover = removal->remover};
    struct meta_inode parent;
    errint error = kept_take_out(meta, &removal->kept);
    if (!error)
        error = name_load_parent(meta, removal->parent, &parent);
    if (!error)
        error = name_insert(meta, removal->parent, removal->name, removal->length, removal->kept.ino);
    if (!error)
        error = kept_add_link(meta, removal->parent, 1);
    return error ? error : trash_take(change, removal->kept.ino, &row);
}

errint meta_kept_remove(struct meta *meta, const struct meta_kept_removal *removal)
{
    errint error = name_check(removal->name, removal->length, true);
    if (error)
        return error;
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = kept_remove(&change, removal);
    return change.error;
}

static errint kept_drop(struct change *change, const struct meta_kept *kept, int64_t now)
{
    struct meta *meta = change->meta;
    char name[KEPT_NAME_MAX];
    uint64_t removed;
    errint error = kept_take_out(meta, kept);
    if (error) {
        change->nothing = error == -ENOENT;
        return error == -ENOENT ? 0 : error;
    }
    error = hidden_open(change, META_HIDDEN_REMOVED, now, &removed);
    size_t length = kept_print_name(name, &(struct meta_kept){.checkpoint = kept->ino});
    if (!error)
        error = name_insert(meta, removed, name, length, kept->ino);
    return error ? error : kept_add_link(meta, removed, 1);
}

errint meta_kept_drop(struct meta *meta, const struct meta_kept *kept, int64_t now)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = kept_drop(&change, kept, now);
    return change.error;
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* False: no name that is given here. */
static bool kept_parse_name(const struct kept_entry *entry, struct meta_kept *out)
{
    char text[KEPT_NAME_MAX], again[KEPT_NAME_MAX];
    if (entry->length >= sizeof text || !S_ISDIR(entry->inode.mode))
        return false;
    memcpy(text, entry->name, entry->length);
    text[entry->length] = '\0';
    char *end;
    *out = (struct meta_kept){.checkpoint = strtoull(text, &end, 10), .ino = entry->inode.ino};
    out->partial = *end != '\0';
    kept_print_name(again, out);
    return strcmp(text, again) == 0;
}

errint meta_kept_read(struct meta *meta, struct meta_kept **out, size_t *count)
{
    META_LOCKED(meta);
    __attribute__((cleanup(kept_release_entries))) struct kept_entries entries = {0};
    uint64_t all;
    *out = NULL;
    *count = 0;
    errint error = name_find(meta, META_HIDDEN_PARENT, META_HIDDEN_KEPT, strlen(META_HIDDEN_KEPT), &all);
    if (!error)
        error = kept_read_entries(meta, all, &entries);
    if (error || entries.count == 0)
        return error == -ENOENT ? 0 : error;
    *out = calloc(entries.count, sizeof **out);
    if (!*out)
        return -ENOMEM;
    for (size_t i = 0; i < entries.count; i++)
        *count += kept_parse_name(&entries.at[i], &(*out)[*count]);
    return 0;
}
