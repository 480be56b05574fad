/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at the trash: all rows, their paths, and what a directory of the view shows. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/grow.h"
#include "base/name_table.h"
#include "meta/hidden.h"
#include "meta/trash_internal.h"

/* -- rows -------------------------------------------------------------------------------------------------
 */

struct trash_rows {
    struct meta_trash *at;
    size_t count, capacity;
};

static void trash_rows_release(struct trash_rows *rows)
{
    free(rows->at);
}

#define cleanup_trash_rows __attribute__((cleanup(trash_rows_release)))

static errint trash_rows_append(struct trash_rows *rows, const struct db_rows *from)
{
    if (!grow_reserve(rows->at, rows->capacity, rows->count + 1))
        return -ENOMEM;
    return trash_from_row(from, &rows->at[rows->count++]);
}

errint meta_trash_read(struct meta *meta, struct meta_trash **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    cleanup_trash_rows struct trash_rows all = {0};
    int found = db_select(meta->db, &rows,
                          "SELECT " TRASH_COLUMNS " FROM trash t WHERE t.ino > $1 ORDER BY t.removed, t.ino",
                          DB_INTEGER(0));
    while (!found && (found = db_next(&rows)) > 0)
        found = trash_rows_append(&all, &rows);
    *out = NULL;
    *count = 0;
    if (found)
        return found;
    *count = all.count;
    *out = steal_pointer(all.at);
    return 0;
}

errint meta_trash_next(struct meta *meta, uint64_t after, uint32_t uid, struct meta_trash *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " TRASH_COLUMNS " FROM trash t WHERE t.ino > $1 AND t.kind < 2 AND"
                             " ($2 = 0 OR (SELECT o.uid FROM inode o WHERE o.ino = t.ino) = $2)"
                             " ORDER BY t.ino LIMIT 1",
                             DB_INTEGER(after), DB_INTEGER(uid));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    return trash_from_row(&rows, out);
}

errint meta_trash_find(struct meta *meta, uint64_t ino, struct meta_trash *out)
{
    META_LOCKED(meta);
    return trash_load(meta, ino, out);
}

int meta_trash_has(struct meta *meta, uint64_t ino)
{
    META_LOCKED(meta);
    cleanup_ids struct ids parents = {0};
    errint error = trash_collect(meta, "SELECT parent FROM name WHERE ino = $1", ino, &parents);
    for (size_t i = 0; i < parents.count && !error; i++) {
        int reached = trash_is_reached(meta, parents.at[i]);
        if (reached)
            return reached < 0 ? reached : 0;
    }
    return error ? error : 1;
}

/* -- paths ------------------------------------------------------------------------------------------------
 */

/* Where the directory is, or was: -ENOENT for the root and for what leads nowhere. */
static errint trash_step_up(struct meta *meta, uint64_t directory, struct meta_name *out)
{
    struct meta_trash row;
    if (directory == META_ROOT_INO || directory == META_HIDDEN_PARENT)
        return -ENOENT;
    errint error = trash_load(meta, directory, &row);
    if (error)
        return error == -ENOENT ? trash_name_of(meta, directory, out) : error;
    out->parent = row.parent;
    out->length = row.length;
    memcpy(out->bytes, row.name, row.length + 1);
    return 0;
}

errint meta_trash_path(struct meta *meta, const struct meta_trash *trash, char **out)
{
    META_LOCKED(meta);
    struct meta_name name = {.parent = trash->parent, .length = trash->length};
    memcpy(name.bytes, trash->name, trash->length + 1);
    errint error = trash->directory ? trash_name_of(meta, trash->directory, &name) : 0;
    if (error == -ENOENT)
        error = 0; /* as it was */
    cleanup_free char *path = strdup("");
    for (int level = 0; !error && level < TRASH_LEVELS_MAX; level++) {
        char *longer;
        if (!path || asprintf(&longer, "/%s%s", name.bytes, path) < 0)
            return -ENOMEM;
        free(path);
        path = longer;
        error = trash_step_up(meta, name.parent, &name);
    }
    if (error && error != -ENOENT)
        return error;
    *out = steal_pointer(path);
    return 0;
}

errint meta_trash_find_above(struct meta *meta, const struct meta_trash *trash, uint64_t *out)
{
    META_LOCKED(meta);
    struct meta_trash row;
    errint error = 0;
    *out = trash->directory ? trash->directory : trash->parent;
    for (int level = 0; level < TRASH_LEVELS_MAX; level++) {
        error = trash_load(meta, *out, &row);
        if (error)
            break;
        *out = row.parent;
    }
    return error == -ENOENT ? 0 : error ? error : -ELOOP;
}

/* -- a directory of the view ------------------------------------------------------------------------------
 */

/* All directories on the ways from the root to entries. */
#define TRASH_WAYS                                                                                           \
    "(WITH RECURSIVE up(ino) AS (SELECT parent FROM trash WHERE kind < 2 UNION SELECT coalesce("             \
    "(SELECT t.parent FROM trash t WHERE t.ino = up.ino),"                                                   \
    " (SELECT w.parent FROM name w WHERE w.ino = up.ino LIMIT 1)) FROM up WHERE up.ino > 1)"                 \
    " SELECT ino FROM up WHERE ino IS NOT NULL)"

/* Whether a subdirectory of that name leads to an entry: 1, 0 or an error. */
static int trash_find_way(struct meta *meta, uint64_t directory, const char *name, size_t length,
                          struct meta_inode *out)
{
    cleanup_ids struct ids found = {0};
    uint64_t ino;
    /* The ways are many: most names are none on the mount. */
    errint error = name_find(meta, directory, name, length, &ino);
    if (!error)
        error = trash_collect(meta, "SELECT i.ino FROM inode i WHERE i.ino = $1 AND i.ino IN " TRASH_WAYS,
                              ino, &found);
    if (!error && found.count > 0)
        error = inode_load(meta, ino, out);
    return error && error != -ENOENT ? error : !error && found.count > 0;
}

static bool trash_is_entry(const struct meta_trash *row)
{
    return row->kind == META_TRASH_CLOSED || row->kind == META_TRASH_OPEN;
}

#define TRASH_SHOWN                                                                                          \
    " t.kind < 3 AND ($2 = 0 OR t.kind = 2 OR (SELECT o.uid FROM inode o WHERE o.ino = t.ino) = $2)"

/* What was removed from a directory and may be shown, in the order of the numbers. */
struct trash_removal {
    uint64_t ino;
    int64_t removed;
    bool entry;
    const char *name;
    uint32_t plain; /* of the first with a name: the index of the one that shows it as it is */
};

struct trash_removals {
    struct trash_removal *at;
    size_t count, capacity;
    struct arena names;
    struct name_table by_name;
    struct ids ways; /* of all directories, ordered */
};

static void trash_removals_release(struct trash_removals *removals)
{
    free(removals->at);
    arena_release(&removals->names);
    name_table_release(&removals->by_name);
    ids_release(&removals->ways);
}

#define cleanup_trash_removals __attribute__((cleanup(trash_removals_release)))

/* Entries before directories above some, then the last removal first. */
static bool trash_has_precedence(const struct trash_removal *one, const struct trash_removal *other)
{
    if (one->entry != other->entry)
        return one->entry;
    return one->removed != other->removed ? one->removed > other->removed : one->ino > other->ino;
}

static errint trash_removals_append(struct trash_removals *removals, const struct db_rows *rows)
{
    if (removals->count >= UINT32_MAX || !grow_reserve(removals->at, removals->capacity, removals->count + 1))
        return -ENOMEM;
    size_t length;
    const char *name = db_bytes(rows, 3, &length);
    uint32_t index = (uint32_t)removals->count;
    struct trash_removal *removal = &removals->at[index];
    *removal = (struct trash_removal){.ino = (uint64_t)db_integer(rows, 0),
                                      .removed = db_integer(rows, 1),
                                      .entry = db_integer(rows, 2) != META_TRASH_ABOVE,
                                      .name = arena_copy_text(&removals->names, name, length),
                                      .plain = index};
    errint error = removal->name ? name_table_add(&removals->by_name, removal->name, index) : -ENOMEM;
    if (error && error != -EEXIST)
        return error;
    removals->count++;
    name_table_find(&removals->by_name, removal->name, &index);
    struct trash_removal *first = &removals->at[index];
    if (trash_has_precedence(removal, &removals->at[first->plain]))
        first->plain = (uint32_t)(removal - removals->at);
    return 0;
}

static errint trash_read_removed(struct meta *meta, uint64_t directory, uint32_t uid,
                                 struct trash_removals *out)
{
    cleanup_rows struct db_rows rows;
    out->names.limit = SIZE_MAX;
    int found =
        db_select(meta->db, &rows,
                  "SELECT t.ino, t.removed, t.kind, t.name FROM trash t WHERE t.parent = $1 AND" TRASH_SHOWN
                  " ORDER BY t.ino",
                  DB_INTEGER(directory), DB_INTEGER(uid));
    while (!found && (found = db_next(&rows)) > 0)
        found = trash_removals_append(out, &rows);
    return found ? found
                 : trash_collect(meta, "SELECT ino FROM " TRASH_WAYS " WHERE ino > $1 ORDER BY ino", 0,
                                 &out->ways);
}

static int trash_compare_inodes(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

/* Whether a directory of that name is shown, which leads to entries: 1, 0 or an error. */
static int trash_is_taken(struct meta *meta, const struct trash_removals *removals, uint64_t directory,
                          const char *name)
{
    uint64_t ino;
    errint error = name_find(meta, directory, name, strlen(name), &ino);
    if (error)
        return error == -ENOENT ? 0 : error;
    return removals->ways.count > 0 &&
           bsearch(&ino, removals->ways.at, removals->ways.count, sizeof ino, trash_compare_inodes);
}

enum { TRASH_NAME_SHOWN_MAX = META_NAME_MAX + 24 };

static int trash_print_name(struct meta *meta, const struct trash_removals *removals, size_t i,
                            uint64_t directory, char out[TRASH_NAME_SHOWN_MAX])
{
    const struct trash_removal *removal = &removals->at[i];
    size_t length = strlen(removal->name);
    uint32_t first;
    bool plain = name_table_find(&removals->by_name, removal->name, &first) && removals->at[first].plain == i;
    int taken = plain ? trash_is_taken(meta, removals, directory, removal->name) : 1;
    if (taken < 0)
        return taken;
    if (!taken)
        return snprintf(out, TRASH_NAME_SHOWN_MAX, "%s", removal->name);
    char number[24];
    int digits = snprintf(number, sizeof number, "~%" PRIu64, removal->ino);
    size_t room = META_NAME_MAX - (size_t)digits;
    return snprintf(out, TRASH_NAME_SHOWN_MAX, "%.*s%s", (int)(length < room ? length : room), removal->name,
                    number);
}

typedef bool trash_entry(void *context, const char *name, size_t length, uint64_t cookie,
                         const struct meta_inode *inode, bool is_entry);

/* 1: the receiver has enough. */
static int trash_list_ways(struct meta *meta, uint64_t directory, uint64_t after, trash_entry *entry,
                           void *context)
{
    if (after >= META_TRASH_COOKIE)
        return 0;
    cleanup_rows struct db_rows rows;
    int found = db_select(meta->db, &rows,
                          "SELECT " INODE_COLUMNS ", n.name, n.cookie FROM name n"
                          " JOIN inode i ON i.ino = n.ino WHERE n.parent = $1 AND n.cookie > $2"
                          " AND (i.mode & 61440) = 16384 AND n.ino IN " TRASH_WAYS " ORDER BY n.cookie",
                          DB_INTEGER(directory), DB_INTEGER(after));
    while (!found && (found = db_next(&rows)) > 0) {
        size_t length;
        struct meta_inode inode;
        const char *name = db_bytes(&rows, INODE_COLUMN_COUNT, &length);
        inode_from_row(&rows, &inode);
        if (!entry(context, name, length, (uint64_t)db_integer(&rows, INODE_COLUMN_COUNT + 1), &inode, false))
            return 1;
        found = 0;
    }
    return found;
}

static errint trash_list_removed(struct meta *meta, const struct trash_removals *removals, uint64_t directory,
                                 uint64_t after, trash_entry *entry, void *context)
{
    for (size_t i = 0; i < removals->count; i++) {
        char name[TRASH_NAME_SHOWN_MAX];
        struct meta_inode inode;
        const struct trash_removal *removal = &removals->at[i];
        if (META_TRASH_COOKIE + removal->ino <= after)
            continue;
        errint error = inode_load_directory(meta, removal->ino, &inode);
        int length = error ? error : trash_print_name(meta, removals, i, directory, name);
        if (length < 0)
            return length;
        if (!entry(context, name, (size_t)length, META_TRASH_COOKIE + removal->ino, &inode, removal->entry))
            return 0;
    }
    return 0;
}

errint meta_trash_list(struct meta *meta, uint64_t directory, uint32_t uid, uint64_t after,
                       trash_entry *entry, void *context)
{
    META_LOCKED(meta);
    cleanup_trash_removals struct trash_removals removals = {0};
    int enough = trash_list_ways(meta, directory, after, entry, context);
    if (enough)
        return enough < 0 ? enough : 0;
    errint error = trash_read_removed(meta, directory, uid, &removals);
    return error ? error : trash_list_removed(meta, &removals, directory, after, entry, context);
}

/* The number at the end of NAME~NUMBER; 0: there is none. */
static uint64_t trash_parse_number(const char *name, size_t length)
{
    const char *tilde = memrchr(name, '~', length);
    uint64_t number = 0;
    for (const char *at = tilde ? tilde + 1 : name + length; at < name + length; at++) {
        if (*at < '0' || *at > '9' || number > UINT64_MAX / 100)
            return 0;
        number = number * 10 + (uint64_t)(*at - '0');
    }
    return number;
}

/* What a name of the directory means; -ENOENT. */
static errint trash_find_named(struct meta *meta, uint64_t directory, uint32_t uid, const char *name,
                               size_t length, struct meta_trash *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " TRASH_COLUMNS " FROM trash t WHERE t.parent = $1 AND" TRASH_SHOWN
                             " AND t.name = $3 ORDER BY t.kind = 2, t.removed DESC, t.ino DESC LIMIT 1",
                             DB_INTEGER(directory), DB_INTEGER(uid), DB_BLOB(name, length));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    return trash_from_row(&rows, out);
}

/* The same for NAME~NUMBER, where NAME may have been cut. */
static errint trash_find_numbered(struct meta *meta, uint64_t directory, uint32_t uid, const char *name,
                                  size_t length, struct meta_trash *out)
{
    uint64_t number = trash_parse_number(name, length);
    errint error = number ? trash_load(meta, number, out) : -ENOENT;
    if (error)
        return error;
    const char *tilde = memrchr(name, '~', length);
    size_t before = (size_t)(tilde - name);
    bool named = out->parent == directory && before <= out->length && memcmp(out->name, name, before) == 0;
    bool shown = out->kind != META_TRASH_GOING && (uid == 0 || !trash_is_entry(out) || out->uid == uid);
    return named && shown ? 0 : -ENOENT;
}

errint meta_trash_lookup(struct meta *meta, uint64_t directory, uint32_t uid, const char *name, size_t length,
                         struct meta_inode *out, bool *is_entry)
{
    META_LOCKED(meta);
    struct meta_trash row;
    *is_entry = false;
    int way = trash_find_way(meta, directory, name, length, out);
    if (way)
        return way < 0 ? way : 0;
    errint error = trash_find_named(meta, directory, uid, name, length, &row);
    if (error == -ENOENT)
        error = trash_find_numbered(meta, directory, uid, name, length, &row);
    if (error)
        return error;
    *is_entry = trash_is_entry(&row);
    return inode_load_directory(meta, row.ino, out);
}
