/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shadows: the inode that a name had before a file took the name whose bytes are not on stable storage yet.
 *
 * A shadow belongs to a name. It is there exactly as long as the name's inode is its successor and that one
 * was not synced. It does not follow the successor to another name: a power cut would show the replaced file
 * where it never was.
 */
#include <errno.h>

#include "meta/internal.h"

errint shadow_find(struct meta *meta, uint64_t parent, const char *name, size_t length, struct shadow *out)
{
    if (meta->known.shadows == 0)
        return -ENOENT;
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT replaced, successor FROM shadow WHERE parent = $1 AND name = $2",
                  DB_INTEGER(parent), DB_BLOB(name, length));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *out = (struct shadow){(uint64_t)db_integer(&rows, 0), (uint64_t)db_integer(&rows, 1)};
    return 0;
}

int shadow_is(struct meta *meta, uint64_t ino)
{
    if (meta->known.shadows == 0)
        return 0;
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT 1 FROM shadow WHERE replaced = $1 LIMIT 1", DB_INTEGER(ino));
    return error ? error : db_next(&rows);
}

errint shadow_insert(struct meta *meta, uint64_t parent, const char *name, size_t length,
                     const struct shadow *shadow)
{
    errint error =
        db_run(meta->db, "INSERT INTO shadow (parent, name, replaced, successor) VALUES ($1, $2, $3, $4)",
               DB_INTEGER(parent), DB_BLOB(name, length), DB_INTEGER(shadow->replaced),
               DB_INTEGER(shadow->successor));
    if (!error)
        meta->known.shadows++;
    return error;
}

errint shadow_delete(struct meta *meta, uint64_t parent, const char *name, size_t length)
{
    errint error = db_run(meta->db, "DELETE FROM shadow WHERE parent = $1 AND name = $2", DB_INTEGER(parent),
                          DB_BLOB(name, length));
    if (!error)
        meta->known.shadows -= db_changed(meta->db);
    return error;
}

errint shadow_let_go(struct change *change, uint64_t ino)
{
    return ids_append(change->shadows ? change->shadows : &change->meta->released, ino);
}

errint shadow_release(struct change *change, uint64_t parent, const char *name, size_t length)
{
    struct shadow shadow;
    errint error = shadow_find(change->meta, parent, name, length, &shadow);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = shadow_delete(change->meta, parent, name, length);
    return error ? error : shadow_let_go(change, shadow.replaced);
}

errint shadow_release_all(struct change *change, uint64_t successor)
{
    struct meta *meta = change->meta;
    if (meta->known.shadows == 0)
        return 0;
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT replaced FROM shadow WHERE successor = $1", DB_INTEGER(successor));
    int found = error ? error : db_next(&rows);
    for (; found > 0; found = db_next(&rows)) {
        error = shadow_let_go(change, (uint64_t)db_integer(&rows, 0));
        if (error)
            return error;
    }
    if (found < 0)
        return found;
    db_finish(&rows);
    error = db_run(meta->db, "DELETE FROM shadow WHERE successor = $1", DB_INTEGER(successor));
    if (!error)
        meta->known.shadows -= db_changed(meta->db);
    return error;
}

errint meta_shadows_released(struct meta *meta, struct ids *out)
{
    META_LOCKED(meta);
    for (; meta->released.count > 0; meta->released.count--) {
        errint error = ids_append(out, meta->released.at[meta->released.count - 1]);
        if (error)
            return error;
    }
    return 0;
}
