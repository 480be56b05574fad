/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes. */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "meta/internal.h"

enum {
    XATTR_NAME_BYTES = 255,       /* Linux's limits (linux/limits.h) */
    XATTR_VALUE_BYTES = 64 << 10, /* one value */
    XATTR_LIST_BYTES = 64 << 10,  /* all names with their NULs: what listxattr(2) can return */
    XATTR_FILE_BYTES = 1 << 20,   /* all values of a file */
};

static errint xattr_check_name(const char *name)
{
    size_t length = strlen(name);
    return length == 0 || length > XATTR_NAME_BYTES ? -ERANGE : 0;
}

/* The length of a value, copied as far as `capacity` is not 0; -ENODATA, -ERANGE. */
static ssize_t xattr_read(struct meta *meta, uint64_t ino, const char *name, void *value, size_t capacity)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT value FROM xattr WHERE ino = $1 AND name = $2",
                             DB_INTEGER(ino), DB_BLOB(name, strlen(name)));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENODATA;
    size_t length;
    const void *bytes = db_bytes(&rows, 0, &length);
    if (capacity && length > capacity)
        return -ERANGE;
    if (capacity && length)
        memcpy(value, bytes, length);
    return (ssize_t)length;
}

/* Whether the file may get one more attribute, or a longer one instead of one of `replaced` bytes (-1: none).
 */
static errint xattr_check_room(struct meta *meta, uint64_t ino, const char *name, size_t length,
                               ssize_t replaced)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT coalesce(sum(length(value)), 0), coalesce(sum(length(name) + 1), 0)"
                             " FROM xattr WHERE ino = $1",
                             DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EIO;
    int64_t values = db_integer(&rows, 0) + (int64_t)length - (replaced < 0 ? 0 : replaced);
    int64_t names = db_integer(&rows, 1) + (replaced < 0 ? (int64_t)strlen(name) + 1 : 0);
    return values > XATTR_FILE_BYTES || names > XATTR_LIST_BYTES ? -ENOSPC : 0;
}

static errint xattr_touch(struct meta *meta, const struct meta_inode *inode, int64_t now)
{
    struct meta_inode after = *inode;
    after.ctime = now;
    return inode_update(meta, inode, &after);
}

/* What meta_xattr_set is asked for. */
struct xattr_setting {
    uint64_t ino;
    const char *name;
    const void *value;
    size_t length;
    int flags;
    int64_t now;
};

static errint xattr_set(struct change *change, const struct xattr_setting *setting)
{
    struct meta *meta = change->meta;
    struct meta_inode inode;
    errint error = inode_load(meta, setting->ino, &inode);
    if (error)
        return error;
    ssize_t old = xattr_read(meta, setting->ino, setting->name, NULL, 0);
    if (old < 0 && old != -ENODATA)
        return (errint)old;
    if (old >= 0 && (setting->flags & XATTR_CREATE))
        return -EEXIST;
    if (old < 0 && (setting->flags & XATTR_REPLACE))
        return -ENODATA;
    error = xattr_check_room(meta, setting->ino, setting->name, setting->length, old);
    if (!error)
        error = db_run(meta->db,
                       "INSERT INTO xattr (ino, name, value) VALUES ($1, $2, $3)"
                       " ON CONFLICT (ino, name) DO UPDATE SET value = excluded.value",
                       DB_INTEGER(setting->ino), DB_BLOB(setting->name, strlen(setting->name)),
                       DB_BLOB(setting->value, setting->length));
    return error ? error : xattr_touch(meta, &inode, setting->now);
}

errint meta_xattr_set(struct meta *meta, uint64_t ino, const char *name, const void *value, size_t length,
                      int flags, int64_t now, uint64_t unique)
{
    int both = XATTR_CREATE | XATTR_REPLACE;
    errint error = xattr_check_name(name);
    if (!error && ((flags & ~both) || (flags & both) == both))
        error = -EINVAL;
    if (!error && length > XATTR_VALUE_BYTES)
        error = -E2BIG;
    if (error)
        return error;
    struct xattr_setting setting = {ino, name, value, length, flags, now};
    struct change change = {.meta = meta, .request = unique, .ino = ino};
    while (change_next(&change))
        change.error = xattr_set(&change, &setting);
    return change.error;
}

ssize_t meta_xattr_get(struct meta *meta, uint64_t ino, const char *name, void *value, size_t capacity)
{
    errint error = xattr_check_name(name);
    if (error)
        return error;
    META_LOCKED(meta);
    struct meta_inode inode;
    ssize_t length = xattr_read(meta, ino, name, value, capacity);
    if (length == -ENODATA && (error = inode_load(meta, ino, &inode)))
        return error;
    return length;
}

ssize_t meta_xattr_list(struct meta *meta, uint64_t ino, char *names, size_t capacity)
{
    META_LOCKED(meta);
    struct meta_inode inode;
    errint error = inode_load(meta, ino, &inode);
    if (error)
        return error;
    cleanup_rows struct db_rows rows;
    error =
        db_select(meta->db, &rows, "SELECT name FROM xattr WHERE ino = $1 ORDER BY name", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    size_t total = 0;
    for (; found > 0; found = db_next(&rows)) {
        size_t length;
        const void *name = db_bytes(&rows, 0, &length);
        if (capacity && total + length + 1 > capacity)
            return -ERANGE;
        if (capacity) {
            memcpy(names + total, name, length);
            names[total + length] = '\0';
        }
        total += length + 1;
    }
    return found < 0 ? found : (ssize_t)total;
}

static errint xattr_remove(struct change *change, uint64_t ino, const char *name, int64_t now)
{
    struct meta *meta = change->meta;
    struct meta_inode inode;
    errint error = inode_load(meta, ino, &inode);
    if (!error)
        error = db_run(meta->db, "DELETE FROM xattr WHERE ino = $1 AND name = $2", DB_INTEGER(ino),
                       DB_BLOB(name, strlen(name)));
    if (!error && db_changed(meta->db) == 0)
        error = -ENODATA;
    return error ? error : xattr_touch(meta, &inode, now);
}

errint meta_xattr_remove(struct meta *meta, uint64_t ino, const char *name, int64_t now, uint64_t unique)
{
    errint error = xattr_check_name(name);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .ino = ino};
    while (change_next(&change))
        change.error = xattr_remove(&change, ino, name, now);
    return change.error;
}
