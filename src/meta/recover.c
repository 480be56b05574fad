/* SPDX-License-Identifier: Apache-2.0 */
/* What a start after a stop of any kind needs: finding what was left, and going back to what is whole. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "meta/hidden.h"
#include "meta/internal.h"

/* -- finding ----------------------------------------------------------------------------------------------
 */

static errint recover_find(struct meta *meta, const char *text, struct ids *out)
{
    META_LOCKED(meta);
    struct db_rows rows;
    errint error = db_select(meta->db, &rows, text);
    return error ? error : rows_collect_ids(&rows, out);
}

/* "+ino" in the order: else the engine would rather read the whole table in its order than sort the few rows
 * of the index. */
errint meta_find_dirty(struct meta *meta, struct ids *out)
{
    return recover_find(meta, "SELECT ino FROM inode WHERE state <> 0 AND (state & 1) <> 0 ORDER BY +ino",
                        out);
}

errint meta_find_orphans(struct meta *meta, struct ids *out)
{
    return recover_find(meta,
                        "SELECT i.ino FROM inode i WHERE i.nlink = 0"
                        " AND NOT EXISTS (SELECT 1 FROM shadow s WHERE s.replaced = i.ino)"
                        " AND NOT EXISTS (SELECT 1 FROM stand_in t WHERE t.hidden = i.ino)"
                        " AND NOT EXISTS (SELECT 1 FROM assembled a WHERE a.ino = i.ino) ORDER BY i.ino",
                        out);
}

errint meta_find_unreferenced(struct meta *meta, struct ids *out)
{
    return recover_find(meta,
                        "SELECT o.id FROM object o WHERE o.owner = 0"
                        " AND NOT EXISTS (SELECT 1 FROM extent e WHERE e.object = o.id) ORDER BY o.id",
                        out);
}

errint meta_find_objects(struct meta *meta, struct ids *out)
{
    return recover_find(meta, "SELECT id FROM object ORDER BY id", out);
}

errint meta_find_sealed(struct meta *meta, struct ids *out)
{
    return recover_find(meta, "SELECT id FROM object WHERE owner = 0 AND size > 0 ORDER BY id", out);
}

errint meta_find_users(struct meta *meta, uint64_t object, struct ids *out)
{
    META_LOCKED(meta);
    struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT DISTINCT ino FROM extent WHERE object = $1 ORDER BY ino",
                  DB_INTEGER(object));
    return error ? error : rows_collect_ids(&rows, out);
}

errint meta_find_torn(struct meta *meta, size_t limit, struct ids *out)
{
    META_LOCKED(meta);
    struct db_rows rows;
    errint error = db_select(
        meta->db, &rows, "SELECT ino FROM inode WHERE state <> 0 AND (state & 2) <> 0 ORDER BY +ino LIMIT $1",
        DB_INTEGER(limit > INT64_MAX ? INT64_MAX : limit));
    return error ? error : rows_collect_ids(&rows, out);
}

/* -- shadows ----------------------------------------------------------------------------------------------
 */

/* A name that goes back from its successor to the inode that it replaced. */
struct recover_name {
    uint64_t parent;
    char name[META_NAME_MAX];
    size_t length;
    uint64_t replaced;
};

/* One of the names of the successor that have a shadow; -ENOENT when none is left. */
static errint recover_find_name(struct meta *meta, uint64_t successor, struct recover_name *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT parent, name, replaced FROM shadow WHERE successor = $1"
                             " ORDER BY parent, name LIMIT 1",
                             DB_INTEGER(successor));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    const char *name = db_bytes(&rows, 1, &out->length);
    if (out->length > sizeof out->name)
        return -EUCLEAN;
    memcpy(out->name, name, out->length);
    out->parent = (uint64_t)db_integer(&rows, 0);
    out->replaced = (uint64_t)db_integer(&rows, 2);
    return 0;
}

static errint recover_name_back(struct change *change, uint64_t successor, const struct recover_name *name)
{
    struct meta *meta = change->meta;
    struct meta_inode lost, found, after;
    errint error = inode_load(meta, successor, &lost);
    if (!error)
        error = inode_load(meta, name->replaced, &found);
    if (error)
        return error == -ENOENT ? -EUCLEAN : error;
    error = shadow_delete(meta, name->parent, name->name, name->length);
    if (!error)
        error = name_point(meta, name->parent, name->name, name->length, name->replaced);
    if (error)
        return error;
    after = found;
    after.nlink++;
    error = inode_update(meta, &found, &after);
    if (error)
        return error;
    after = lost;
    after.nlink--;
    return inode_unlinked(change, &lost, &after, true);
}

/* `shadows` of the change are those that got their names back. */
static errint recover_restore(struct change *change, const struct ids *torn)
{
    struct recover_name name;
    errint error = 0;
    for (size_t i = 0; !error && i < torn->count; i++) {
        while ((error = recover_find_name(change->meta, torn->at[i], &name)) == 0) {
            error = recover_name_back(change, torn->at[i], &name);
            if (!error)
                error = ids_append(change->shadows, name.replaced);
            if (error)
                return error;
        }
        error = error == -ENOENT ? 0 : error;
    }
    return error;
}

errint meta_restore_shadows(struct meta *meta, const struct ids *torn, struct ids *restored,
                            struct ids *freed)
{
    struct change change = {.meta = meta, .freed = freed, .shadows = restored, .spends = true};
    while (change_next(&change))
        change.error = recover_restore(&change, torn);
    return change.error;
}

/* -- paths ------------------------------------------------------------------------------------------------
 */

/* One name of the inode, as long as it has one; -ENOENT. */
static errint recover_one_name(struct meta *meta, uint64_t ino, struct recover_name *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT parent, name FROM name WHERE ino = $1 ORDER BY parent, name LIMIT 1",
                             DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    const char *name = db_bytes(&rows, 1, &out->length);
    if (out->length > sizeof out->name)
        return -EUCLEAN;
    memcpy(out->name, name, out->length);
    out->parent = (uint64_t)db_integer(&rows, 0);
    return 0;
}

enum { META_PATH_DEPTH = 10000 };

errint meta_path(struct meta *meta, uint64_t ino, char **out)
{
    META_LOCKED(meta);
    cleanup_free char *path = strdup(ino == META_ROOT_INO ? "/" : "");
    if (!path)
        return -ENOMEM;
    int depth = 0;
    while (ino != META_ROOT_INO) {
        struct recover_name name = {.name = META_HIDDEN_TEXT, .length = strlen(META_HIDDEN_TEXT)};
        bool hidden = ino == META_HIDDEN_PARENT;
        errint error = hidden ? 0 : recover_one_name(meta, ino, &name);
        if (error && error != -ENOENT)
            return error;
        char *longer;
        int length = error ? 1 : (int)name.length;
        if (asprintf(&longer, "/%.*s%s", length, error ? "?" : name.name, path) < 0)
            return -ENOMEM;
        free(path);
        path = longer;
        /* In a damaged database directories may lie in a circle. */
        if (error || hidden || ++depth == META_PATH_DEPTH)
            break;
        ino = name.parent;
    }
    *out = steal_pointer(path);
    return 0;
}
