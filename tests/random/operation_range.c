/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on ranges of files: truncation, allocation, copying, holes, syncing. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void range_truncate(struct world *world)
{
    struct handle *handle = world_pick_handle(world, false, true);
    if (handle == NULL)
        return;
    struct node *node = handle->node;
    size_t size = world_random_size(world, SIZE_LIMIT, node->size);
    world_note(world, node, "ftruncate fd %d %zu -> %zu", handle->fd, node->size, size);
    world_expect(world, node, ftruncate(handle->fd, (off_t)size), 0, "ftruncate");
    file_resize(node, size);
    node_forget_times(node);
    world_compare_attributes(world, node, NULL, handle->fd);
}

static void range_truncate_path(struct world *world)
{
    struct node *directory;
    struct entry *entry;
    char path[PATH_SIZE];
    if (!world_pick_entry(world, NODE_FILE, &directory, &entry))
        return;
    struct node *node = entry->node;
    size_t size = world_random_size(world, SIZE_LIMIT, node->size);
    world_path(world, directory, entry->name, path);
    world_unmap_closed(world, node);
    world_note(world, node, "truncate %zu -> %zu %s", node->size, size, path);
    world_expect(world, node, truncate(path, (off_t)size), 0, "truncate");
    world_notice_fork(world, node, path);
    file_resize(node, size);
    node_forget_times(node);
    world_compare_attributes(world, node, path, -1);
}

static void range_allocate(struct world *world)
{
    static const struct {
        int mode;
        const char *name;
    } modes[] = {
        {0, "allocate"},
        {FALLOC_FL_KEEP_SIZE, "allocate, keep size"},
        {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch hole"},
        {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch hole"},
        {FALLOC_FL_ZERO_RANGE, "zero range"},
        {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero range, keep size"},
    };
    struct handle *handle = world_pick_handle(world, false, true);
    if (handle == NULL)
        return;
    struct node *node = handle->node;
    size_t choice = world_random(world, sizeof(modes) / sizeof(modes[0]));
    int mode = modes[choice].mode;
    size_t offset = world_random_size(world, SIZE_LIMIT - 1, node->size / 2);
    size_t length = world_random_size(world, SIZE_LIMIT - offset, node->size / 4);
    if (length == 0)
        length = 1;
    world_note(world, node, "%s fd %d [%zu, %zu) of %zu", modes[choice].name, handle->fd, offset,
               offset + length, node->size);
    world_expect(world, node, fallocate(handle->fd, mode, (off_t)offset, (off_t)length), 0, "fallocate");
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        file_zero(node, offset, length);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + length > node->size)
        file_resize(node, offset + length);
    node_forget_times(node);
    world_compare_attributes(world, node, NULL, handle->fd);
}

/* Copies count bytes, which the source has, however many calls that takes. */
static void copy_all(struct world *world, const struct handle *from, size_t source, const struct handle *to,
                     size_t target, size_t count)
{
    off_t in = (off_t)source, out = (off_t)target;
    while (count > 0) {
        ssize_t copied = copy_file_range(from->fd, &in, to->fd, &out, count, 0);
        world_expect(world, to->node, copied, 0, "copy_file_range");
        if (copied == 0)
            world_fail(world, to->node, "copy_file_range copied nothing with %zu bytes left", count);
        count -= (size_t)copied;
    }
}

static void range_copy(struct world *world)
{
    struct handle *from = world_pick_handle(world, true, false);
    struct handle *to = world_pick_handle(world, false, true);
    if (from == NULL || to == NULL || (from->flags | to->flags) & O_DIRECT || to->flags & O_APPEND)
        return;
    size_t source = world_random_size(world, SIZE_LIMIT, 0);
    size_t target = world_random_size(world, SIZE_LIMIT - 1, source);
    size_t count = world_random_size(world, SIZE_LIMIT - target, from->node->size);
    size_t available = source < from->node->size ? from->node->size - source : 0;
    if (count > available)
        count = available;
    bool overlap = from->node == to->node && source < target + count && target < source + count;
    char line[200];
    snprintf(line, sizeof(line), "copy [%zu, %zu) of node %u fd %d to %zu of node %u fd %d%s", source,
             source + count, from->node->number, from->fd, target, to->node->number, to->fd,
             overlap ? " (overlapping)" : "");
    world_note(world, to->node, "%s", line);
    world_note(world, from->node, "%s", line);
    if (overlap) {
        off_t in = (off_t)source, out = (off_t)target;
        world_expect(world, to->node, copy_file_range(from->fd, &in, to->fd, &out, count, 0), EINVAL,
                     "copy_file_range");
        return;
    }
    if (count == 0)
        return;
    copy_all(world, from, source, to, target, count);
    from->node->copied = to->node->copied = true;
    if (target + count > to->node->size)
        file_resize(to->node, target + count);
    file_write(to->node, target, from->node->data + source, count);
    node_forget_times(to->node);
    world_compare_attributes(world, to->node, NULL, to->fd);
}

/* What the filesystem calls a hole must be zeros in the model. */
static void range_seek(struct world *world)
{
    struct handle *handle = world_pick_handle(world, false, false);
    if (handle == NULL)
        return;
    struct node *node = handle->node;
    size_t position = world_random_size(world, SIZE_LIMIT, node->size / 2);
    world_note(world, node, "seek from %zu of %zu", position, node->size);
    off_t data = lseek(handle->fd, (off_t)position, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        world_fail(world, node, "SEEK_DATA: %s", strerrorname_np(errno));
    if (data >= 0 && (position >= node->size || (size_t)data < position || (size_t)data >= node->size))
        world_fail(world, node, "SEEK_DATA from %zu of %zu gave %lld", position, node->size, (long long)data);
    size_t end = data < 0 ? node->size : (size_t)data;
    for (size_t i = position; i < end; i++)
        if (node->data[i] != 0)
            world_fail(world, node, "SEEK_DATA skipped byte %zu, which is %02x", i, node->data[i]);
    off_t hole = lseek(handle->fd, (off_t)position, SEEK_HOLE);
    if ((hole < 0) != (position >= node->size) || (hole < 0 && errno != ENXIO))
        world_fail(world, node, "SEEK_HOLE from %zu of %zu gave %lld", position, node->size, (long long)hole);
    if (hole >= 0 && ((size_t)hole < position || (size_t)hole > node->size))
        world_fail(world, node, "SEEK_HOLE from %zu of %zu gave %lld", position, node->size, (long long)hole);
}

static void range_sync(struct world *world)
{
    struct handle *handle = world_pick_handle(world, false, false);
    if (handle == NULL)
        return;
    bool data_only = world_chance(world, 2);
    world_note(world, handle->node, "%s fd %d", data_only ? "fdatasync" : "fsync", handle->fd);
    world_expect(world, handle->node, data_only ? fdatasync(handle->fd) : fsync(handle->fd), 0, "fsync");
}

const struct operation operations_range[] = {
    {"ftruncate", 14, range_truncate},
    {"truncate", 6, range_truncate_path},
    {"fallocate", 14, range_allocate},
    {"copy", 14, range_copy},
    {"seek", 6, range_seek},
    {"sync", 2, range_sync},
    {NULL, 0, NULL},
};
