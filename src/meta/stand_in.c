/* SPDX-License-Identifier: Apache-2.0 */
/* Inodes without a name that have, on stable storage, the bytes of files that are being written. */
#include "meta/stand_in.h"

#include <errno.h>

#include "meta/internal.h"
#include "meta/sharing.h"

/* -- the table --------------------------------------------------------------------------------------------
 */

/* The file's stand-in; -ENOENT. */
static errint stand_in_find(struct meta *meta, uint64_t ino, uint64_t *hidden)
{
    if (meta->known.stand_ins == 0)
        return -ENOENT;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT hidden FROM stand_in WHERE ino = $1", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *hidden = (uint64_t)db_integer(&rows, 0);
    return 0;
}

static errint stand_in_delete(struct meta *meta, uint64_t ino)
{
    errint error = db_run(meta->db, "DELETE FROM stand_in WHERE ino = $1", DB_INTEGER(ino));
    if (!error)
        meta->known.stand_ins -= db_changed(meta->db);
    return error;
}

int stand_in_is(struct meta *meta, uint64_t ino)
{
    if (meta->known.stand_ins == 0)
        return 0;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM stand_in WHERE hidden = $1", DB_INTEGER(ino));
    return error ? error : db_next(&rows);
}

errint stand_in_release(struct change *change, uint64_t ino)
{
    uint64_t hidden;
    errint error = stand_in_find(change->meta, ino, &hidden);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = stand_in_delete(change->meta, ino);
    return error ? error : shadow_let_go(change, hidden);
}

errint stand_in_move(struct meta *meta, uint64_t from, uint64_t to)
{
    if (meta->known.stand_ins == 0)
        return 0;
    return db_run(meta->db, "UPDATE stand_in SET ino = $1 WHERE ino = $2", DB_INTEGER(to), DB_INTEGER(from));
}

errint stand_in_truncate(struct change *change, uint64_t ino, int64_t size)
{
    struct meta *meta = change->meta;
    cleanup_ids struct ids touched = {0};
    struct meta_inode before;
    uint64_t hidden;
    errint error = stand_in_find(meta, ino, &hidden);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = inode_load_file(meta, hidden, &before);
    if (!error)
        error = extents_cut(meta, hidden, size, INT64_MAX, &touched);
    if (!error)
        error = object_release_all(change, &touched);
    struct meta_inode after = before;
    after.size = after.synced_size = size;
    return error ? error : inode_update(meta, &before, &after);
}

/* -- putting ----------------------------------------------------------------------------------------------
 */

/* The older object is what it was compared as, all of it, and will be: -EBUSY. */
static errint stand_in_check_older(struct meta *meta, const struct meta_stand_in *wanted)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows,
                  "SELECT 1 FROM extent e JOIN object o ON o.id = e.object JOIN inode i ON i.ino = e.ino"
                  " JOIN summed s ON s.object = e.object WHERE e.object = $1 AND e.object_offset = 0"
                  " AND e.length = o.size AND o.size = $2 AND o.owner = 0 AND i.uid = $3 AND i.nlink > 0"
                  " AND s.root = $4 AND s.shared = 1 LIMIT 1",
                  DB_INTEGER(wanted->older), DB_INTEGER(wanted->size), DB_INTEGER(wanted->uid),
                  DB_BLOB(wanted->older_root, META_ROOT_BYTES));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EBUSY;
    int damaged = object_is_damaged(meta, wanted->older);
    return damaged > 0 ? -EBUSY : damaged;
}

static errint stand_in_insert(struct meta *meta, const struct meta_stand_in *wanted,
                              const struct meta_inode *file)
{
    const struct meta_extent whole = {0, wanted->size, wanted->older, 0};
    struct meta_inode hidden = *file;
    hidden.nlink = 0;
    hidden.kind = META_EXTENTS;
    hidden.state = 0;
    hidden.object = 0;
    errint error = change_take_number(meta, META_COUNTER_INO, &hidden.ino);
    if (!error)
        error = inode_insert(meta, &hidden);
    if (!error)
        error = extents_put(meta, hidden.ino, &whole);
    if (!error)
        error = db_run(meta->db, "INSERT INTO stand_in (ino, hidden) VALUES ($1, $2)", DB_INTEGER(file->ino),
                       DB_INTEGER(hidden.ino));
    if (!error)
        meta->known.stand_ins++;
    return error;
}

static errint stand_in_put(struct change *change, const struct meta_stand_in *wanted)
{
    struct meta *meta = change->meta;
    struct meta_inode before;
    errint error = inode_load_file(meta, wanted->ino, &before);
    bool fits = !error && before.kind == META_OBJECT && before.object == wanted->object &&
                before.uid == wanted->uid && (before.state & META_DIRTY);
    if (!error && !fits)
        error = -EBUSY;
    if (!error)
        error = stand_in_check_older(meta, wanted);
    if (!error)
        error = stand_in_release(change, wanted->ino);
    if (!error)
        error = shadow_release_all(change, wanted->ino);
    if (!error)
        error = content_drop(meta, wanted->ino);
    struct meta_inode after = before;
    after.size = after.synced_size = wanted->size;
    after.mtime = wanted->mtime;
    after.ctime = wanted->ctime;
    if (!error)
        error = stand_in_insert(meta, wanted, &after);
    return error ? error : inode_update(meta, &before, &after);
}

errint meta_stand_in_put(struct meta *meta, const struct meta_stand_in *stand_in)
{
    struct change change = {.meta = meta, .ino = stand_in->ino};
    while (change_next(&change))
        change.error = stand_in_put(&change, stand_in);
    return change.error;
}

/* -- after a power cut ------------------------------------------------------------------------------------
 */

/* All that the stand-in has becomes the file's, which has nothing any more. */
static errint stand_in_hand_over(struct change *change, const struct meta_inode *hidden, uint64_t ino)
{
    struct meta *meta = change->meta;
    errint error = db_run(meta->db, "UPDATE extent SET ino = $1 WHERE ino = $2", DB_INTEGER(ino),
                          DB_INTEGER(hidden->ino));
    if (!error)
        error = checksum_drop(meta, ino);
    return error ? error : inode_drop(change, hidden);
}

static errint stand_in_restore(struct change *change, uint64_t ino, bool *whole)
{
    struct meta *meta = change->meta;
    struct meta_inode before, hidden;
    errint error = stand_in_find(meta, ino, &hidden.ino);
    if (!error)
        error = inode_load_file(meta, ino, &before);
    if (!error)
        error = inode_load_file(meta, hidden.ino, &hidden);
    if (error)
        return error;
    *whole = before.kind == META_EXTENTS && before.size == hidden.size && before.mtime == hidden.mtime;
    struct meta_inode after = before;
    error = stand_in_delete(meta, ino);
    if (!error)
        error = content_clear(change, &after);
    if (!error)
        error = stand_in_hand_over(change, &hidden, ino);
    if (error)
        return error;
    after.kind = META_EXTENTS;
    after.size = after.synced_size = hidden.size;
    after.state &= ~(uint32_t)META_DIRTY;
    if (!*whole)
        after.state |= META_TORN;
    return inode_update(meta, &before, &after);
}

errint meta_stand_in_restore(struct meta *meta, uint64_t ino, bool *whole, struct ids *freed)
{
    struct change change = {.meta = meta, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = stand_in_restore(&change, ino, whole);
    return change.error;
}
