/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on names: create, link, rename, remove. Errors that Linux gives are expected as errors.
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory and a name in it for something new; false when the tree is large enough. */
static bool pick_place(struct world *world, struct node **directory, char name[256], char path[PATH_SIZE])
{
    if (world->model.names >= NAMES_LIMIT)
        return false;
    *directory = world_pick_directory(world);
    world_pick_name(world, *directory, name);
    world_path(world, *directory, name, path);
    return true;
}

/* A new node got this name. */
static void place_add(struct world *world, struct node *directory, const char *name, struct node *node)
{
    directory_add(&world->model, directory, name, node);
    node_forget_times(directory);
    node_forget_times(node);
}

static void name_create(struct world *world)
{
    struct node *directory;
    char name[256], path[PATH_SIZE];
    if (!pick_place(world, &directory, name, path))
        return;
    const struct entry *there = directory_find(directory, name);
    bool exclusive = world_chance(world, 2);
    mode_t mode = 0600 | (mode_t)world_random(world, 0200);
    int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (exclusive ? O_EXCL : 0);
    int expected = 0;
    if (there != NULL && exclusive)
        expected = EEXIST;
    else if (there != NULL && there->node->type == NODE_DIRECTORY)
        expected = EISDIR;
    else if (there != NULL && there->node->type == NODE_SYMLINK)
        expected = ELOOP;
    if (there != NULL)
        world_unmap_closed(world, there->node);
    world_note(world, directory, "create %s mode %o%s", path, mode, exclusive ? " exclusively" : "");
    int fd = (int)world_expect(world, directory, open(path, flags, mode), expected, "create");
    if (fd < 0)
        return;
    struct node *node = there != NULL ? there->node : node_make(&world->model, NODE_FILE, mode);
    world_note(world, node, "create %s", path);
    if (there == NULL)
        place_add(world, directory, name, node);
    else
        world_notice_fork(world, node, path);
    world_compare_attributes(world, node, NULL, fd);
    world_expect(world, node, close(fd), 0, "close");
}

static void name_mkdir(struct world *world)
{
    struct node *directory;
    char name[256], path[PATH_SIZE];
    if (!pick_place(world, &directory, name, path) || directory_depth(directory) + 1 >= DEPTH_LIMIT)
        return;
    mode_t mode = 0700 | (mode_t)world_random(world, 0100);
    int expected = directory_find(directory, name) != NULL ? EEXIST : 0;
    world_note(world, directory, "mkdir %s mode %o", path, mode);
    if (world_expect(world, directory, mkdir(path, mode), expected, "mkdir") < 0)
        return;
    struct node *node = node_make(&world->model, NODE_DIRECTORY, mode);
    place_add(world, directory, name, node);
    world_note(world, node, "mkdir %s", path);
    world_compare_attributes(world, node, path, -1);
}

static void name_symlink(struct world *world)
{
    struct node *directory;
    char name[256], path[PATH_SIZE], target[300];
    if (!pick_place(world, &directory, name, path))
        return;
    size_t length = world_random_between(world, 1, sizeof(target) - 1);
    for (size_t i = 0; i < length; i++)
        target[i] = (char)world_random_between(world, '!', '~');
    target[length] = '\0';
    int expected = directory_find(directory, name) != NULL ? EEXIST : 0;
    world_note(world, directory, "symlink %s", path);
    if (world_expect(world, directory, symlink(target, path), expected, "symlink") < 0)
        return;
    struct node *node = node_make(&world->model, NODE_SYMLINK, 0777);
    file_write(node, 0, (const unsigned char *)target, length);
    place_add(world, directory, name, node);
    world_note(world, node, "symlink %s", path);
}

static void name_link(struct world *world)
{
    struct node *from, *directory;
    struct entry *entry;
    char name[256], old_path[PATH_SIZE], path[PATH_SIZE];
    if (!world_pick_entry(world, -1, &from, &entry) || !pick_place(world, &directory, name, path))
        return;
    struct node *node = entry->node;
    world_path(world, from, entry->name, old_path);
    int expected = 0;
    if (directory_find(directory, name) != NULL)
        expected = EEXIST;
    else if (node->type == NODE_DIRECTORY)
        expected = EPERM;
    world_note(world, node, "link %s to %s", old_path, path);
    if (world_expect(world, node, linkat(AT_FDCWD, old_path, AT_FDCWD, path, 0), expected, "link") < 0)
        return;
    directory_add(&world->model, directory, name, node);
    node_forget_times(directory);
    node_forget_changed(node);
    world_compare_attributes(world, node, path, -1);
}

/* Takes a name away from the model after the filesystem did. */
static void place_remove(struct world *world, struct node *directory, const char *name)
{
    node_forget_changed(directory_find(directory, name)->node);
    node_forget_times(directory);
    directory_remove(&world->model, directory, name);
}

static void name_unlink(struct world *world)
{
    struct node *directory;
    struct entry *entry;
    char path[PATH_SIZE], name[256];
    if (!world_pick_entry(world, -1, &directory, &entry))
        return;
    struct node *node = entry->node;
    snprintf(name, sizeof(name), "%s", entry->name);
    world_path(world, directory, name, path);
    world_note(world, node, "unlink %s", path);
    int expected = node->type == NODE_DIRECTORY ? EISDIR : 0;
    if (world_expect(world, node, unlink(path), expected, "unlink") == 0)
        place_remove(world, directory, name);
}

static void name_rmdir(struct world *world)
{
    struct node *directory;
    struct entry *entry;
    char path[PATH_SIZE], name[256];
    int type = world_chance(world, 5) ? -1 : NODE_DIRECTORY;
    if (!world_pick_entry(world, type, &directory, &entry))
        return;
    struct node *node = entry->node;
    snprintf(name, sizeof(name), "%s", entry->name);
    world_path(world, directory, name, path);
    world_note(world, node, "rmdir %s", path);
    int expected = 0;
    if (node->type != NODE_DIRECTORY)
        expected = ENOTDIR;
    else if (node->entry_count > 0)
        expected = ENOTEMPTY;
    if (world_expect(world, node, rmdir(path), expected, "rmdir") == 0)
        place_remove(world, directory, name);
}

/* One rename as it was drawn. */
struct renaming {
    struct node *from, *to;
    char old_name[256], new_name[256];
    struct node *source;
    struct node *target; /* NULL when the new name is free */
    unsigned flags;
};

/* The reasons for which Linux refuses it; which of several it names depends on the order of its checks. */
static size_t rename_refusals(const struct renaming *renaming, int refusals[8])
{
    const struct node *source = renaming->source, *target = renaming->target;
    size_t count = 0;
    if (target == NULL && renaming->flags & RENAME_EXCHANGE)
        refusals[count++] = ENOENT;
    if (target != NULL && renaming->flags & RENAME_NOREPLACE)
        refusals[count++] = EEXIST;
    if (source->type == NODE_DIRECTORY && directory_is_below(renaming->to, source))
        refusals[count++] = EINVAL;
    if (target == NULL || target == source)
        return count;
    bool above = target->type == NODE_DIRECTORY && directory_is_below(renaming->from, target);
    if (renaming->flags & RENAME_EXCHANGE) {
        if (above)
            refusals[count++] = EINVAL;
        return count;
    }
    if (above || (target->type == NODE_DIRECTORY && target->entry_count > 0))
        refusals[count++] = ENOTEMPTY;
    if (source->type == NODE_DIRECTORY && target->type != NODE_DIRECTORY)
        refusals[count++] = ENOTDIR;
    if (source->type != NODE_DIRECTORY && target->type == NODE_DIRECTORY)
        refusals[count++] = EISDIR;
    return count;
}

static void rename_in_model(struct world *world, const struct renaming *renaming)
{
    struct node *source = renaming->source, *target = renaming->target;
    if (source == target)
        return;
    node_forget_times(renaming->from);
    node_forget_times(renaming->to);
    node_forget_changed(source);
    if (target != NULL)
        node_forget_changed(target);
    node_hold(source);
    if (target != NULL)
        node_hold(target);
    directory_remove(&world->model, renaming->from, renaming->old_name);
    if (target != NULL)
        directory_remove(&world->model, renaming->to, renaming->new_name);
    directory_add(&world->model, renaming->to, renaming->new_name, source);
    if (renaming->flags & RENAME_EXCHANGE)
        directory_add(&world->model, renaming->from, renaming->old_name, target);
    node_release(source);
    if (target != NULL)
        node_release(target);
}

/* Whether the tree stays within its depth. */
static bool rename_fits(const struct node *node, const struct node *directory)
{
    return node == NULL || node->type != NODE_DIRECTORY ||
           directory_depth(directory) + 1 + directory_height(node) < DEPTH_LIMIT;
}

static void name_rename(struct world *world)
{
    static const unsigned flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    struct renaming renaming = {.flags = flags[world_random(world, 5)]};
    struct entry *entry;
    if (!world_pick_entry(world, -1, &renaming.from, &entry))
        return;
    renaming.source = entry->node;
    snprintf(renaming.old_name, sizeof(renaming.old_name), "%s", entry->name);
    renaming.to = world_pick_directory(world);
    world_pick_name(world, renaming.to, renaming.new_name);
    const struct entry *there = directory_find(renaming.to, renaming.new_name);
    renaming.target = there != NULL ? there->node : NULL;
    if (!rename_fits(renaming.source, renaming.to) ||
        (renaming.flags & RENAME_EXCHANGE && !rename_fits(renaming.target, renaming.from)))
        return;
    char old_path[PATH_SIZE], new_path[PATH_SIZE];
    world_path(world, renaming.from, renaming.old_name, old_path);
    world_path(world, renaming.to, renaming.new_name, new_path);
    world_note(world, renaming.source, "rename flags %u %s to %s", renaming.flags, old_path, new_path);
    if (renaming.target != NULL && renaming.target != renaming.source)
        world_note(world, renaming.target, "rename flags %u over it: %s to %s", renaming.flags, old_path,
                   new_path);
    int refusals[8];
    size_t refusal_count = rename_refusals(&renaming, refusals);
    int result = renameat2(AT_FDCWD, old_path, AT_FDCWD, new_path, renaming.flags);
    int found = result < 0 ? errno : 0;
    if (found == 0 && refusal_count == 0) {
        rename_in_model(world, &renaming);
        world_compare_attributes(world, renaming.source, new_path, -1);
        return;
    }
    for (size_t i = 0; i < refusal_count; i++)
        if (refusals[i] == found)
            return;
    world_fail(world, renaming.source, "rename: %s, expected %s", found ? strerrorname_np(found) : "no error",
               refusal_count > 0 ? strerrorname_np(refusals[0]) : "no error");
}

const struct operation operations_name[] = {
    {"create", 24, name_create},  {"mkdir", 6, name_mkdir},
    {"symlink", 4, name_symlink}, {"link", 8, name_link},
    {"unlink", 12, name_unlink},  {"rmdir", 4, name_rmdir},
    {"rename", 24, name_rename},  {NULL, 0, NULL},
};
