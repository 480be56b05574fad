/* SPDX-License-Identifier: Apache-2.0 */
/* The table of inodes: attributes, and how an inode goes with all that belongs to it. */
#include <errno.h>
#include <sys/stat.h>

#include "meta/internal.h"

/* -- rows -------------------------------------------------------------------------------------------------
 */

void inode_from_row(const struct db_rows *rows, struct meta_inode *out)
{
    *out = (struct meta_inode){
        .ino = (uint64_t)db_integer(rows, 0),
        .mode = (uint32_t)db_integer(rows, 1),
        .nlink = (uint32_t)db_integer(rows, 2),
        .uid = (uint32_t)db_integer(rows, 3),
        .gid = (uint32_t)db_integer(rows, 4),
        .rdev = (uint64_t)db_integer(rows, 5),
        .size = db_integer(rows, 6),
        .atime = db_integer(rows, 7),
        .mtime = db_integer(rows, 8),
        .ctime = db_integer(rows, 9),
        .btime = db_integer(rows, 10),
        .kind = (enum meta_kind)db_integer(rows, 11),
        .state = (uint32_t)db_integer(rows, 12),
        .object = (uint64_t)db_integer(rows, 13),
        .synced_size = db_integer(rows, 14),
    };
}

errint inode_load(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT " INODE_COLUMNS " FROM inode i WHERE i.ino = $1", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    inode_from_row(&rows, out);
    return 0;
}

errint inode_load_file(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load(meta, ino, out);
    if (error || S_ISREG(out->mode))
        return error;
    return S_ISDIR(out->mode) ? -EISDIR : -EINVAL;
}

errint inode_load_directory(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    errint error = inode_load(meta, ino, out);
    return error || S_ISDIR(out->mode) ? error : -ENOTDIR;
}

/* Takes the inode into (sign 1) or out of (sign -1) the totals. */
static void inode_account(struct meta *meta, const struct meta_inode *inode, int sign)
{
    struct meta_known *known = &meta->known;
    uint64_t one = (uint64_t)sign;
    known->inodes += one;
    if (S_ISREG(inode->mode) && (!(inode->state & META_ASSEMBLED) || inode->nlink > 0))
        known->logical_bytes += (__int128)inode->size * sign;
    if (inode->state & META_DIRTY)
        known->dirty += one;
    if (inode->state & META_TORN)
        known->torn += one;
}

errint inode_insert(struct meta *meta, const struct meta_inode *inode)
{
    static const char text[] =
        "INSERT INTO inode (ino, mode, nlink, uid, gid, rdev, size, atime, mtime, ctime, btime,"
        " kind, state, object, synced_size)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    errint error =
        db_run(meta->db, text, DB_INTEGER(inode->ino), DB_INTEGER(inode->mode), DB_INTEGER(inode->nlink),
               DB_INTEGER(inode->uid), DB_INTEGER(inode->gid), DB_INTEGER(inode->rdev),
               DB_INTEGER(inode->size), DB_INTEGER(inode->atime), DB_INTEGER(inode->mtime),
               DB_INTEGER(inode->ctime), DB_INTEGER(inode->btime), DB_INTEGER(inode->kind),
               DB_INTEGER(inode->state), DB_INTEGER(inode->object), DB_INTEGER(inode->synced_size));
    if (!error)
        inode_account(meta, inode, 1);
    return error;
}

/* nlink and state are in indexes: where they stay, a statement that does not name them leaves those alone. */
static errint inode_update_marks(struct meta *meta, const struct meta_inode *before,
                                 const struct meta_inode *after)
{
    if (before->nlink == after->nlink && before->state == after->state)
        return 0;
    return db_run(meta->db, "UPDATE inode SET nlink = $1, state = $2 WHERE ino = $3",
                  DB_INTEGER(after->nlink), DB_INTEGER(after->state), DB_INTEGER(after->ino));
}

errint inode_update(struct meta *meta, const struct meta_inode *before, const struct meta_inode *after)
{
    static const char text[] =
        "UPDATE inode SET mode = $1, uid = $2, gid = $3, size = $4, atime = $5, mtime = $6, ctime = $7,"
        " kind = $8, object = $9, synced_size = $10 WHERE ino = $11";
    errint error = db_run(meta->db, text, DB_INTEGER(after->mode), DB_INTEGER(after->uid),
                          DB_INTEGER(after->gid), DB_INTEGER(after->size), DB_INTEGER(after->atime),
                          DB_INTEGER(after->mtime), DB_INTEGER(after->ctime), DB_INTEGER(after->kind),
                          DB_INTEGER(after->object), DB_INTEGER(after->synced_size), DB_INTEGER(after->ino));
    if (!error)
        error = inode_update_marks(meta, before, after);
    if (!error) {
        inode_account(meta, before, -1);
        inode_account(meta, after, 1);
    }
    return error;
}

errint inode_drop(struct change *change, const struct meta_inode *inode)
{
    struct meta *meta = change->meta;
    struct meta_inode emptied = *inode;
    errint error = content_clear(change, &emptied);
    if (!error)
        error = db_run(meta->db, "DELETE FROM xattr WHERE ino = $1", DB_INTEGER(inode->ino));
    if (!error && S_ISREG(inode->mode))
        error = checksum_drop(meta, inode->ino);
    if (!error)
        error = pin_forget(meta, inode->ino);
    if (!error)
        error = db_run(meta->db, "DELETE FROM inode WHERE ino = $1", DB_INTEGER(inode->ino));
    if (!error)
        inode_account(meta, inode, -1);
    return error;
}

/* Whether it is kept without a name, for what a power cut may do to another file: 1, 0 or an error. */
static int inode_is_kept(struct meta *meta, uint64_t ino)
{
    int shadow = shadow_is(meta, ino);
    return shadow ? shadow : stand_in_is(meta, ino);
}

errint inode_unlinked(struct change *change, const struct meta_inode *before, const struct meta_inode *after,
                      bool reap)
{
    if (after->nlink == 0 && S_ISDIR(after->mode)) {
        /* What it shows, and what is set for it, goes with it. */
        errint error = assembled_forget(change, after->ino);
        change->nothing = false;
        if (!error)
            error = policy_forget(change->meta, after->ino);
        if (!error)
            error = template_forget(change, after->ino);
        if (!error)
            error = checkpoint_forget(change->meta, after->ino);
        if (!error)
            error = writer_forget(change->meta, after->ino);
        if (error)
            return error;
    }
    if (after->nlink > 0 || !reap)
        return inode_update(change->meta, before, after);
    int kept = inode_is_kept(change->meta, after->ino);
    if (kept < 0)
        return kept;
    return kept ? inode_update(change->meta, before, after) : inode_drop(change, before);
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

errint meta_get(struct meta *meta, uint64_t ino, struct meta_inode *out)
{
    META_LOCKED(meta);
    return inode_load(meta, ino, out);
}

errint meta_count(struct meta *meta, struct meta_totals *out)
{
    META_LOCKED(meta);
    const struct meta_known *known = &meta->known;
    *out = (struct meta_totals){
        .inodes = known->inodes,
        .objects = known->objects,
        .logical_bytes = known->logical_bytes > INT64_MAX ? INT64_MAX : (int64_t)known->logical_bytes,
        .dirty = known->dirty,
        .torn = known->torn,
    };
    return 0;
}

static errint inode_set(struct change *change, uint64_t ino, unsigned fields, const struct meta_inode *values,
                        struct meta_inode *out)
{
    struct meta_inode before;
    errint error = inode_load(change->meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    if (fields & META_SET_MODE)
        after.mode = (before.mode & S_IFMT) | (values->mode & ~(uint32_t)S_IFMT);
    if (fields & META_SET_UID)
        after.uid = values->uid;
    if (fields & META_SET_GID)
        after.gid = values->gid;
    if (fields & META_SET_SIZE)
        after.size = values->size;
    if (fields & META_SET_ATIME)
        after.atime = values->atime;
    if (fields & META_SET_MTIME)
        after.mtime = values->mtime;
    if (fields & META_SET_CTIME)
        after.ctime = values->ctime;
    if (fields & META_SET_STATE)
        after.state =
            (before.state & (META_ASSEMBLED | META_LENT)) | (values->state & (META_DIRTY | META_TORN));
    if (fields & META_SET_SYNCED_SIZE)
        after.synced_size = values->synced_size;
    if (out)
        *out = after;
    return inode_update(change->meta, &before, &after);
}

errint meta_set(struct meta *meta, uint64_t ino, unsigned fields, const struct meta_inode *values,
                uint64_t unique, struct meta_inode *out)
{
    struct change change = {.meta = meta, .request = unique, .ino = ino, .spends = true};
    while (change_next(&change))
        change.error = inode_set(&change, ino, fields, values, out);
    return change.error;
}

static errint inode_synced(struct change *change, uint64_t ino, int64_t synced_size, bool clean)
{
    struct meta_inode before;
    errint error = inode_load(change->meta, ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    after.synced_size = synced_size;
    if (clean)
        after.state &= ~(uint32_t)META_DIRTY;
    uint64_t kept = change->meta->known.shadows + change->meta->known.stand_ins;
    error = shadow_release_all(change, ino);
    if (!error)
        error = stand_in_release(change, ino);
    bool dropped = false;
    if (!error && before.kind != META_INLINE && S_ISREG(before.mode)) {
        error = content_drop(change->meta, ino);
        dropped = !error && db_changed(change->meta->db) > 0;
    }
    if (error)
        return error;
    bool released = kept != change->meta->known.shadows + change->meta->known.stand_ins;
    change->nothing =
        !dropped && !released && after.state == before.state && after.synced_size == before.synced_size;
    return change->nothing ? 0 : inode_update(change->meta, &before, &after);
}

errint meta_synced(struct meta *meta, uint64_t ino, int64_t synced_size, bool clean, struct ids *shadows)
{
    struct change change = {.meta = meta, .shadows = shadows, .spends = true};
    while (change_next(&change))
        change.error = inode_synced(&change, ino, synced_size, clean);
    return change.error;
}

static errint inode_reap(struct change *change, uint64_t ino)
{
    struct meta_inode inode;
    errint error = inode_load(change->meta, ino, &inode);
    if (error && error != -ENOENT)
        return error;
    int kept = error || inode.nlink > 0 ? 1 : inode_is_kept(change->meta, ino);
    if (!kept && (inode.state & META_ASSEMBLED))
        kept = assembled_is(change->meta, ino);
    change->nothing = kept > 0;
    return kept ? (kept < 0 ? kept : 0) : inode_drop(change, &inode);
}

static errint inode_reap_all(struct change *change, const struct ids *inodes)
{
    bool reaped = false;
    for (size_t i = 0; i < inodes->count; i++) {
        errint error = inode_reap(change, inodes->at[i]);
        if (error)
            return error;
        reaped |= !change->nothing;
    }
    change->nothing = !reaped;
    return 0;
}

errint meta_reap_all(struct meta *meta, const struct ids *inodes, struct ids *freed)
{
    struct change change = {.meta = meta, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = inode_reap_all(&change, inodes);
    return change.error;
}

errint meta_reap(struct meta *meta, uint64_t ino, struct ids *freed)
{
    return meta_reap_all(meta, &(struct ids){.at = &ino, .count = 1}, freed);
}
