/* SPDX-License-Identifier: Apache-2.0 */
/* What goes into the trash: names, one by one or a directory at a time. */
#include "meta/trash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/hidden.h"
#include "meta/trash_internal.h"

enum { TRASH_NUMBER_MAX = 24 };

/* -- rows -------------------------------------------------------------------------------------------------
 */

errint trash_from_row(const struct db_rows *rows, struct meta_trash *out)
{
    size_t reason_length;
    const char *name = db_bytes(rows, 4, &out->length);
    if (out->length > META_NAME_MAX)
        return -EUCLEAN;
    memcpy(out->name, name, out->length);
    out->name[out->length] = '\0';
    const char *reason = db_bytes(rows, 7, &reason_length);
    if (reason_length >= sizeof out->reason)
        return -EUCLEAN;
    if (reason_length > 0)
        memcpy(out->reason, reason, reason_length);
    out->reason[reason_length] = '\0';
    out->ino = (uint64_t)db_integer(rows, 0);
    out->directory = (uint64_t)db_integer(rows, 1);
    out->kind = (enum meta_trash_kind)db_integer(rows, 2);
    out->parent = (uint64_t)db_integer(rows, 3);
    out->removed = db_integer(rows, 5);
    out->remover = (uint32_t)db_integer(rows, 6);
    out->uid = (uint32_t)db_integer(rows, 8);
    return 0;
}

errint trash_load(struct meta *meta, uint64_t ino, struct meta_trash *out)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT " TRASH_COLUMNS " FROM trash t WHERE t.ino = $1", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    return trash_from_row(&rows, out);
}

errint trash_collect(struct meta *meta, const char *text, uint64_t parameter, struct ids *out)
{
    cleanup_rows struct db_rows rows;
    int found = db_select(meta->db, &rows, text, DB_INTEGER(parameter));
    while (!found && (found = db_next(&rows)) > 0)
        found = ids_append(out, (uint64_t)db_integer(&rows, 0));
    return found;
}

errint trash_name_of(struct meta *meta, uint64_t directory, struct meta_name *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT parent, name FROM name WHERE ino = $1 LIMIT 1",
                             DB_INTEGER(directory));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    const char *bytes = db_bytes(&rows, 1, &out->length);
    if (out->length > META_NAME_MAX)
        return -EUCLEAN;
    out->parent = (uint64_t)db_integer(&rows, 0);
    memcpy(out->bytes, bytes, out->length);
    out->bytes[out->length] = '\0';
    return 0;
}

static errint trash_insert(struct meta *meta, const struct meta_trash *row)
{
    return db_run(meta->db,
                  "INSERT INTO trash (ino, directory, kind, parent, name, removed, remover, reason)"
                  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                  DB_INTEGER(row->ino), DB_INTEGER(row->directory), DB_INTEGER(row->kind),
                  DB_INTEGER(row->parent), DB_BLOB(row->name, row->length), DB_INTEGER(row->removed),
                  DB_INTEGER(row->remover), DB_BLOB(row->reason, strlen(row->reason)));
}

errint trash_find_open(struct meta *meta, uint64_t checkpoint, uint64_t *ino)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT ino FROM trash WHERE directory = $1 AND directory <> 0 AND kind = 1",
                             DB_INTEGER(checkpoint));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *ino = (uint64_t)db_integer(&rows, 0);
    return 0;
}

/* -- hidden directories -----------------------------------------------------------------------------------
 */

static size_t trash_print_number(char name[TRASH_NUMBER_MAX], uint64_t ino)
{
    return (size_t)snprintf(name, TRASH_NUMBER_MAX, "%" PRIu64, ino);
}

static errint trash_add_link(struct meta *meta, uint64_t directory, int links)
{
    struct meta_inode before = {0};
    errint error = inode_load_directory(meta, directory, &before);
    struct meta_inode after = before;
    after.nlink += (uint32_t)links;
    return error ? error : inode_update(meta, &before, &after);
}

errint trash_put_in(struct change *change, uint64_t ino, int64_t now)
{
    char name[TRASH_NUMBER_MAX];
    uint64_t all;
    errint error = hidden_open(change, META_HIDDEN_TRASH, now, &all);
    if (!error)
        error = name_insert(change->meta, all, name, trash_print_number(name, ino), ino);
    return error ? error : trash_add_link(change->meta, all, 1);
}

errint trash_take_out(struct change *change, uint64_t ino)
{
    char name[TRASH_NUMBER_MAX];
    uint64_t all;
    errint error =
        name_find(change->meta, META_HIDDEN_PARENT, META_HIDDEN_TRASH, strlen(META_HIDDEN_TRASH), &all);
    if (!error)
        error = name_delete(change->meta, all, name, trash_print_number(name, ino));
    return error ? error : trash_add_link(change->meta, all, -1);
}

/* A directory without a name yet that has the attributes of another, and what is set for it. */
static errint trash_copy_directory(struct change *change, uint64_t from, uint64_t *out)
{
    struct meta *meta = change->meta;
    struct meta_inode directory;
    errint error = inode_load_directory(meta, from, &directory);
    if (!error)
        error = change_take_number(meta, META_COUNTER_INO, out);
    if (error)
        return error;
    directory.ino = *out;
    directory.nlink = 2;
    error = inode_insert(meta, &directory);
    if (!error)
        error = db_run(meta->db,
                       "INSERT INTO xattr (ino, name, value) SELECT $1, x.name, x.value FROM xattr x"
                       " WHERE x.ino = $2",
                       DB_INTEGER(*out), DB_INTEGER(from));
    if (!error)
        error = db_run(meta->db,
                       "INSERT INTO policy (directory, key, value, uid, gid)"
                       " SELECT $1, p.key, p.value, p.uid, p.gid FROM policy p"
                       " WHERE p.directory = $2 AND p.key <> $3",
                       DB_INTEGER(*out), DB_INTEGER(from), DB_BLOB("template", strlen("template")));
    if (!error)
        error = db_run(meta->db, "INSERT INTO pin (ino) SELECT $1 FROM pin p WHERE p.ino = $2",
                       DB_INTEGER(*out), DB_INTEGER(from));
    return error;
}

errint trash_drop_directory(struct change *change, uint64_t ino, int64_t now)
{
    struct meta_inode before = {0};
    errint error = inode_load_directory(change->meta, ino, &before);
    struct meta_inode after = before;
    after.nlink = 0;
    after.ctime = now;
    return error ? error : inode_unlinked(change, &before, &after, true);
}

int trash_is_reached(struct meta *meta, uint64_t directory)
{
    for (int level = 0; level < TRASH_LEVELS_MAX && directory != META_HIDDEN_PARENT; level++) {
        if (directory == META_ROOT_INO)
            return 1;
        errint error = name_parent(meta, directory, &directory);
        if (error)
            return error == -ENOENT ? 0 : error;
    }
    return 0;
}

/* -- forgetting -------------------------------------------------------------------------------------------
 */

static int trash_leads_on(struct meta *meta, uint64_t directory)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT 1 FROM trash WHERE parent = $1 LIMIT 1", DB_INTEGER(directory));
    return error ? error : db_next(&rows);
}

static errint trash_delete_row(struct meta *meta, uint64_t ino)
{
    return db_run(meta->db, "DELETE FROM trash WHERE ino = $1", DB_INTEGER(ino));
}

errint trash_forget(struct change *change, const struct meta_trash *row, int64_t now)
{
    struct meta *meta = change->meta;
    struct meta_trash above = *row;
    errint error = trash_delete_row(meta, row->ino);
    for (int level = 0; !error && level < TRASH_LEVELS_MAX; level++) {
        error = trash_load(meta, above.parent, &above);
        int needed = error ? error : above.kind != META_TRASH_ABOVE ? 1 : trash_leads_on(meta, above.ino);
        if (needed)
            return needed < 0 && needed != -ENOENT ? needed : 0;
        error = trash_delete_row(meta, above.ino);
        if (!error)
            error = trash_take_out(change, above.ino);
        if (!error)
            error = trash_drop_directory(change, above.ino, now);
    }
    return error;
}

/* -- removing name by name --------------------------------------------------------------------------------
 */

/* An entry for the checkpoint, with nothing in it yet. */
static errint trash_open_entry(struct change *change, const struct name_removal *removal, uint64_t *entry)
{
    struct meta *meta = change->meta;
    struct meta_name name;
    errint error = trash_find_open(meta, removal->trash, entry);
    if (error != -ENOENT)
        return error;
    error = trash_name_of(meta, removal->trash, &name);
    if (!error)
        error = trash_copy_directory(change, removal->trash, entry);
    if (!error)
        error = trash_put_in(change, *entry, removal->now);
    if (error)
        return error;
    struct meta_trash row = {
        .ino = *entry,
        .directory = removal->trash,
        .kind = META_TRASH_OPEN,
        .parent = name.parent,
        .length = name.length,
        .removed = removal->removed,
        .remover = removal->remover,
    };
    memcpy(row.name, name.bytes, name.length);
    return trash_insert(meta, &row);
}

/* The directories from `directory` up to the checkpoint, that one not counted. -ESTALE: it is not below it.
 */
static errint trash_way_up(struct meta *meta, uint64_t checkpoint, uint64_t directory, struct ids *way)
{
    while (directory != checkpoint) {
        if (directory == META_ROOT_INO || directory == META_HIDDEN_PARENT || way->count == TRASH_LEVELS_MAX)
            return -ESTALE;
        errint error = ids_append(way, directory);
        if (!error)
            error = name_parent(meta, directory, &directory);
        if (error)
            return error == -ENOENT ? -ESTALE : error;
    }
    return 0;
}

/* The directory of the entry that stands for one below the checkpoint. */
static errint trash_open_directory(struct change *change, uint64_t checkpoint, uint64_t directory,
                                   uint64_t *hidden)
{
    struct meta *meta = change->meta;
    cleanup_ids struct ids way = {0};
    errint error = trash_way_up(meta, checkpoint, directory, &way);
    for (size_t i = way.count; i > 0 && !error; i--) {
        struct meta_name name;
        uint64_t above = *hidden;
        error = trash_name_of(meta, way.at[i - 1], &name);
        if (!error)
            error = name_find(meta, above, name.bytes, name.length, hidden);
        if (error != -ENOENT)
            continue;
        error = trash_copy_directory(change, way.at[i - 1], hidden);
        if (!error)
            error = name_insert(meta, above, name.bytes, name.length, *hidden);
        if (!error)
            error = trash_add_link(meta, above, 1);
    }
    return error;
}

errint trash_prepare(struct change *change, const struct name_removal *removal,
                     const struct meta_inode *inode, uint64_t *kept)
{
    uint64_t hidden = 0, there;
    *kept = 0;
    if (inode->state & META_ASSEMBLED)
        return 0;
    errint error = trash_open_entry(change, removal, &hidden);
    if (!error)
        error = trash_open_directory(change, removal->trash,
                                     removal->directory ? inode->ino : removal->parent, &hidden);
    if (error || removal->directory)
        return error;
    error = name_find(change->meta, hidden, removal->name, removal->length, &there);
    if (error == -ENOENT)
        *kept = hidden;
    return error == -ENOENT ? 0 : error;
}

errint meta_trash_remove(struct meta *meta, const struct meta_trash_removal *removal, uint64_t unique,
                         struct ids *freed)
{
    const struct name_removal wanted = {
        .parent = removal->parent,
        .name = removal->name,
        .length = removal->length,
        .expected = removal->expected,
        .directory = removal->directory,
        .now = removal->now,
        .trash = removal->checkpoint,
        .remover = removal->remover,
        .removed = removal->removed,
    };
    errint error = name_check(removal->name, removal->length, false);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = name_remove(&change, &wanted);
    return change.error;
}

errint trash_close(struct meta *meta, uint64_t directory)
{
    return db_run(meta->db, "UPDATE trash SET kind = 0 WHERE directory = $1 AND directory <> 0 AND kind = 1",
                  DB_INTEGER(directory));
}

errint meta_trash_close(struct meta *meta, uint64_t directory)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change)) {
        change.error = trash_close(meta, directory);
        change.nothing = !change.error && db_changed(meta->db) == 0;
    }
    return change.error;
}

/* -- directories that go ----------------------------------------------------------------------------------
 */

/* What was removed from a directory that goes was removed from this one. */
static errint trash_put_above(struct change *change, const struct trash_removed *removed)
{
    struct meta *meta = change->meta;
    struct meta_trash row = {.kind = META_TRASH_ABOVE, .parent = removed->parent, .length = removed->length};
    row.removed = removed->now;
    memcpy(row.name, removed->name, removed->length);
    errint error = trash_copy_directory(change, removed->inode->ino, &row.ino);
    if (!error)
        error = trash_put_in(change, row.ino, removed->now);
    if (!error)
        error = trash_insert(meta, &row);
    return error ? error
                 : db_run(meta->db, "UPDATE trash SET parent = $1 WHERE parent = $2", DB_INTEGER(row.ino),
                          DB_INTEGER(removed->inode->ino));
}

errint trash_directory_removed(struct change *change, const struct trash_removed *removed)
{
    struct meta *meta = change->meta;
    uint64_t ino = removed->inode->ino;
    errint error = db_run(
        meta->db,
        "UPDATE trash SET directory = 0, removed = CASE WHEN kind = 1 AND removed < $1"
        " THEN $1 ELSE removed END, kind = CASE kind WHEN 1 THEN 0 ELSE kind END, parent = $2, name = $3"
        " WHERE directory = $4 AND directory <> 0",
        DB_INTEGER(removed->now), DB_INTEGER(removed->parent), DB_BLOB(removed->name, removed->length),
        DB_INTEGER(ino));
    int leads = error ? error : trash_leads_on(meta, ino);
    return leads > 0 ? trash_put_above(change, removed) : leads;
}

/* Its name is gone: what is in it joins the open entry. */
static errint trash_take_rest(struct change *change, const struct trash_removed *removed, uint64_t entry)
{
    const struct meta_inode *before = removed->inode;
    errint error = trash_merge(change, &(struct trash_pair){before->ino, entry, false}, removed->now);
    struct meta_inode now = {0}, after;
    if (!error)
        error = trash_directory_removed(change, removed);
    if (!error)
        error = inode_load_directory(change->meta, before->ino, &now);
    after = now;
    after.nlink = 0;
    after.ctime = removed->now;
    if (!error)
        error = inode_unlinked(change, &now, &after, false);
    return error ? error : shadow_let_go(change, before->ino);
}

errint trash_take(struct change *change, uint64_t directory, struct meta_trash *row)
{
    struct meta *meta = change->meta;
    struct meta_name name;
    struct meta_inode above, inode;
    uint64_t entry;
    errint error = trash_name_of(meta, directory, &name);
    int reached = error ? error : trash_is_reached(meta, name.parent);
    if (reached <= 0)
        return reached < 0 ? reached : -ENOENT;
    error = inode_load_directory(meta, name.parent, &above);
    if (!error)
        error = inode_load_directory(meta, directory, &inode);
    if (!error)
        error = name_delete(meta, name.parent, name.bytes, name.length);
    if (!error)
        error = name_touch_parent(meta, &above, -1, row->removed);
    if (!error)
        error = trash_find_open(meta, directory, &entry);
    if (error != -ENOENT)
        return error ? error
                     : trash_take_rest(change,
                                       &(struct trash_removed){&inode, name.parent, name.bytes, name.length,
                                                               row->removed},
                                       entry);
    error = trash_put_in(change, directory, row->removed);
    row->ino = directory;
    row->parent = name.parent;
    row->length = name.length;
    memcpy(row->name, name.bytes, name.length);
    return error ? error : trash_insert(meta, row);
}

static errint trash_stamp(struct meta *meta, uint64_t ino, int64_t removed)
{
    return db_run(meta->db, "UPDATE trash SET removed = $1 WHERE ino = $2", DB_INTEGER(removed),
                  DB_INTEGER(ino));
}

errint meta_trash_take(struct meta *meta, uint64_t directory, uint32_t remover, const char *reason,
                       int64_t now, int64_t removed)
{
    if (directory == META_ROOT_INO)
        return -EBUSY;
    struct meta_trash row = {.kind = META_TRASH_CLOSED, .removed = now, .remover = remover};
    snprintf(row.reason, sizeof row.reason, "%s", reason);
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change)) {
        change.error = trash_take(&change, directory, &row);
        if (!change.error && removed != now && row.ino)
            change.error = trash_stamp(meta, row.ino, removed);
    }
    return change.error;
}
