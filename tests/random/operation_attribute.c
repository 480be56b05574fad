/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on what a node has besides names and bytes, and looks at it. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* A node that is not a symbolic link, and its path. */
static struct node *pick_node(struct world *world, char path[PATH_SIZE])
{
    struct node *directory;
    struct entry *entry;
    if (!world_pick_entry(world, -1, &directory, &entry) || entry->node->type == NODE_SYMLINK)
        return NULL;
    world_path(world, directory, entry->name, path);
    return entry->node;
}

static void attribute_chmod(struct world *world)
{
    char path[PATH_SIZE];
    struct node *node = pick_node(world, path);
    if (node == NULL)
        return;
    mode_t mode = (mode_t)world_random(world, 01000) | (node->type == NODE_DIRECTORY ? 0700 : 0600);
    world_note(world, node, "chmod %o %s", mode, path);
    world_expect(world, node, chmod(path, mode), 0, "chmod");
    node->mode = mode;
    node_forget_changed(node);
    world_compare_attributes(world, node, path, -1);
}

static void attribute_utimens(struct world *world)
{
    char path[PATH_SIZE];
    struct node *node = pick_node(world, path);
    if (node == NULL)
        return;
    struct timespec times[2];
    for (int i = 0; i < 2; i++) {
        times[i].tv_sec = (time_t)world_random(world, 4000000000U) - 1000000000;
        times[i].tv_nsec = (long)world_random(world, 1000000000);
    }
    world_note(world, node, "utimens %lld.%09ld %s", (long long)times[1].tv_sec, times[1].tv_nsec, path);
    world_expect(world, node, utimensat(AT_FDCWD, path, times, 0), 0, "utimens");
    node->modified = times[1];
    node->modified_known = true;
    node_forget_changed(node);
    world_compare_attributes(world, node, path, -1);
}

static void attribute_set_xattr(struct world *world)
{
    static const int flags[] = {0, 0, XATTR_CREATE, XATTR_REPLACE};
    char path[PATH_SIZE];
    struct node *node = pick_node(world, path);
    if (node == NULL)
        return;
    int index = (int)world_random(world, ATTRIBUTE_COUNT);
    int flag = flags[world_random(world, 4)];
    size_t length = world_random(world, 300);
    int expected = 0;
    if (flag == XATTR_CREATE && node->attributes[index].data != NULL)
        expected = EEXIST;
    if (flag == XATTR_REPLACE && node->attributes[index].data == NULL)
        expected = ENODATA;
    const unsigned char *data = world_random_bytes(world, length);
    world_note(world, node, "setxattr %s length %zu flags %d %s", attribute_names[index], length, flag, path);
    if (world_expect(world, node, setxattr(path, attribute_names[index], data, length, flag), expected,
                     "setxattr") < 0)
        return;
    node_set_attribute(node, index, data, length);
    node_forget_changed(node);
}

static void attribute_remove_xattr(struct world *world)
{
    char path[PATH_SIZE];
    struct node *node = pick_node(world, path);
    if (node == NULL)
        return;
    int index = (int)world_random(world, ATTRIBUTE_COUNT);
    int expected = node->attributes[index].data == NULL ? ENODATA : 0;
    world_note(world, node, "removexattr %s %s", attribute_names[index], path);
    if (world_expect(world, node, removexattr(path, attribute_names[index]), expected, "removexattr") < 0)
        return;
    node_remove_attribute(node, index);
    node_forget_changed(node);
}

static void attribute_look(struct world *world)
{
    char path[PATH_SIZE];
    struct node *node = pick_node(world, path);
    if (node == NULL)
        return;
    world_compare_attributes(world, node, path, -1);
    world_compare_xattrs(world, node, path);
}

static void attribute_list(struct world *world)
{
    world_compare_directory(world, world_pick_directory(world));
}

const struct operation operations_attribute[] = {
    {"chmod", 6, attribute_chmod},
    {"utimens", 6, attribute_utimens},
    {"setxattr", 6, attribute_set_xattr},
    {"removexattr", 3, attribute_remove_xattr},
    {"look", 16, attribute_look},
    {"list", 8, attribute_list},
    {NULL, 0, NULL},
};
