/* SPDX-License-Identifier: Apache-2.0 */
/* Renaming and exchanging names. */
#include <errno.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "meta/internal.h"

/* A name that takes part, the directory it is in, and the inode that it has. */
struct rename_side {
    uint64_t parent;
    const char *name;
    size_t length;
    struct meta_inode inode; /* ino 0: the name does not exist */
};

/* Both sides. Their directories may be one: then only `directory[0]` is used. */
struct rename_pair {
    struct rename_side from, to;
    struct meta_inode directory[2];
    bool across; /* the directories differ */
    bool yields; /* what `to` names is an assembled file, which gives way as if it were not there */
};

/* -- loading and judging ----------------------------------------------------------------------------------
 */

static errint rename_load_side(struct meta *meta, struct rename_side *side)
{
    uint64_t ino;
    errint error = name_find(meta, side->parent, side->name, side->length, &ino);
    return error ? error : inode_load(meta, ino, &side->inode);
}

static errint rename_load(struct meta *meta, struct rename_pair *pair)
{
    errint error = inode_load_directory(meta, pair->from.parent, &pair->directory[0]);
    if (!error && pair->across)
        error = inode_load_directory(meta, pair->to.parent, &pair->directory[1]);
    if (!error && pair->directory[pair->across].nlink == 0)
        error = -ENOENT;
    if (!error)
        error = rename_load_side(meta, &pair->from);
    if (error)
        return error;
    error = rename_load_side(meta, &pair->to);
    if (error)
        return error == -ENOENT ? 0 : error;
    int beside = beside_is(meta, pair->to.parent, pair->to.name, pair->to.length, &pair->to.inode);
    pair->yields = beside > 0;
    return beside < 0 ? beside : 0;
}

/* Whether `directory` is `ancestor` or lies below it: 1, 0 or an error. */
static int rename_is_below(struct meta *meta, uint64_t directory, uint64_t ancestor)
{
    while (directory != ancestor) {
        if (directory == META_ROOT_INO)
            return 0;
        errint error = name_parent(meta, directory, &directory);
        if (error)
            return error == -ENOENT ? 0 : error;
    }
    return 1;
}

static errint rename_check_loop(struct meta *meta, const struct rename_side *side, uint64_t new_parent)
{
    if (side->inode.ino == 0 || !S_ISDIR(side->inode.mode))
        return 0;
    int below = rename_is_below(meta, new_parent, side->inode.ino);
    return below > 0 ? -EINVAL : below;
}

static errint rename_check_target(struct meta *meta, const struct rename_pair *pair)
{
    bool directory = S_ISDIR(pair->from.inode.mode);
    if (pair->to.inode.ino == 0 || pair->yields)
        return 0;
    if (directory && !S_ISDIR(pair->to.inode.mode))
        return -ENOTDIR;
    if (!directory)
        return S_ISDIR(pair->to.inode.mode) ? -EISDIR : 0;
    int entries = name_any(meta, pair->to.inode.ino);
    return entries > 0 ? -ENOTEMPTY : entries;
}

/* In the order in which Linux finds these. */
static errint rename_check(struct meta *meta, const struct meta_rename *rename,
                           const struct rename_pair *pair)
{
    bool exchange = rename->flags & RENAME_EXCHANGE;
    if (pair->from.inode.ino != rename->expected)
        return -ESTALE;
    if ((rename->flags & RENAME_NOREPLACE) && pair->to.inode.ino && !pair->yields)
        return -EEXIST;
    if (exchange && !pair->to.inode.ino)
        return -ENOENT;
    if (pair->to.inode.ino != rename->replaced)
        return -ESTALE;
    errint error = rename_check_loop(meta, &pair->from, pair->to.parent);
    if (!error && exchange)
        error = rename_check_loop(meta, &pair->to, pair->from.parent);
    if (!error && !exchange)
        error = rename_check_target(meta, pair);
    return error;
}

/* -- doing ------------------------------------------------------------------------------------------------
 */

static errint rename_touch(struct meta *meta, const struct meta_inode *inode, int64_t now)
{
    struct meta_inode after = *inode;
    after.ctime = now;
    return inode_update(meta, inode, &after);
}

/* `subdirectories`: by how many each of the two directories has more than before. */
static errint rename_touch_directories(struct meta *meta, const struct rename_pair *pair,
                                       const int subdirectories[2], int64_t now)
{
    errint error = 0;
    for (int i = 0; !error && i <= pair->across; i++) {
        struct meta_inode after = pair->directory[i];
        after.mtime = after.ctime = now;
        after.nlink += (uint32_t)(pair->across ? subdirectories[i] : subdirectories[0] + subdirectories[1]);
        error = inode_update(meta, &pair->directory[i], &after);
    }
    return error;
}

/* Writes what a name's shadow is now; a successor of 0: it has none. */
static errint rename_put_shadow(struct meta *meta, const struct rename_side *side,
                                const struct shadow *shadow)
{
    errint error = shadow_delete(meta, side->parent, side->name, side->length);
    if (!error && shadow->successor)
        error = shadow_insert(meta, side->parent, side->name, side->length, shadow);
    return error;
}

static errint rename_find_shadow(struct meta *meta, const struct rename_side *side, struct shadow *out)
{
    *out = (struct shadow){0};
    errint error = shadow_find(meta, side->parent, side->name, side->length, out);
    return error == -ENOENT ? 0 : error;
}

/*
 * The shadows when `from` takes the place of `to`. `kept` tells that the replaced inode is a shadow from now
 * on.
 *
 * A dirty file over another: that one is the shadow, or what it was the unsynced successor of.
 * A clean file, or one that is no file, over another: nothing needs to be kept.
 * What the moved file has replaced under its former name goes: the new name never had it.
 */
static errint rename_shadows(struct change *change, const struct rename_pair *pair)
{
    struct meta *meta = change->meta;
    const struct meta_inode *moved = &pair->from.inode, *replaced = &pair->to.inode;
    struct shadow own, old, put = {0};
    errint error = rename_find_shadow(meta, &pair->from, &own);
    if (!error)
        error = rename_find_shadow(meta, &pair->to, &old);
    if (error)
        return error;
    /* Bytes that were synced once are there after a power cut, whoever has the file open: no shadow is
     * needed. */
    bool dirty = S_ISREG(moved->mode) && (moved->state & META_DIRTY) && moved->synced_size < 0;
    if (dirty && old.successor)
        put = (struct shadow){old.replaced, moved->ino};
    else if (dirty && S_ISREG(replaced->mode))
        put = (struct shadow){replaced->ino, moved->ino};
    if (own.replaced != put.replaced)
        error = shadow_release(change, pair->from.parent, pair->from.name, pair->from.length);
    else if (own.successor)
        error = shadow_delete(meta, pair->from.parent, pair->from.name, pair->from.length);
    if (!error && old.replaced != put.replaced)
        error = shadow_release(change, pair->to.parent, pair->to.name, pair->to.length);
    if (error || (!old.successor && !put.successor))
        return error;
    return rename_put_shadow(meta, &pair->to, &put);
}

static errint rename_drop_replaced(struct change *change, const struct rename_pair *pair,
                                   const struct meta_rename *rename)
{
    struct meta_inode after = pair->to.inode;
    after.nlink = S_ISDIR(after.mode) ? 0 : after.nlink - 1;
    after.ctime = rename->now;
    errint error = 0;
    if (S_ISDIR(after.mode))
        error = trash_directory_removed(change,
                                        &(struct trash_removed){&pair->to.inode, pair->to.parent,
                                                                pair->to.name, pair->to.length, rename->now});
    return error ? error : inode_unlinked(change, &pair->to.inode, &after, rename->reap);
}

static errint rename_move(struct change *change, const struct rename_pair *pair,
                          const struct meta_rename *rename)
{
    struct meta *meta = change->meta;
    const struct rename_side *from = &pair->from, *to = &pair->to;
    bool replaces = to->inode.ino != 0, directory = S_ISDIR(from->inode.mode);
    errint error = rename_shadows(change, pair);
    if (!error)
        error = name_delete(meta, from->parent, from->name, from->length);
    if (!error && replaces)
        error = name_point(meta, to->parent, to->name, to->length, from->inode.ino);
    else if (!error)
        error = name_insert(meta, to->parent, to->name, to->length, from->inode.ino);
    if (!error && replaces)
        error = rename_drop_replaced(change, pair, rename);
    if (!error)
        error = rename_touch(meta, &from->inode, rename->now);
    int subdirectories[2] = {directory ? -1 : 0, directory && !replaces ? 1 : 0};
    return error ? error : rename_touch_directories(meta, pair, subdirectories, rename->now);
}

static errint rename_exchange(struct change *change, const struct rename_pair *pair, int64_t now)
{
    struct meta *meta = change->meta;
    const struct rename_side *from = &pair->from, *to = &pair->to;
    /* What either has replaced under its former name goes: the other name never had it. */
    errint error = shadow_release(change, from->parent, from->name, from->length);
    if (!error)
        error = shadow_release(change, to->parent, to->name, to->length);
    if (!error)
        error = name_point(meta, from->parent, from->name, from->length, to->inode.ino);
    if (!error)
        error = name_point(meta, to->parent, to->name, to->length, from->inode.ino);
    if (!error)
        error = rename_touch(meta, &from->inode, now);
    if (!error)
        error = rename_touch(meta, &to->inode, now);
    int more = (S_ISDIR(to->inode.mode) ? 1 : 0) - (S_ISDIR(from->inode.mode) ? 1 : 0);
    return error ? error : rename_touch_directories(meta, pair, (int[2]){more, -more}, now);
}

/* An assembled file that is moved becomes a file like others; one that is in the way goes. */
static errint rename_settle_assembled(struct change *change, struct rename_pair *pair, bool exchange)
{
    struct rename_side *from = &pair->from, *to = &pair->to;
    errint error = beside_leave(change, from->parent, from->name, from->length, &from->inode);
    if (error || !pair->yields)
        return error;
    if (exchange)
        return beside_leave(change, to->parent, to->name, to->length, &to->inode);
    error = assembled_let_go(change, to->inode.ino);
    to->inode = (struct meta_inode){0};
    return error;
}

static errint rename_names(struct change *change, const struct meta_rename *rename)
{
    struct rename_pair pair = {
        .from = {rename->parent, rename->name, rename->length, {0}},
        .to = {rename->new_parent, rename->new_name, rename->new_length, {0}},
        .across = rename->parent != rename->new_parent,
    };
    errint error = rename_load(change->meta, &pair);
    if (!error)
        error = rename_check(change->meta, rename, &pair);
    if (error)
        return error;
    change->ino = pair.from.inode.ino;
    if (pair.from.inode.ino == pair.to.inode.ino) {
        change->nothing = true;
        return 0;
    }
    error = rename_settle_assembled(change, &pair, rename->flags & RENAME_EXCHANGE);
    if (error)
        return error;
    if (rename->flags & RENAME_EXCHANGE)
        return rename_exchange(change, &pair, rename->now);
    return rename_move(change, &pair, rename);
}

errint meta_rename(struct meta *meta, const struct meta_rename *rename, uint64_t unique, struct ids *freed)
{
    unsigned both = RENAME_NOREPLACE | RENAME_EXCHANGE;
    if ((rename->flags & ~both) || (rename->flags & both) == both)
        return -EINVAL;
    errint error = name_check(rename->name, rename->length, true);
    if (!error)
        error = name_check(rename->new_name, rename->new_length, true);
    if (error)
        return error;
    struct change change = {.meta = meta, .request = unique, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = rename_names(&change, rename);
    return change.error;
}
