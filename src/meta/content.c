/* SPDX-License-Identifier: Apache-2.0 */
/* What a file is made of: small contents in the database, one object that is written, or extents after its
 * seal. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/internal.h"

/* -- objects' rows ----------------------------------------------------------------------------------------
 */

/* 1 when the object had no row, 0 when it had one, or an error. */
static int object_insert(struct meta *meta, uint64_t object, uint64_t owner, int64_t size)
{
    errint error = db_run(
        meta->db, "INSERT INTO object (id, size, owner) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
        DB_INTEGER(object), DB_INTEGER(size), DB_INTEGER(owner));
    if (error || db_changed(meta->db) == 0)
        return error;
    meta->known.objects++;
    return 1;
}

errint object_note(struct meta *meta, uint64_t object, int64_t size)
{
    int inserted = object_insert(meta, object, 0, size);
    if (inserted)
        return inserted < 0 ? inserted : 0;
    return db_run(meta->db, "UPDATE object SET size = $1 WHERE id = $2 AND size < $1", DB_INTEGER(size),
                  DB_INTEGER(object));
}

errint object_own(struct meta *meta, uint64_t object, uint64_t owner)
{
    int inserted = object_insert(meta, object, owner, 0);
    if (inserted)
        return inserted < 0 ? inserted : 0;
    return db_run(meta->db, "UPDATE object SET owner = $1 WHERE id = $2", DB_INTEGER(owner),
                  DB_INTEGER(object));
}

errint object_set(struct meta *meta, uint64_t object, uint64_t owner, int64_t size)
{
    return db_run(meta->db, "UPDATE object SET size = $1, owner = $2 WHERE id = $3", DB_INTEGER(size),
                  DB_INTEGER(owner), DB_INTEGER(object));
}

static errint object_disown(struct meta *meta, uint64_t object)
{
    return db_run(meta->db, "UPDATE object SET owner = 0 WHERE id = $1", DB_INTEGER(object));
}

static errint object_load(struct meta *meta, uint64_t object, int64_t *size, uint64_t *owner)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT size, owner FROM object WHERE id = $1", DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *size = db_integer(&rows, 0);
    *owner = (uint64_t)db_integer(&rows, 1);
    return 0;
}

/* Whether a file other than `ino` (0: any file) refers to the object: 1, 0 or an error. */
static int object_is_used(struct meta *meta, uint64_t object, uint64_t ino)
{
    int64_t size;
    uint64_t owner = 0;
    errint error = object_load(meta, object, &size, &owner);
    if (error && error != -ENOENT)
        return error;
    if (owner && owner != ino)
        return 1;
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows, "SELECT 1 FROM extent WHERE object = $1 AND ino <> $2 LIMIT 1",
                      DB_INTEGER(object), DB_INTEGER(ino));
    return error ? error : db_next(&rows);
}

errint object_release(struct change *change, uint64_t object)
{
    int used = object_is_used(change->meta, object, 0);
    if (used)
        return used < 0 ? used : object_mark_shrunk(change->meta, object);
    return change->freed ? ids_append(change->freed, object) : 0;
}

static int object_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

errint object_release_all(struct change *change, struct ids *objects)
{
    errint error = 0;
    if (objects->count > 1)
        qsort(objects->at, objects->count, sizeof *objects->at, object_compare);
    for (size_t i = 0; !error && i < objects->count; i++) {
        if (i == 0 || objects->at[i] != objects->at[i - 1])
            error = object_release(change, objects->at[i]);
    }
    return error;
}

errint meta_object_size(struct meta *meta, uint64_t object, int64_t *size)
{
    META_LOCKED(meta);
    uint64_t owner;
    return object_load(meta, object, size, &owner);
}

int meta_object_shared(struct meta *meta, uint64_t object, uint64_t ino)
{
    META_LOCKED(meta);
    return object_is_used(meta, object, ino);
}

static errint object_forget(struct change *change, const struct ids *objects)
{
    struct meta *meta = change->meta;
    errint error = 0;
    change->nothing = objects->count == 0;
    for (size_t i = 0; !error && i < objects->count; i++) {
        error = db_run(meta->db, "DELETE FROM object WHERE id = $1", DB_INTEGER(objects->at[i]));
        if (!error)
            meta->known.objects -= db_changed(meta->db);
        if (!error)
            error = object_unsum(meta, objects->at[i]);
        if (!error)
            error = db_run(meta->db, "DELETE FROM shrunk WHERE object = $1", DB_INTEGER(objects->at[i]));
        if (!error)
            error = object_forget_damage(meta, objects->at[i]);
    }
    return error;
}

errint meta_object_forget(struct meta *meta, const struct ids *objects)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = object_forget(&change, objects);
    return change.error;
}

/* -- small contents ---------------------------------------------------------------------------------------
 */

errint content_insert(struct meta *meta, uint64_t ino, const void *bytes, size_t length)
{
    return db_run(meta->db, "INSERT INTO content (ino, bytes) VALUES ($1, $2)", DB_INTEGER(ino),
                  DB_BLOB(bytes, length));
}

errint content_cut(struct meta *meta, uint64_t ino, int64_t size)
{
    return db_run(meta->db, "UPDATE content SET bytes = substr(bytes, 1, $1) WHERE ino = $2",
                  DB_INTEGER(size), DB_INTEGER(ino));
}

/* The stored bytes; what the file has beyond them is zeros. */
static ssize_t content_copy(struct meta *meta, const struct meta_inode *inode, void *buffer, size_t capacity)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT bytes FROM content WHERE ino = $1", DB_INTEGER(inode->ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    size_t stored;
    const void *bytes = db_bytes(&rows, 0, &stored);
    size_t wanted = (uint64_t)inode->size < capacity ? (size_t)inode->size : capacity;
    size_t copied = stored < wanted ? stored : wanted;
    if (copied)
        memcpy(buffer, bytes, copied);
    if (wanted > copied)
        memset((char *)buffer + copied, 0, wanted - copied);
    return (ssize_t)wanted;
}

ssize_t meta_content_read(struct meta *meta, uint64_t ino, void *buffer, size_t capacity)
{
    META_LOCKED(meta);
    struct meta_inode inode;
    errint error = inode_load(meta, ino, &inode);
    if (error)
        return error;
    if (inode.kind == META_INLINE)
        return content_copy(meta, &inode, buffer, capacity);
    if (S_ISDIR(inode.mode))
        return -EISDIR;
    return S_ISREG(inode.mode) && inode.kind == META_NONE ? 0 : -EINVAL;
}

/* -- changing what a file is made of ----------------------------------------------------------------------
 */

static errint content_clear_extents(struct change *change, uint64_t ino)
{
    cleanup_ids struct ids touched = {0};
    errint error = extents_cut(change->meta, ino, 0, INT64_MAX, &touched);
    return error ? error : object_release_all(change, &touched);
}

errint content_drop(struct meta *meta, uint64_t ino)
{
    return db_run(meta->db, "DELETE FROM content WHERE ino = $1", DB_INTEGER(ino));
}

errint content_clear(struct change *change, struct meta_inode *inode)
{
    struct meta *meta = change->meta;
    enum meta_kind kind = inode->kind;
    uint64_t object = inode->object;
    inode->kind = META_NONE;
    inode->object = 0;
    errint error = kind == META_NONE ? 0 : content_drop(meta, inode->ino);
    if (!error)
        error = stand_in_release(change, inode->ino);
    if (error)
        return error;
    switch (kind) {
    case META_NONE:
    case META_INLINE: return 0;
    case META_EXTENTS: return content_clear_extents(change, inode->ino);
    case META_OBJECT:
        error = object_disown(meta, object);
        return error ? error : object_release(change, object);
    }
    return -EUCLEAN;
}

static errint content_to_object(struct change *change, uint64_t ino, uint64_t object, int64_t size)
{
    struct meta_inode before;
    errint error = inode_load_file(change->meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    /* Stored bytes stay until the object's own are on stable storage (inode_synced): they may be the only
     * durable ones. */
    if (before.kind != META_INLINE && (before.kind != META_OBJECT || before.object != object))
        error = content_clear(change, &after);
    if (!error)
        error = object_own(change->meta, object, ino);
    if (error)
        return error;
    after.kind = META_OBJECT;
    after.object = object;
    after.size = size;
    after.synced_size = -1;
    after.state |= META_DIRTY;
    if (size == 0)
        after.state &= ~(uint32_t)META_TORN;
    return inode_update(change->meta, &before, &after);
}

errint meta_to_object(struct meta *meta, uint64_t ino, uint64_t object, int64_t size, struct ids *freed)
{
    if (object == 0 || size < 0)
        return -EINVAL;
    struct change change = {.meta = meta, .ino = ino, .freed = freed};
    while (change_next(&change))
        change.error = content_to_object(&change, ino, object, size);
    return change.error;
}

/* A META_OBJECT file, or -EINVAL. */
static errint content_load_written(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load_file(meta, ino, out);
    return error || out->kind == META_OBJECT ? error : -EINVAL;
}

/* What meta_to_inline and meta_seal are asked for. */
struct content_end {
    uint64_t ino;
    const void *bytes;
    int64_t size;
    int64_t mtime, ctime;
};

/* Attributes may have been set since the caller looked: that stays the later change. */
static void content_end_ctime(struct meta_inode *inode, const struct content_end *end)
{
    if (end->ctime > inode->ctime)
        inode->ctime = end->ctime;
}

static errint content_to_inline(struct change *change, const struct content_end *end)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    errint error = content_load_written(meta, end->ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    error = content_clear(change, &after);
    if (!error && end->size > 0) {
        error = content_insert(meta, end->ino, end->bytes, (size_t)end->size);
        after.kind = META_INLINE;
    }
    /* The bytes are as durable as the name itself now. */
    if (!error)
        error = shadow_release_all(change, end->ino);
    if (error)
        return error;
    after.size = after.synced_size = end->size;
    after.mtime = end->mtime;
    content_end_ctime(&after, end);
    after.state &= ~(uint32_t)META_DIRTY;
    return inode_update(meta, &before, &after);
}

errint meta_to_inline(struct meta *meta, uint64_t ino, const void *bytes, size_t length, int64_t mtime,
                      int64_t ctime, struct ids *freed)
{
    struct content_end end = {ino, bytes, (int64_t)length, mtime, ctime};
    struct change change = {.meta = meta, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = content_to_inline(&change, &end);
    return change.error;
}

/* The object that a file was written into becomes its only extent, of `size` bytes. */
static errint content_object_to_extent(struct change *change, struct meta_inode *inode, int64_t size)
{
    struct meta_extent whole = {0, size, inode->object, 0};
    if (size == 0)
        return content_clear(change, inode);
    errint error = object_set(change->meta, inode->object, 0, size);
    inode->kind = META_EXTENTS;
    inode->object = 0;
    return error ? error : extents_put(change->meta, inode->ino, &whole);
}

static errint content_seal(struct change *change, const struct content_end *end)
{
    struct meta_inode before;
    errint error = content_load_written(change->meta, end->ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    error = content_object_to_extent(change, &after, end->size);
    if (error)
        return error;
    after.size = end->size;
    after.mtime = end->mtime;
    content_end_ctime(&after, end);
    return inode_update(change->meta, &before, &after);
}

errint meta_seal(struct meta *meta, uint64_t ino, int64_t size, int64_t mtime, int64_t ctime,
                 struct ids *freed)
{
    if (size < 0)
        return -EINVAL;
    struct content_end end = {ino, NULL, size, mtime, ctime};
    struct change change = {.meta = meta, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = content_seal(&change, &end);
    return change.error;
}

/* The object that the file is, whole and alone; -EBUSY. */
static errint content_find_whole(struct meta *meta, const struct meta_inode *inode, uint64_t *object)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT e.object FROM extent e JOIN object o ON o.id = e.object"
                             " WHERE e.ino = $1 AND e.file_offset = 0 AND e.object_offset = 0"
                             " AND e.length = o.size AND o.size = $2",
                             DB_INTEGER(inode->ino), DB_INTEGER(inode->size));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EBUSY;
    *object = (uint64_t)db_integer(&rows, 0);
    int used = object_is_used(meta, *object, inode->ino);
    if (used)
        return used > 0 ? -EBUSY : used;
    int damaged = object_is_damaged(meta, *object);
    return damaged > 0 ? -EBUSY : damaged;
}

static errint content_unseal(struct change *change, uint64_t ino)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    errint error = inode_load_file(meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    error = before.kind == META_EXTENTS ? content_find_whole(meta, &before, &after.object) : -EBUSY;
    if (!error)
        error = db_run(meta->db, "DELETE FROM extent WHERE ino = $1", DB_INTEGER(ino));
    if (!error)
        error = object_set(meta, after.object, ino, before.size);
    if (!error)
        error = object_unsum(meta, after.object);
    if (error)
        return error;
    after.kind = META_OBJECT;
    after.state |= META_DIRTY;
    return inode_update(meta, &before, &after);
}

errint meta_unseal(struct meta *meta, uint64_t ino)
{
    struct change change = {.meta = meta, .ino = ino};
    while (change_next(&change))
        change.error = content_unseal(&change, ino);
    return change.error;
}

/* -- after a power cut ------------------------------------------------------------------------------------
 */

/* The length of the stored bytes that a file had before its object; -ENOENT when it has none. */
static errint content_spare(struct meta *meta, const struct meta_inode *inode, int64_t *length)
{
    if (inode->kind == META_INLINE)
        return -ENOENT;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT length(bytes) FROM content WHERE ino = $1",
                             DB_INTEGER(inode->ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *length = db_integer(&rows, 0);
    return 0;
}

/* The file goes back to its stored bytes. */
static errint content_restore(struct change *change, struct meta_inode *inode)
{
    uint64_t object = inode->object;
    enum meta_kind kind = inode->kind;
    inode->kind = META_INLINE;
    inode->object = 0;
    if (kind == META_EXTENTS)
        return content_clear_extents(change, inode->ino);
    errint error = object ? object_disown(change->meta, object) : 0;
    return error || !object ? error : object_release(change, object);
}

static errint content_tear(struct change *change, uint64_t ino, int64_t size)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    cleanup_ids struct ids touched = {0};
    errint error = inode_load_file(meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    if (before.kind != META_OBJECT && size > before.size)
        size = before.size;
    int64_t spare;
    if (before.kind == META_EXTENTS)
        error = object_unsum_all(meta, ino);
    if (!error)
        error = stand_in_release(change, ino);
    if (error)
        return error;
    error = content_spare(meta, &before, &spare);
    if (error && error != -ENOENT)
        return error;
    if (!error) {
        size = spare;
        error = content_restore(change, &after);
    } else if (size == 0)
        error = content_clear(change, &after);
    else if (before.kind == META_OBJECT)
        error = content_object_to_extent(change, &after, size);
    else if (before.kind == META_INLINE)
        error = content_cut(meta, ino, size);
    else
        error = extents_cut(meta, ino, size, INT64_MAX, &touched);
    if (!error)
        error = object_release_all(change, &touched);
    if (error)
        return error;
    after.size = after.synced_size = size;
    after.state = (before.state & ~(uint32_t)META_DIRTY) | META_TORN;
    return inode_update(meta, &before, &after);
}

errint meta_tear(struct meta *meta, uint64_t ino, int64_t size, struct ids *freed)
{
    if (size < 0)
        return -EINVAL;
    struct change change = {.meta = meta, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = content_tear(&change, ino, size);
    return change.error;
}
