/* SPDX-License-Identifier: Apache-2.0 */
/* Walking down a tree of our own. */
#include "ckpt/export_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Exports are no deeper; what is deeper was made by somebody else, and stays. */
enum { REMOVE_DEPTH_MAX = 32 };

struct remove_walk {
    bool (*keeps)(const void *context, const char *path);
    const void *context;
    bool only_sync;
};

static errint remove_level(const struct remove_walk *walk, int directory, const char *path, unsigned depth);

static errint remove_entry(const struct remove_walk *walk, int directory, const char *name, const char *path,
                           unsigned depth)
{
    struct stat status;
    bool kept = walk->only_sync || (walk->keeps && walk->keeps(walk->context, path));
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return kept || unlinkat(directory, name, 0) == 0 ? 0 : -errno;
    errint error = -ELOOP;
    if (depth < REMOVE_DEPTH_MAX) {
        int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        error = below < 0 ? -errno : remove_level(walk, below, path, depth + 1);
    }
    if (!error && !kept && unlinkat(directory, name, AT_REMOVEDIR) < 0)
        error = -errno;
    return error;
}

/* The descriptor is closed. */
static errint remove_level(const struct remove_walk *walk, int directory, const char *path, unsigned depth)
{
    errint error = walk->only_sync && fsync(directory) < 0 && errno != EINVAL ? -errno : 0;
    DIR *stream = fdopendir(directory);
    if (!stream) {
        error = -errno;
        close(directory);
        return error;
    }
    const struct dirent *entry;
    while (!error && (errno = 0, entry = readdir(stream))) {
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int length = snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", entry->d_name);
        error = length < 0 || (size_t)length >= sizeof below
                    ? -ENAMETOOLONG
                    : remove_entry(walk, dirfd(stream), entry->d_name, below, depth);
    }
    if (!error && errno)
        error = -errno;
    closedir(stream);
    return error;
}

static errint remove_start(const struct remove_walk *walk, int directory)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : remove_level(walk, fd, "", 0);
}

errint export_tree_clear(int directory, bool (*keeps)(const void *context, const char *path),
                         const void *context)
{
    const struct remove_walk walk = {.keeps = keeps, .context = context};
    return remove_start(&walk, directory);
}

errint export_tree_remove(int directory, const char *name)
{
    const struct remove_walk walk = {0};
    return remove_entry(&walk, directory, name, "", 0);
}

errint export_tree_sync(int directory)
{
    const struct remove_walk walk = {.only_sync = true};
    return remove_start(&walk, directory);
}
