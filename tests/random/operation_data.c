/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on the bytes of files: open, close, write, read, shared mappings. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int random_open_flags(struct world *world)
{
    static const int access_modes[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
    int flags = access_modes[world_random(world, 4)];
    if (flags != O_RDONLY && world_chance(world, 8))
        flags |= O_TRUNC;
    if (world_chance(world, 8))
        flags |= O_DIRECT;
    else if (world_chance(world, 6))
        flags |= O_APPEND;
    if (world_chance(world, 20))
        flags |= O_SYNC;
    return flags;
}

/* A free slot; a random handle is closed when there is none. */
static struct handle *handle_slot(struct world *world)
{
    for (size_t i = 0; i < HANDLE_COUNT; i++)
        if (world->handles[i].node == NULL)
            return &world->handles[i];
    struct handle *handle = &world->handles[world_random(world, HANDLE_COUNT)];
    world_close_handle(world, handle);
    return handle;
}

static void data_open(struct world *world)
{
    struct node *directory;
    struct entry *entry;
    char path[PATH_SIZE];
    if (!world_pick_entry(world, NODE_FILE, &directory, &entry))
        return;
    struct node *node = entry->node;
    world_path(world, directory, entry->name, path);
    struct handle *handle = handle_slot(world);
    int flags = random_open_flags(world);
    if (flags & (O_ACCMODE | O_TRUNC))
        world_unmap_closed(world, node);
    world_note(world, node, "open flags %#o %s", flags, path);
    int fd = (int)world_expect(world, node, open(path, flags | O_CLOEXEC), 0, "open");
    world_notice_fork(world, node, path);
    node_hold(node);
    *handle = (struct handle){.node = node, .fd = fd, .flags = flags};
    if (flags & O_TRUNC) {
        file_resize(node, 0);
        node_forget_times(node);
    }
    world_compare_attributes(world, node, NULL, fd);
}

static void data_close(struct world *world)
{
    struct handle *handle = world_pick_handle(world, false, false);
    if (handle != NULL)
        world_close_handle(world, handle);
}

/* Where a transfer goes: anywhere up to the limit, in whole blocks where the handle is for direct transfers.
 */
static void random_range(struct world *world, const struct handle *handle, size_t *offset, size_t *length)
{
    *offset = world_random_size(world, SIZE_LIMIT - DIRECT_BLOCK, handle->node->size);
    *length = world_random_size(world, SIZE_LIMIT - *offset, world_random(world, 5000));
    if (handle->flags & O_DIRECT) {
        *offset -= *offset % DIRECT_BLOCK;
        *length -= *length % DIRECT_BLOCK;
    }
    if (*length == 0)
        *length = handle->flags & O_DIRECT ? DIRECT_BLOCK : 1;
}

static void data_write(struct world *world)
{
    struct handle *handle = world_pick_handle(world, false, true);
    if (handle == NULL)
        return;
    struct node *node = handle->node;
    size_t offset, length;
    random_range(world, handle, &offset, &length);
    /* On Linux O_APPEND appends whatever the offset of pwrite. */
    size_t place = handle->flags & O_APPEND ? node->size : offset;
    if (place >= SIZE_LIMIT)
        return;
    if (length > SIZE_LIMIT - place)
        length = SIZE_LIMIT - place;
    unsigned char *data = world_random_bytes(world, length);
    world_note(world, node, "write fd %d [%zu, %zu) of %zu%s", handle->fd, place, place + length, node->size,
               handle->flags & O_DIRECT ? " direct" : "");
    ssize_t written = pwrite(handle->fd, data, length, (off_t)offset);
    if (written != (ssize_t)length)
        world_fail(world, node, "write of %zu returned %zd (%s)", length, written, strerrorname_np(errno));
    file_write(node, place, data, length);
    node_forget_times(node);
}

static void data_read(struct world *world)
{
    struct handle *handle = world_pick_handle(world, true, false);
    if (handle == NULL)
        return;
    size_t offset, length;
    random_range(world, handle, &offset, &length);
    world_note(world, handle->node, "read fd %d [%zu, %zu)", handle->fd, offset, offset + length);
    world_compare_range(world, handle->node, handle->fd, offset, length, handle->flags & O_DIRECT);
}

static void data_read_whole(struct world *world)
{
    struct node *directory;
    struct entry *entry;
    char path[PATH_SIZE];
    if (world_pick_entry(world, NODE_FILE, &directory, &entry))
        world_compare_file(world, entry->node, world_path(world, directory, entry->name, path));
}

static void data_map(struct world *world)
{
    struct handle *handle = world_pick_handle(world, true, false);
    struct mapping *mapping = &world->mappings[world_random(world, MAPPING_COUNT)];
    if (handle == NULL || handle->flags & O_DIRECT || handle->node->size == 0)
        return;
    if (mapping->node != NULL)
        world_remove_mapping(world, mapping);
    struct node *node = handle->node;
    bool writable = handle_can_write(handle);
    size_t length = world_random_between(world, 1, node->size);
    world_note(world, node, "mmap fd %d %zu %s", handle->fd, length,
               writable ? "for writing" : "for reading");
    void *address =
        mmap(NULL, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, handle->fd, 0);
    world_expect(world, node, address == MAP_FAILED ? -1 : 0, 0, "mmap");
    node_hold(node);
    *mapping = (struct mapping){.node = node, .address = address, .length = length, .writable = writable};
}

static void data_unmap(struct world *world)
{
    struct mapping *mapping = &world->mappings[world_random(world, MAPPING_COUNT)];
    if (mapping->node != NULL)
        world_remove_mapping(world, mapping);
}

/* A mapping, and a range of it that lies within the file; NULL when the chosen one has none. */
static struct mapping *pick_mapped_range(struct world *world, size_t *offset, size_t *length)
{
    struct mapping *mapping = &world->mappings[world_random(world, MAPPING_COUNT)];
    if (mapping->node == NULL)
        return NULL;
    size_t usable = mapping->length < mapping->node->size ? mapping->length : mapping->node->size;
    if (usable == 0)
        return NULL;
    *offset = world_random(world, usable);
    *length = world_random_between(world, 1, usable - *offset);
    if (world_chance(world, 2) && *length > 5000)
        *length = world_random_between(world, 1, 5000);
    return mapping;
}

static void data_map_store(struct world *world)
{
    size_t offset, length;
    struct mapping *mapping = pick_mapped_range(world, &offset, &length);
    if (mapping == NULL || !mapping->writable)
        return;
    unsigned char *data = world_random_bytes(world, length);
    world_note(world, mapping->node, "store [%zu, %zu) through a mapping", offset, offset + length);
    memcpy(mapping->address + offset, data, length);
    file_write(mapping->node, offset, data, length);
    mapping->node->times_float = true;
}

static void data_map_load(struct world *world)
{
    size_t offset, length;
    struct mapping *mapping = pick_mapped_range(world, &offset, &length);
    if (mapping == NULL)
        return;
    struct node *node = mapping->node;
    world_note(world, node, "load [%zu, %zu) through a mapping", offset, offset + length);
    for (size_t i = offset; i < offset + length; i++)
        if (mapping->address[i] != node->data[i])
            world_fail(world, node, "byte %zu of a mapping is %02x, expected %02x", i, mapping->address[i],
                       node->data[i]);
}

static void data_map_sync(struct world *world)
{
    struct mapping *mapping = &world->mappings[world_random(world, MAPPING_COUNT)];
    if (mapping->node == NULL)
        return;
    int flags = world_chance(world, 2) ? MS_SYNC : MS_ASYNC;
    world_note(world, mapping->node, "msync %s", flags == MS_SYNC ? "MS_SYNC" : "MS_ASYNC");
    world_expect(world, mapping->node, msync(mapping->address, mapping->length, flags), 0, "msync");
}

const struct operation operations_data[] = {
    {"open", 30, data_open},
    {"close", 24, data_close},
    {"write", 60, data_write},
    {"read", 40, data_read},
    {"read whole", 10, data_read_whole},
    {"map", 8, data_map},
    {"unmap", 5, data_unmap},
    {"store", 16, data_map_store},
    {"load", 16, data_map_load},
    {"msync", 4, data_map_sync},
    {NULL, 0, NULL},
};
