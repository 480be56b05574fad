/* SPDX-License-Identifier: Apache-2.0 */
/* Directories' entries: looking them up, listing, making and removing them. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/internal.h"

enum { NAME_LINKS_MAX = 65000 };

/* -- rows -------------------------------------------------------------------------------------------------
 */

errint name_check(const char *name, size_t length, bool making)
{
    if (length > META_NAME_MAX)
        return -ENAMETOOLONG;
    if (length == 0 || memchr(name, '/', length) || memchr(name, '\0', length))
        return -EINVAL;
    bool dots = name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.'));
    return making && dots ? -EINVAL : 0;
}

errint name_find(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t *ino)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT ino FROM name WHERE parent = $1 AND name = $2",
                             DB_INTEGER(parent), DB_BLOB(name, length));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *ino = (uint64_t)db_integer(&rows, 0);
    return 0;
}

errint name_insert(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t ino)
{
    uint64_t cookie;
    errint error = change_take_number(meta, META_COUNTER_COOKIE, &cookie);
    if (!error)
        error = db_run(meta->db,
                       "INSERT INTO name (parent, name, cookie, ino) VALUES ($1, $2, $3, $4)"
                       " ON CONFLICT (parent, name) DO NOTHING",
                       DB_INTEGER(parent), DB_BLOB(name, length), DB_INTEGER(cookie), DB_INTEGER(ino));
    if (error)
        return error;
    return db_changed(meta->db) == 0 ? -EEXIST : 0;
}

errint name_delete(struct meta *meta, uint64_t parent, const char *name, size_t length)
{
    return db_run(meta->db, "DELETE FROM name WHERE parent = $1 AND name = $2", DB_INTEGER(parent),
                  DB_BLOB(name, length));
}

errint name_point(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t ino)
{
    return db_run(meta->db, "UPDATE name SET ino = $1 WHERE parent = $2 AND name = $3", DB_INTEGER(ino),
                  DB_INTEGER(parent), DB_BLOB(name, length));
}

errint name_parent(struct meta *meta, uint64_t ino, uint64_t *parent)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT parent FROM name WHERE ino = $1 LIMIT 1", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *parent = (uint64_t)db_integer(&rows, 0);
    return 0;
}

int name_any(struct meta *meta, uint64_t directory)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT 1 FROM name n WHERE n.parent = $1 AND NOT EXISTS (SELECT 1"
                             " FROM assembled a WHERE a.directory = n.parent AND a.name = n.name"
                             " AND a.ino = n.ino) LIMIT 1",
                             DB_INTEGER(directory));
    return error ? error : db_next(&rows);
}

/* -- looking ----------------------------------------------------------------------------------------------
 */

errint meta_lookup(struct meta *meta, uint64_t parent, const char *name, size_t length,
                   struct meta_inode *out)
{
    if (length > META_NAME_MAX)
        return -ENAMETOOLONG;
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT " INODE_COLUMNS
                             " FROM name n JOIN inode i ON i.ino = n.ino WHERE n.parent = $1 AND n.name = $2",
                             DB_INTEGER(parent), DB_BLOB(name, length));
    int found = error ? error : db_next(&rows);
    if (found < 0)
        return found;
    struct meta_inode directory;
    if (found == 0) {
        error = inode_load_directory(meta, parent, &directory);
        return error ? error : -ENOENT;
    }
    inode_from_row(&rows, out);
    return 0;
}

errint meta_find_names(struct meta *meta, uint64_t ino, const struct meta_name *after, struct meta_name *out,
                       size_t room, size_t *count)
{
    static const char text[] = "SELECT parent, name FROM name WHERE ino = $1 AND (parent, name) > ($2, $3)"
                               " ORDER BY parent, name LIMIT $4";
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    *count = 0;
    errint error = db_select(meta->db, &rows, text, DB_INTEGER(ino), DB_INTEGER(after ? after->parent : 0),
                             DB_BLOB(after ? after->bytes : "", after ? after->length : 0), DB_INTEGER(room));
    int found = error ? error : db_next(&rows);
    for (; found > 0; found = db_next(&rows)) {
        struct meta_name *name = &out[(*count)++];
        const char *bytes = db_bytes(&rows, 1, &name->length);
        if (name->length > META_NAME_MAX)
            return -EUCLEAN;
        name->parent = (uint64_t)db_integer(&rows, 0);
        memcpy(name->bytes, bytes, name->length);
        name->bytes[name->length] = '\0';
    }
    return found;
}

errint meta_parent(struct meta *meta, uint64_t directory, uint64_t *parent)
{
    META_LOCKED(meta);
    *parent = META_ROOT_INO;
    if (directory == META_ROOT_INO)
        return 0;
    struct meta_inode inode;
    errint error = inode_load_directory(meta, directory, &inode);
    return error ? error : name_parent(meta, directory, parent);
}

errint meta_list(struct meta *meta, uint64_t directory, uint64_t after,
                 bool (*entry)(void *context, const char *name, size_t length, uint64_t cookie,
                               const struct meta_inode *inode),
                 void *context)
{
    static const char text[] =
        "SELECT " INODE_COLUMNS ", n.name, n.cookie FROM name n JOIN inode i ON i.ino = n.ino"
        " WHERE n.parent = $1 AND n.cookie > $2 ORDER BY n.cookie";
    META_LOCKED(meta);
    struct meta_inode inode;
    errint error = inode_load_directory(meta, directory, &inode);
    if (error)
        return error;
    if (after > INT64_MAX)
        return 0;
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows, text, DB_INTEGER(directory), DB_INTEGER(after));
    int found = error ? error : db_next(&rows);
    for (; found > 0; found = db_next(&rows)) {
        size_t length;
        const char *name = db_bytes(&rows, INODE_COLUMN_COUNT, &length);
        inode_from_row(&rows, &inode);
        if (!entry(context, name, length, (uint64_t)db_integer(&rows, INODE_COLUMN_COUNT + 1), &inode))
            return 0;
    }
    return found;
}

/* -- making -----------------------------------------------------------------------------------------------
 */

errint name_touch_parent(struct meta *meta, const struct meta_inode *parent, int subdirectories, int64_t now)
{
    struct meta_inode after = *parent;
    after.mtime = after.ctime = now;
    after.nlink += (uint32_t)subdirectories;
    return inode_update(meta, parent, &after);
}

errint name_load_parent(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load_directory(meta, ino, out);
    return error || out->nlink > 0 ? error : -ENOENT;
}

/* As name_insert, where an assembled file of that name gives way. */
static errint name_insert_new(struct change *change, uint64_t parent, const char *name, size_t length,
                              uint64_t ino)
{
    errint error = name_insert(change->meta, parent, name, length, ino);
    if (error != -EEXIST)
        return error;
    error = beside_give_way(change, parent, name, length);
    return error ? error : name_insert(change->meta, parent, name, length, ino);
}

static errint name_check_new(const struct meta_new *new)
{
    switch (new->mode &S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK: break;
    case S_IFLNK:
        if (!new->target || new->target_length == 0)
            return -EINVAL;
        if (new->target_length >= PATH_MAX)
            return -ENAMETOOLONG;
        break;
    default: return -EINVAL;
    }
    if (!S_ISREG(new->mode) && (new->object || !new->parent))
        return -EINVAL;
    return new->parent ? name_check(new->name, new->length, true) : 0;
}

static void name_fill_inode(const struct meta_new *new, const struct meta_inode *parent,
                            struct meta_inode *inode)
{
    *inode = (struct meta_inode){
        .ino = inode->ino,
        .mode = new->mode,
        .nlink = S_ISDIR(new->mode) ? 2
                 : new->parent      ? 1
                                    : 0,
        .uid = new->uid,
        .gid = new->gid,
        .rdev = new->rdev,
        .atime = new->now,
        .mtime = new->now,
        .ctime = new->now,
        .btime = new->now,
    };
    if (new->object) {
        inode->kind = META_OBJECT;
        inode->state = META_DIRTY;
        inode->object = new->object;
        inode->synced_size = -1;
    } else if (S_ISLNK(new->mode)) {
        inode->kind = META_INLINE;
        inode->size = inode->synced_size = (int64_t) new->target_length;
    }
    if (new->parent && (parent->mode & S_ISGID)) {
        inode->gid = parent->gid;
        if (S_ISDIR(new->mode))
            inode->mode |= S_ISGID;
    }
}

static errint name_create_rows(struct meta *meta, const struct meta_new *new, const struct meta_inode *inode)
{
    errint error = inode_insert(meta, inode);
    if (!error && new->object)
        error = object_own(meta, new->object, inode->ino);
    if (!error && S_ISLNK(new->mode))
        error = content_insert(meta, inode->ino, new->target, new->target_length);
    return error;
}

errint name_create(struct change *change, const struct meta_new *new, struct meta_inode *out)
{
    struct meta *meta = change->meta;
    struct meta_inode parent = {0};
    errint error = new->parent ? name_load_parent(meta, new->parent, &parent) : 0;
    if (!error)
        error = change_take_number(meta, META_COUNTER_INO, &out->ino);
    if (!error && new->parent)
        error = name_insert_new(change, new->parent, new->name, new->length, out->ino);
    if (!error && new->parent)
        error = name_touch_parent(meta, &parent, S_ISDIR(new->mode) ? 1 : 0, new->now);
    if (error)
        return error;
    name_fill_inode(new, &parent, out);
    change->ino = out->ino;
    return name_create_rows(meta, new, out);
}

errint meta_create(struct meta *meta, const struct meta_new *new, uint64_t unique, struct meta_inode *out)
{
    errint error = name_check_new(new);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique};
    while (change_next(&change))
        change.error = name_create(&change, new, out);
    return change.error;
}

static errint name_link(struct change *change, uint64_t ino, uint64_t parent, const char *name, size_t length,
                        int64_t now, struct meta_inode *out)
{
    struct meta *meta = change->meta;
    struct meta_inode inode, directory;
    errint error = inode_load(meta, ino, &inode);
    if (error)
        return error;
    if (S_ISDIR(inode.mode))
        return -EPERM;
    error = name_load_parent(meta, parent, &directory);
    if (!error)
        error = name_insert_new(change, parent, name, length, ino);
    if (error)
        return error;
    if (inode.nlink >= NAME_LINKS_MAX)
        return -EMLINK;
    *out = inode;
    out->nlink++;
    out->ctime = now;
    error = inode_update(meta, &inode, out);
    return error ? error : name_touch_parent(meta, &directory, 0, now);
}

errint meta_link(struct meta *meta, uint64_t ino, uint64_t parent, const char *name, size_t length,
                 int64_t now, uint64_t unique, struct meta_inode *out)
{
    errint error = name_check(name, length, true);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .ino = ino};
    while (change_next(&change))
        change.error = name_link(&change, ino, parent, name, length, now, out);
    return change.error;
}

/* -- removing ---------------------------------------------------------------------------------------------
 */

/* 0, or why the inode cannot be removed in this way. */
static errint name_check_removal(struct meta *meta, const struct name_removal *removal,
                                 const struct meta_inode *inode)
{
    if (!removal->directory)
        return S_ISDIR(inode->mode) ? -EISDIR : 0;
    if (!S_ISDIR(inode->mode))
        return -ENOTDIR;
    int entries = name_any(meta, inode->ino);
    return entries > 0 ? -ENOTEMPTY : entries;
}

/* The directory that has the name, and the inode that is its. */
static errint name_load_removal(struct meta *meta, const struct name_removal *removal,
                                struct meta_inode *parent, struct meta_inode *inode)
{
    uint64_t ino;
    errint error = inode_load_directory(meta, removal->parent, parent);
    if (!error)
        error = name_find(meta, removal->parent, removal->name, removal->length, &ino);
    if (!error && ino != removal->expected)
        error = -ESTALE;
    if (!error)
        error = inode_load(meta, ino, inode);
    return error ? error : name_check_removal(meta, removal, inode);
}

errint name_remove(struct change *change, const struct name_removal *removal)
{
    struct meta *meta = change->meta;
    struct meta_inode parent, before;
    uint64_t kept = 0;
    errint error = name_load_removal(meta, removal, &parent, &before);
    if (!error && removal->trash)
        error = trash_prepare(change, removal, &before, &kept);
    if (!error)
        error = beside_leave(change, removal->parent, removal->name, removal->length, &before);
    if (!error)
        error = shadow_release(change, removal->parent, removal->name, removal->length);
    if (!error)
        error = name_delete(meta, removal->parent, removal->name, removal->length);
    if (!error)
        error = name_touch_parent(meta, &parent, removal->directory ? -1 : 0, removal->now);
    if (!error && removal->directory)
        error =
            trash_directory_removed(change, &(struct trash_removed){&before, removal->parent, removal->name,
                                                                    removal->length, removal->now});
    if (error)
        return error;
    change->ino = before.ino;
    struct meta_inode after = before;
    after.ctime = removal->now;
    if (kept) {
        /* It has this name there from now on. */
        error = name_insert(meta, kept, removal->name, removal->length, before.ino);
        return error ? error : inode_update(meta, &before, &after);
    }
    after.nlink = removal->directory ? 0 : before.nlink - 1;
    return inode_unlinked(change, &before, &after, removal->reap);
}

errint meta_unlink(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t expected,
                   bool reap, int64_t now, uint64_t unique, struct ids *freed)
{
    struct name_removal removal = {
        .parent = parent, .name = name, .length = length, .expected = expected, .reap = reap, .now = now};
    errint error = name_check(name, length, false);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = name_remove(&change, &removal);
    return change.error;
}

errint meta_rmdir(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t expected,
                  bool reap, int64_t now, uint64_t unique)
{
    struct name_removal removal = {.parent = parent,
                                   .name = name,
                                   .length = length,
                                   .expected = expected,
                                   .directory = true,
                                   .reap = reap,
                                   .now = now};
    errint error = name_check(name, length, false);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .spends = true};
    while (change_next(&change))
        change.error = name_remove(&change, &removal);
    return change.error;
}
