/* SPDX-License-Identifier: Apache-2.0 */
/* Random choices, paths, handles and reports of the random-operation test. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t world_random(struct world *world, uint64_t limit)
{
    world->random_state += 0x9e3779b97f4a7c15ULL;
    uint64_t value = world->random_state;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
    return (value ^ (value >> 31)) % limit;
}

bool world_chance(struct world *world, uint64_t count)
{
    return world_random(world, count) == 0;
}

size_t world_random_between(struct world *world, size_t low, size_t high)
{
    return low + world_random(world, high - low + 1);
}

size_t world_random_size(struct world *world, size_t limit, size_t end)
{
    static const size_t borders[] = {0, 512, 4096, 8192, 16384, 32768, 65536, 262144, 524288, 1048576};
    size_t size;
    switch (world_random(world, 4)) {
    case 0: size = world_random(world, limit + 1); break;
    case 1: size = world_random(world, 20000); break;
    case 2: size = end; break;
    default: size = borders[world_random(world, sizeof(borders) / sizeof(borders[0]))]; break;
    }
    if (world_chance(world, 2))
        size += world_random(world, 7);
    else if (world_chance(world, 2))
        size -= world_random(world, size < 7 ? size + 1 : 7);
    return size > limit ? limit : size;
}

unsigned char *world_random_bytes(struct world *world, size_t length)
{
    uint64_t word = 0;
    for (size_t i = 0; i < length; i++, word >>= 8) {
        if (i % 8 == 0)
            word = world_random(world, UINT64_MAX);
        world->buffer[i] = (unsigned char)word;
    }
    return world->buffer;
}

void world_note(struct world *world, struct node *node, const char *format, ...)
{
    char line[1024];
    int used = snprintf(line, sizeof(line), "#%lu node %u: ", world->operation, node->number);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + used, sizeof(line) - (size_t)used, format, arguments);
    va_end(arguments);
    node_note(node, line);
    if (world->options.verbose)
        puts(line);
}

void world_fail(struct world *world, const struct node *node, const char *format, ...)
{
    fflush(stdout);
    fprintf(stderr, "random_ops: seed %llu, operation %lu: ", (unsigned long long)world->options.seed,
            world->operation);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    if (node != NULL) {
        fprintf(stderr, "the last operations on node %u (size %zu, mode %o, names %u):\n", node->number,
                node->size, node->mode, node->links);
        node_print_history(node);
    }
    exit(EXIT_FAILURE);
}

long world_expect(struct world *world, const struct node *node, long result, int expected, const char *call)
{
    int found = result < 0 ? errno : 0;
    if (found != expected)
        world_fail(world, node, "%s: %s, expected %s", call, found ? strerrorname_np(found) : "no error",
                   expected ? strerrorname_np(expected) : "no error");
    return result;
}

/* Lists a directory and all below it. */
static void tree_collect_directories(struct node *directory, struct node **list, size_t limit, size_t *count)
{
    if (*count == limit)
        return;
    list[(*count)++] = directory;
    for (size_t i = 0; i < directory->entry_count; i++)
        if (directory->entries[i].node->type == NODE_DIRECTORY)
            tree_collect_directories(directory->entries[i].node, list, limit, count);
}

struct node *world_pick_directory(struct world *world)
{
    struct node *list[NAMES_LIMIT + 2];
    size_t count = 0;
    tree_collect_directories(world->model.root, list, NAMES_LIMIT + 2, &count);
    return list[world_random(world, count)];
}

bool world_pick_entry(struct world *world, int type, struct node **directory, struct entry **entry)
{
    struct node *list[NAMES_LIMIT + 2];
    size_t directory_count = 0, matches = 0;
    tree_collect_directories(world->model.root, list, NAMES_LIMIT + 2, &directory_count);
    for (size_t i = 0; i < directory_count; i++)
        for (size_t j = 0; j < list[i]->entry_count; j++)
            matches += type < 0 || (int)list[i]->entries[j].node->type == type;
    if (matches == 0)
        return false;
    size_t chosen = world_random(world, matches);
    for (size_t i = 0; i < directory_count; i++)
        for (size_t j = 0; j < list[i]->entry_count; j++) {
            if (type >= 0 && (int)list[i]->entries[j].node->type != type)
                continue;
            if (chosen-- == 0) {
                *directory = list[i];
                *entry = &list[i]->entries[j];
                return true;
            }
        }
    return false;
}

void world_pick_name(struct world *world, const struct node *directory, char name[256])
{
    if (directory->entry_count > 0 && world_chance(world, 3)) {
        strcpy(name, directory->entries[world_random(world, directory->entry_count)].name);
        return;
    }
    size_t length =
        world_chance(world, 10) ? world_random_between(world, 200, 255) : world_random_between(world, 1, 3);
    for (size_t i = 0; i < length; i++)
        name[i] = (char)('a' + world_random(world, 10));
    name[length] = '\0';
}

bool handle_can_read(const struct handle *handle)
{
    return (handle->flags & O_ACCMODE) != O_WRONLY;
}

bool handle_can_write(const struct handle *handle)
{
    return (handle->flags & O_ACCMODE) != O_RDONLY;
}

struct handle *world_pick_handle(struct world *world, bool readable, bool writable)
{
    size_t start = world_random(world, HANDLE_COUNT);
    for (size_t i = 0; i < HANDLE_COUNT; i++) {
        struct handle *handle = &world->handles[(start + i) % HANDLE_COUNT];
        if (handle->node != NULL && (!readable || handle_can_read(handle)) &&
            (!writable || handle_can_write(handle)))
            return handle;
    }
    return NULL;
}

/* Writes the path of a directory; returns its length. */
static size_t directory_path(const struct world *world, const struct node *directory, char path[PATH_SIZE])
{
    if (directory == world->model.root)
        return (size_t)snprintf(path, PATH_SIZE, "%s", world->options.directory);
    size_t used = directory_path(world, directory->parent, path);
    for (size_t i = 0; i < directory->parent->entry_count; i++)
        if (directory->parent->entries[i].node == directory)
            used +=
                (size_t)snprintf(path + used, PATH_SIZE - used, "/%s", directory->parent->entries[i].name);
    return used;
}

const char *world_path(struct world *world, const struct node *directory, const char *name,
                       char path[PATH_SIZE])
{
    size_t used = directory_path(world, directory, path);
    if (name != NULL)
        used += (size_t)snprintf(path + used, PATH_SIZE - used, "/%s", name);
    if (used >= PATH_SIZE)
        world_fail(world, directory, "a path became too long");
    return path;
}

unsigned directory_depth(const struct node *directory)
{
    unsigned depth = 0;
    for (; directory->parent != directory; directory = directory->parent)
        depth++;
    return depth;
}

unsigned directory_height(const struct node *directory)
{
    unsigned height = 0;
    for (size_t i = 0; i < directory->entry_count; i++) {
        if (directory->entries[i].node->type != NODE_DIRECTORY)
            continue;
        unsigned below = 1 + directory_height(directory->entries[i].node);
        height = below > height ? below : height;
    }
    return height;
}

void world_close_handle(struct world *world, struct handle *handle)
{
    struct node *node = handle->node;
    world_note(world, node, "close fd %d", handle->fd);
    world_expect(world, node, close(handle->fd), 0, "close");
    handle->node = NULL;
    node_release(node);
}

/* Whether all who have the file open or mapped only read it. */
static bool node_is_only_read(const struct world *world, const struct node *node)
{
    for (size_t i = 0; i < HANDLE_COUNT; i++)
        if (world->handles[i].node == node && handle_can_write(&world->handles[i]))
            return false;
    for (size_t i = 0; i < MAPPING_COUNT; i++)
        if (world->mappings[i].node == node && world->mappings[i].writable)
            return false;
    return true;
}

/* The file as its readers have it: without a name, with the old inode. */
static struct node *node_leave_behind(struct world *world, const struct node *node)
{
    struct node *left = node_make(&world->model, NODE_FILE, node->mode);
    file_write(left, 0, node->data, node->size);
    left->inode = node->inode;
    for (int i = 0; i < ATTRIBUTE_COUNT; i++)
        if (node->attributes[i].data != NULL)
            node_set_attribute(left, i, node->attributes[i].data, node->attributes[i].length);
    return left;
}

void world_notice_fork(struct world *world, struct node *node, const char *path)
{
    struct stat status;
    world_expect(world, node, lstat(path, &status), 0, "stat");
    if (!world->options.forks || node->inode == 0 || status.st_ino == node->inode ||
        !node_is_only_read(world, node))
        return;
    world_note(world, node, "moved to inode %llu", (unsigned long long)status.st_ino);
    struct node *left = node_leave_behind(world, node);
    world_note(world, left, "left behind by node %u", node->number);
    node_hold(left);
    for (size_t i = 0; i < HANDLE_COUNT; i++)
        if (world->handles[i].node == node) {
            world->handles[i].node = left;
            node_hold(left);
            node_release(node);
        }
    for (size_t i = 0; i < MAPPING_COUNT; i++)
        if (world->mappings[i].node == node) {
            world->mappings[i].node = left;
            node_hold(left);
            node_release(node);
        }
    node_release(left);
    node->inode = status.st_ino;
    node_forget_times(node);
}

void world_remove_mapping(struct world *world, struct mapping *mapping)
{
    struct node *node = mapping->node;
    world_note(world, node, "munmap %zu", mapping->length);
    world_expect(world, node, munmap(mapping->address, mapping->length), 0, "munmap");
    mapping->node = NULL;
    node_release(node);
}

void world_unmap_closed(struct world *world, struct node *node)
{
    if (!world->options.forks || !node->copied || !node_is_only_read(world, node))
        return;
    for (size_t i = 0; i < HANDLE_COUNT; i++)
        if (world->handles[i].node == node)
            return;
    for (size_t i = 0; i < MAPPING_COUNT; i++)
        if (world->mappings[i].node == node)
            world_remove_mapping(world, &world->mappings[i]);
}

void world_close_all(struct world *world)
{
    for (size_t i = 0; i < HANDLE_COUNT; i++)
        if (world->handles[i].node != NULL)
            world_close_handle(world, &world->handles[i]);
    for (size_t i = 0; i < MAPPING_COUNT; i++)
        if (world->mappings[i].node != NULL)
            world_remove_mapping(world, &world->mappings[i]);
}
