/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on names. */
#include <linux/fs.h>

#include "test_meta_random.h"

/* -- names ------------------------------------------------------------------------------------------------
 */

static errint parent_error(const struct model_inode *parent)
{
    return !is_directory(parent) ? -ENOTDIR : parent->row.nlink == 0 ? -ENOENT : 0;
}

void run_create(void)
{
    static const uint32_t modes[] = {S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK};
    struct model_inode *parent = pick(is_directory), *inode = model_new(&model);
    const char *name = pick_name();
    struct meta_new new = {.parent = parent->row.ino,
                           .name = name,
                           .length = strlen(name),
                           .mode = modes[below(6)],
                           .target = "target",
                           .target_length = 6,
                           .now = FRAME_NOW};
    if (!inode)
        return;
    inode->used = false; /* until it is made */
    if (new.mode == S_IFREG && below(2))
        new.object = meta_object_next(meta);
    errint expected = parent_error(parent);
    if (!expected && model_find(&model, new.parent, name))
        expected = -EEXIST;
    struct meta_inode made;
    CHECK_EQUAL(expected, meta_create(meta, &new, 0, &made));
    if (expected)
        return;
    *inode = (struct model_inode){.used = true, .row = made};
    inode->open = is_file(inode) && below(3) == 0;
    if (S_ISLNK(new.mode))
        memcpy(inode->bytes, "target", 6);
    CHECK(model_add_name(&model, new.parent, name, made.ino) != NULL);
    parent->row.nlink += is_directory(inode);
}

void run_link(void)
{
    struct model_inode *inode = pick(is_file), *parent = pick(is_directory);
    const char *name = pick_name();
    struct meta_inode linked;
    errint expected = is_directory(inode) ? -EPERM : parent_error(parent);
    if (!expected && model_find(&model, parent->row.ino, name))
        expected = -EEXIST;
    CHECK_EQUAL(expected, meta_link(meta, inode->row.ino, parent->row.ino, name, 1, FRAME_NOW, 0, &linked));
    if (expected)
        return;
    inode->row.nlink++;
    CHECK(model_add_name(&model, parent->row.ino, name, inode->row.ino) != NULL);
}

void run_remove(void)
{
    struct model_inode *parent = pick(is_directory);
    const char *text = pick_name();
    struct model_name *name = model_find(&model, parent->row.ino, text);
    struct model_inode *inode = name ? model_get(&model, name->ino) : NULL;
    bool directory = inode && below(10) ? is_directory(inode) : below(2) == 0;
    uint64_t ino = inode ? inode->row.ino : 1;
    bool reap = !inode || !inode->open;
    errint expected = !is_directory(parent) ? -ENOTDIR : !inode ? -ENOENT : 0;
    if (!expected && directory != is_directory(inode))
        expected = directory ? -ENOTDIR : -EISDIR;
    if (!expected && directory && model_has_entries(&model, ino))
        expected = -ENOTEMPTY;
    if (directory)
        CHECK_EQUAL(expected, meta_rmdir(meta, parent->row.ino, text, 1, ino, reap, FRAME_NOW, 0));
    else
        CHECK_EQUAL(expected, meta_unlink(meta, parent->row.ino, text, 1, ino, reap, FRAME_NOW, 0, &freed));
    if (expected)
        return;
    model_release(&model, name, NULL);
    name->used = false;
    parent->row.nlink -= directory;
    model_unlinked(&model, inode, reap);
}

/* -- renames ----------------------------------------------------------------------------------------------
 */

struct move {
    struct model_inode *parent[2], *inode[2];
    struct model_name *name[2];
    unsigned flags;
};

static errint move_error(const struct move *move)
{
    struct model_inode *from = move->inode[0], *to = move->inode[1];
    bool exchange = move->flags & RENAME_EXCHANGE;
    if (!is_directory(move->parent[0]) || !is_directory(move->parent[1]))
        return -ENOTDIR;
    if (!from || move->parent[1]->row.nlink == 0)
        return -ENOENT;
    if (to && (move->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (!to && exchange)
        return -ENOENT;
    if (is_directory(from) && model_is_below(&model, move->parent[1]->row.ino, from->row.ino))
        return -EINVAL;
    if (exchange && is_directory(to) && model_is_below(&model, move->parent[0]->row.ino, to->row.ino))
        return -EINVAL;
    if (!to || exchange)
        return 0;
    if (is_directory(from) != is_directory(to))
        return is_directory(from) ? -ENOTDIR : -EISDIR;
    return is_directory(to) && model_has_entries(&model, to->row.ino) ? -ENOTEMPTY : 0;
}

static void swap_names(const struct move *move)
{
    struct model_name *first = move->name[0], *second = move->name[1];
    uint64_t kept = first->ino;
    int more = is_directory(move->inode[1]) - is_directory(move->inode[0]);
    model_release(&model, first, NULL);
    model_release(&model, second, NULL);
    first->ino = second->ino;
    second->ino = kept;
    move->parent[0]->row.nlink += (uint32_t)more;
    move->parent[1]->row.nlink -= (uint32_t)more;
}

static void move_name(const struct move *move, const char *text, bool reap)
{
    struct model_inode *from = move->inode[0], *to = move->inode[1];
    struct model_name *old = move->name[0], *name = move->name[1];
    bool dirty = is_file(from) && (from->row.state & META_DIRTY) && from->row.synced_size < 0;
    move->parent[0]->row.nlink -= is_directory(from);
    if (!to) {
        model_release(&model, old, NULL);
        model_add_name(&model, move->parent[1]->row.ino, text, from->row.ino);
        move->parent[1]->row.nlink += is_directory(from);
        old->used = false;
        return;
    }
    uint64_t own = old->shadowed ? old->shadow : 0, before = name->shadowed ? name->shadow : 0, kept = 0;
    if (dirty && before)
        kept = before;
    else if (dirty && is_file(to))
        kept = to->row.ino;
    old->shadowed = old->shadowed && own != kept; /* the same one is not let go when another name keeps it */
    model_release(&model, old, NULL);
    name->shadowed = name->shadowed && before != kept;
    model_release(&model, name, NULL);
    name->shadowed = kept != 0;
    name->shadow = kept;
    name->ino = from->row.ino;
    old->used = false;
    model_unlinked(&model, to, reap);
}

void run_rename(void)
{
    static const unsigned flags[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    const char *text[2] = {pick_name(), pick_name()};
    struct move move = {.flags = flags[below(6)]};
    for (int i = 0; i < 2; i++) {
        move.parent[i] = i && below(2) ? move.parent[0] : pick(is_directory);
        move.name[i] = model_find(&model, move.parent[i]->row.ino, text[i]);
        move.inode[i] = move.name[i] ? model_get(&model, move.name[i]->ino) : NULL;
    }
    bool reap = move.inode[1] && !move.inode[1]->open;
    struct meta_rename rename = {
        .parent = move.parent[0]->row.ino,
        .name = text[0],
        .length = 1,
        .new_parent = move.parent[1]->row.ino,
        .new_name = text[1],
        .new_length = 1,
        .flags = move.flags,
        .expected = move.inode[0] ? move.inode[0]->row.ino : 0,
        .replaced = move.inode[1] ? move.inode[1]->row.ino : 0,
        .reap = reap,
        .now = FRAME_NOW,
    };
    bool same = move.inode[0] && move.inode[0] == move.inode[1];
    errint expected = move_error(&move);
    CHECK_EQUAL(expected, meta_rename(meta, &rename, 0, &freed));
    if (expected || same)
        return;
    if (move.flags & RENAME_EXCHANGE)
        swap_names(&move);
    else
        move_name(&move, text[1], reap);
}
