/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of directories, inherited downwards. */
#include "meta/policy.h"

#include <errno.h>
#include <string.h>

#include "meta/internal.h"

/* A path has no more directories than that; a damaged table may lead in a circle. */
enum { POLICY_LEVELS_MAX = 1 << 16 };

/* -- changing ---------------------------------------------------------------------------------------------
 */

static bool policy_fits(const char *text, size_t room)
{
    size_t length = strlen(text);
    return length > 0 && length < room;
}

/* Who sets something; -1: not known. */
struct policy_setter {
    int64_t uid, gid;
};

static const struct policy_setter policy_nobody = {-1, -1};

static errint policy_put(struct meta *meta, uint64_t directory, const struct meta_policy_change *wanted,
                         const struct policy_setter *setter)
{
    if (!policy_fits(wanted->key, META_POLICY_KEY_MAX) ||
        (wanted->value && !policy_fits(wanted->value, META_POLICY_VALUE_MAX)))
        return -EINVAL;
    if (!wanted->value)
        return db_run(meta->db, "DELETE FROM policy WHERE directory = $1 AND key = $2", DB_INTEGER(directory),
                      DB_BLOB(wanted->key, strlen(wanted->key)));
    return db_run(meta->db,
                  "INSERT INTO policy (directory, key, value, uid, gid) VALUES ($1, $2, $3, $4, $5)"
                  " ON CONFLICT (directory, key) DO UPDATE SET value = excluded.value,"
                  " uid = excluded.uid, gid = excluded.gid",
                  DB_INTEGER(directory), DB_BLOB(wanted->key, strlen(wanted->key)),
                  DB_BLOB(wanted->value, strlen(wanted->value)), DB_INTEGER(setter->uid),
                  DB_INTEGER(setter->gid));
}

static errint policy_change_by(struct change *change, uint64_t directory,
                               const struct meta_policy_change *changes, size_t count,
                               const struct policy_setter *setter)
{
    struct meta_inode row;
    errint error = inode_load_directory(change->meta, directory, &row);
    if (!error && row.nlink == 0)
        error = -ENOENT;
    for (size_t i = 0; i < count && !error; i++)
        error = policy_put(change->meta, directory, &changes[i], setter);
    return error;
}

errint policy_change(struct change *change, uint64_t directory, const struct meta_policy_change *changes,
                     size_t count)
{
    return policy_change_by(change, directory, changes, count, &policy_nobody);
}

errint policy_forget(struct meta *meta, uint64_t directory)
{
    return db_run(meta->db, "DELETE FROM policy WHERE directory = $1", DB_INTEGER(directory));
}

errint meta_policy_change(struct meta *meta, uint64_t directory, const struct meta_policy_change *changes,
                          size_t count)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = policy_change(&change, directory, changes, count);
    return change.error;
}

errint meta_policy_change_by(struct meta *meta, uint64_t directory, const struct meta_policy_change *changes,
                             size_t count, uint32_t uid, uint32_t gid)
{
    const struct policy_setter setter = {uid, gid};
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = policy_change_by(&change, directory, changes, count, &setter);
    return change.error;
}

/* -- looking ----------------------------------------------------------------------------------------------
 */

/* The directory's own; -ENOENT. */
static errint policy_find_own(struct meta *meta, const char *key, struct meta_policy_found *out)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT value, uid, gid FROM policy WHERE directory = $1 AND key = $2",
                  DB_INTEGER(out->directory), DB_BLOB(key, strlen(key)));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    size_t length;
    const char *value = db_bytes(&rows, 0, &length);
    if (length >= sizeof out->value)
        return -EUCLEAN;
    memcpy(out->value, value, length);
    out->value[length] = '\0';
    out->uid = (uint32_t)db_integer(&rows, 1);
    out->gid = (uint32_t)db_integer(&rows, 2);
    return 0;
}

errint meta_policy_find(struct meta *meta, uint64_t directory, const char *key, struct meta_policy_found *out)
{
    META_LOCKED(meta);
    out->directory = directory;
    for (out->levels = 0; out->levels < POLICY_LEVELS_MAX; out->levels++) {
        errint error = policy_find_own(meta, key, out);
        if (error != -ENOENT || out->directory == META_ROOT_INO)
            return error;
        error = name_parent(meta, out->directory, &out->directory);
        if (error)
            return error;
    }
    return -ELOOP;
}

errint meta_policy_find_directories(struct meta *meta, const char *key, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT directory FROM policy WHERE key = $1", DB_BLOB(key, strlen(key)));
    return error ? error : rows_collect_ids(&rows, out);
}

errint meta_policy_holders(struct meta *meta, const char *key, const char *value, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT directory FROM policy WHERE key = $1 AND value = $2",
                             DB_BLOB(key, strlen(key)), DB_BLOB(value, strlen(value)));
    return error ? error : rows_collect_ids(&rows, out);
}
