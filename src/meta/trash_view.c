/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at the trash: all rows, their paths, and what a directory of the view shows. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    if (rows->count == rows->capacity) {
        size_t capacity = rows->capacity ? rows->capacity * 2 : 8;
        struct meta_trash *at = reallocarray(rows->at, capacity, sizeof *at);
        if (!at)
            return -ENOMEM;
        rows->at = at;
        rows->capacity = capacity;
    }
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

/* -- a directory of the view ------------------------------------------------------------------------------
 */

/* All directories on the ways from the root to entries. */
#define TRASH_WAYS                                                                                           \
    "(WITH RECURSIVE up(ino) AS (SELECT parent FROM trash WHERE kind < 2 UNION SELECT coalesce("             \
    "(SELECT t.parent FROM trash t WHERE t.ino = up.ino),"                                                   \
    " (SELECT w.parent FROM name w WHERE w.ino = up.ino LIMIT 1)) FROM up WHERE up.ino > 1)"                 \
    " SELECT ino FROM up WHERE ino IS NOT NULL)"

/* Whether a subdirectory of that name leads to an entry: 1, 0 or an error. `out` may be NULL. */
static int trash_find_way(struct meta *meta, uint64_t directory, const char *name, size_t length,
                          struct meta_inode *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " INODE_COLUMNS " FROM name n JOIN inode i ON i.ino = n.ino"
                             " WHERE n.parent = $1 AND n.name = $2 AND (i.mode & 61440) = 16384"
                             " AND n.ino IN " TRASH_WAYS,
                             DB_INTEGER(directory), DB_BLOB(name, length));
    int found = error ? error : db_next(&rows);
    if (found > 0 && out)
        inode_from_row(&rows, out);
    return found;
}

static bool trash_is_entry(const struct meta_trash *row)
{
    return row->kind == META_TRASH_CLOSED || row->kind == META_TRASH_OPEN;
}

/* What was removed from the directory and may be shown, the last removal first, entries before others. */
static errint trash_read_removed(struct meta *meta, uint64_t directory, uint32_t uid, struct trash_rows *out)
{
    cleanup_rows struct db_rows rows;
    int found = db_select(meta->db, &rows,
                          "SELECT " TRASH_COLUMNS " FROM trash t WHERE t.parent = $1 AND t.kind < 3"
                          " ORDER BY t.kind = 2, t.removed DESC, t.ino DESC",
                          DB_INTEGER(directory));
    while (!found && (found = db_next(&rows)) > 0) {
        found = trash_rows_append(out, &rows);
        const struct meta_trash *row = found ? NULL : &out->at[out->count - 1];
        if (row && uid != 0 && trash_is_entry(row) && row->uid != uid)
            out->count--;
    }
    return found;
}

/* Whether the row's name is shown as it is: 1, 0 or an error. */
static int trash_has_plain_name(struct meta *meta, const struct trash_rows *removed, size_t i)
{
    const struct meta_trash *row = &removed->at[i];
    for (size_t j = 0; j < i; j++) {
        const struct meta_trash *before = &removed->at[j];
        if (before->length == row->length && memcmp(before->name, row->name, row->length) == 0)
            return 0;
    }
    int taken = trash_find_way(meta, row->parent, row->name, row->length, NULL);
    return taken < 0 ? taken : !taken;
}

enum { TRASH_SHOWN_MAX = META_NAME_MAX + 24 };

static int trash_print_name(struct meta *meta, const struct trash_rows *removed, size_t i,
                            char out[TRASH_SHOWN_MAX])
{
    const struct meta_trash *row = &removed->at[i];
    int plain = trash_has_plain_name(meta, removed, i);
    if (plain < 0)
        return plain;
    if (plain)
        return snprintf(out, TRASH_SHOWN_MAX, "%s", row->name);
    char number[24];
    int digits = snprintf(number, sizeof number, "~%" PRIu64, row->ino);
    size_t room = META_NAME_MAX - (size_t)digits;
    return snprintf(out, TRASH_SHOWN_MAX, "%.*s%s", (int)(row->length < room ? row->length : room), row->name,
                    number);
}

typedef bool trash_entry(void *context, const char *name, size_t length, uint64_t cookie,
                         const struct meta_inode *inode, const struct meta_trash *row);

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
        if (!entry(context, name, length, (uint64_t)db_integer(&rows, INODE_COLUMN_COUNT + 1), &inode, NULL))
            return 1;
        found = 0;
    }
    return found;
}

static int trash_compare_numbers(const void *a, const void *b)
{
    const struct meta_trash *const *left = a, *const *right = b;
    return ((*left)->ino > (*right)->ino) - ((*left)->ino < (*right)->ino);
}

static errint trash_list_removed(struct meta *meta, const struct trash_rows *removed, uint64_t after,
                                 trash_entry *entry, void *context)
{
    cleanup_free const struct meta_trash **order = calloc(removed->count + 1, sizeof *order);
    if (!order)
        return -ENOMEM;
    for (size_t i = 0; i < removed->count; i++)
        order[i] = &removed->at[i];
    qsort(order, removed->count, sizeof *order, trash_compare_numbers);
    for (size_t i = 0; i < removed->count; i++) {
        char name[TRASH_SHOWN_MAX];
        struct meta_inode inode;
        const struct meta_trash *row = order[i];
        if (META_TRASH_COOKIE + row->ino <= after)
            continue;
        errint error = inode_load_directory(meta, row->ino, &inode);
        int length = error ? error : trash_print_name(meta, removed, (size_t)(row - removed->at), name);
        if (length < 0)
            return length;
        if (!entry(context, name, (size_t)length, META_TRASH_COOKIE + row->ino, &inode,
                   trash_is_entry(row) ? row : NULL))
            return 0;
    }
    return 0;
}

errint meta_trash_list(struct meta *meta, uint64_t directory, uint32_t uid, uint64_t after,
                       trash_entry *entry, void *context)
{
    META_LOCKED(meta);
    cleanup_trash_rows struct trash_rows removed = {0};
    int enough = trash_list_ways(meta, directory, after, entry, context);
    if (enough)
        return enough < 0 ? enough : 0;
    errint error = trash_read_removed(meta, directory, uid, &removed);
    return error ? error : trash_list_removed(meta, &removed, after, entry, context);
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

static bool trash_matches(const struct meta_trash *row, uint64_t number, const char *name, size_t length)
{
    if (number == row->ino) {
        const char *tilde = memrchr(name, '~', length);
        size_t before = (size_t)(tilde - name);
        return before <= row->length && memcmp(row->name, name, before) == 0;
    }
    return row->length == length && memcmp(row->name, name, length) == 0;
}

errint meta_trash_lookup(struct meta *meta, uint64_t directory, uint32_t uid, const char *name, size_t length,
                         struct meta_inode *out, bool *is_entry)
{
    META_LOCKED(meta);
    cleanup_trash_rows struct trash_rows removed = {0};
    uint64_t number = trash_parse_number(name, length);
    *is_entry = false;
    int way = trash_find_way(meta, directory, name, length, out);
    if (way)
        return way < 0 ? way : 0;
    errint error = trash_read_removed(meta, directory, uid, &removed);
    for (size_t i = 0; i < removed.count && !error; i++) {
        const struct meta_trash *row = &removed.at[i];
        if (!trash_matches(row, number, name, length))
            continue;
        *is_entry = trash_is_entry(row);
        return inode_load_directory(meta, row->ino, out);
    }
    return error ? error : -ENOENT;
}
