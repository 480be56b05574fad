/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing the filesystem with the model. */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

const char *const attribute_names[ATTRIBUTE_COUNT] = {"user.a", "user.bb", "user.ckpt.step", "user.d"};

static mode_t node_type_bits(const struct node *node)
{
    static const mode_t bits[] = {
        [NODE_FILE] = S_IFREG, [NODE_DIRECTORY] = S_IFDIR, [NODE_SYMLINK] = S_IFLNK};
    return bits[node->type];
}

static void compare_time(struct world *world, const struct node *node, const char *which,
                         struct timespec found, struct timespec known)
{
    if (found.tv_sec != known.tv_sec || found.tv_nsec != known.tv_nsec)
        world_fail(world, node, "%s of node %u is %lld.%09ld, expected %lld.%09ld", which, node->number,
                   (long long)found.tv_sec, found.tv_nsec, (long long)known.tv_sec, known.tv_nsec);
}

/* What is known must be found; what is not known is learned. */
static void compare_times(struct world *world, struct node *node, const struct stat *status)
{
    if (node->times_float)
        return;
    if (node->modified_known)
        compare_time(world, node, "mtime", status->st_mtim, node->modified);
    if (node->changed_known)
        compare_time(world, node, "ctime", status->st_ctim, node->changed);
    node->modified = status->st_mtim;
    node->changed = status->st_ctim;
    node->modified_known = true;
    node->changed_known = true;
}

static void compare_number(struct world *world, const struct node *node, const char *which,
                           unsigned long long found, unsigned long long expected)
{
    if (found != expected)
        world_fail(world, node, "%s of node %u is %llu (%#llx), expected %llu (%#llx)", which, node->number,
                   found, found, expected, expected);
}

void world_compare_attributes(struct world *world, struct node *node, const char *path, int fd)
{
    struct stat status;
    world_expect(world, node, path != NULL ? lstat(path, &status) : fstat(fd, &status), 0, "stat");
    compare_number(world, node, "mode", status.st_mode, node_type_bits(node) | node->mode);
    compare_number(world, node, "link count", status.st_nlink, node_link_count(node));
    if (node->type != NODE_DIRECTORY)
        compare_number(world, node, "size", (unsigned long long)status.st_size, node->size);
    if (node->inode == 0)
        node->inode = status.st_ino;
    compare_number(world, node, "inode number", status.st_ino, node->inode);
    compare_times(world, node, &status);
}

void world_compare_range(struct world *world, struct node *node, int fd, size_t offset, size_t length,
                         bool direct)
{
    size_t available = offset < node->size ? node->size - offset : 0;
    size_t expected = length < available ? length : available;
    ssize_t count = pread(fd, world->buffer, length, (off_t)offset);
    if (count != (ssize_t)expected)
        world_fail(world, node, "read%s of %zu at %zu returned %zd (%s), expected %zu",
                   direct ? " (direct)" : "", length, offset, count,
                   count < 0 ? strerrorname_np(errno) : "no error", expected);
    for (size_t i = 0; i < expected; i++)
        if (world->buffer[i] != node->data[offset + i])
            world_fail(world, node, "byte %zu of node %u is %02x, expected %02x (read%s [%zu, %zu))",
                       offset + i, node->number, world->buffer[i], node->data[offset + i],
                       direct ? " direct" : "", offset, offset + expected);
}

void world_compare_file(struct world *world, struct node *node, const char *path)
{
    world_compare_attributes(world, node, path, -1);
    int fd = (int)world_expect(world, node, open(path, O_RDONLY | O_CLOEXEC), 0, "open");
    world_compare_range(world, node, fd, 0, SIZE_LIMIT + DIRECT_BLOCK, false);
    world_expect(world, node, close(fd), 0, "close");
}

static void compare_symlink(struct world *world, struct node *node, const char *path)
{
    char target[PATH_SIZE];
    ssize_t length = readlink(path, target, sizeof(target));
    if (length != (ssize_t)node->size || memcmp(target, node->data, node->size) != 0)
        world_fail(world, node, "readlink %s returned %zd, or other bytes", path, length);
}

static void compare_entry_type(struct world *world, const struct node *directory, const struct entry *entry,
                               unsigned char type)
{
    static const unsigned char types[] = {
        [NODE_FILE] = DT_REG, [NODE_DIRECTORY] = DT_DIR, [NODE_SYMLINK] = DT_LNK};
    if (type != DT_UNKNOWN && type != types[entry->node->type])
        world_fail(world, directory, "readdir: the type of %s is %u", entry->name, type);
}

void world_compare_directory(struct world *world, struct node *directory)
{
    char path[PATH_SIZE];
    world_path(world, directory, NULL, path);
    DIR *stream = opendir(path);
    if (stream == NULL)
        world_fail(world, directory, "opendir %s: %s", path, strerrorname_np(errno));
    bool *seen = memory_get(directory->entry_count);
    memset(seen, 0, directory->entry_count);
    size_t count = 0;
    struct dirent *found;
    errno = 0;
    while ((found = readdir(stream)) != NULL) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        const struct entry *entry = directory_find(directory, found->d_name);
        if (entry == NULL || seen[entry - directory->entries])
            world_fail(world, directory, "readdir of %s shows %s%s", path, found->d_name,
                       entry == NULL ? ", which is not there" : " twice");
        compare_entry_type(world, directory, entry, found->d_type);
        if (entry->node->inode != 0)
            compare_number(world, entry->node, "d_ino", found->d_ino, entry->node->inode);
        seen[entry - directory->entries] = true;
        count++;
    }
    if (errno != 0 || count != directory->entry_count)
        world_fail(world, directory, "readdir of %s showed %zu of %zu entries (%s)", path, count,
                   directory->entry_count, strerrorname_np(errno));
    free(seen);
    closedir(stream);
}

void world_compare_xattrs(struct world *world, struct node *node, const char *path)
{
    char list[1024];
    size_t expected_length = 0;
    for (int i = 0; i < ATTRIBUTE_COUNT; i++) {
        const struct attribute *attribute = &node->attributes[i];
        ssize_t length = getxattr(path, attribute_names[i], world->buffer, SIZE_LIMIT);
        if (attribute->data == NULL) {
            world_expect(world, node, length, ENODATA, "getxattr");
            continue;
        }
        expected_length += strlen(attribute_names[i]) + 1;
        if (length != (ssize_t)attribute->length ||
            memcmp(world->buffer, attribute->data, attribute->length) != 0)
            world_fail(world, node, "getxattr %s returned %zd, or other bytes, expected %zu",
                       attribute_names[i], length, attribute->length);
    }
    ssize_t listed = world_expect(world, node, listxattr(path, list, sizeof(list)), 0, "listxattr");
    size_t user_length = 0;
    for (const char *name = list; name < list + listed; name += strlen(name) + 1)
        if (strncmp(name, "user.", 5) == 0)
            user_length += strlen(name) + 1;
    compare_number(world, node, "length of the list of xattrs", user_length, expected_length);
}

static void compare_below(struct world *world, struct node *directory)
{
    char path[PATH_SIZE];
    world_compare_directory(world, directory);
    for (size_t i = 0; i < directory->entry_count; i++) {
        struct node *node = directory->entries[i].node;
        world_path(world, directory, directory->entries[i].name, path);
        world_compare_attributes(world, node, path, -1);
        if (node->type == NODE_FILE)
            world_compare_file(world, node, path);
        if (node->type == NODE_SYMLINK)
            compare_symlink(world, node, path);
        else
            world_compare_xattrs(world, node, path);
        if (node->type == NODE_DIRECTORY)
            compare_below(world, node);
    }
}

void world_compare_tree(struct world *world)
{
    compare_below(world, world->model.root);
}

void world_compare_handles(struct world *world)
{
    for (size_t i = 0; i < HANDLE_COUNT; i++) {
        const struct handle *handle = &world->handles[i];
        if (handle->node == NULL)
            continue;
        world_compare_attributes(world, handle->node, NULL, handle->fd);
        if (handle_can_read(handle))
            world_compare_range(world, handle->node, handle->fd, 0, SIZE_LIMIT + DIRECT_BLOCK,
                                handle->flags & O_DIRECT);
    }
}
