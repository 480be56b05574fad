/* SPDX-License-Identifier: Apache-2.0 */
/* Looking through /proc. */
#include "cmd/holders.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/ids.h"

enum { HOLDERS_MAX = 5 };

static bool holders_path_is_below(const char *path, const char *mountpoint)
{
    size_t length = strlen(mountpoint);
    return strncmp(path, mountpoint, length) == 0 &&
           (path[length] == '\0' || path[length] == '/' || path[length] == ' ' || path[length] == '\n');
}

static bool holders_link_is_below(int directory, const char *name, const char *mountpoint)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(directory, name, target, sizeof target - 1);
    if (length < 0)
        return false;
    target[length] = '\0';
    return holders_path_is_below(target, mountpoint);
}

static bool holders_descriptors_are_below(int process, const char *mountpoint)
{
    int fd = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    bool found = false;
    for (struct dirent *entry = readdir(directory); entry && !found; entry = readdir(directory))
        found = holders_link_is_below(fd, entry->d_name, mountpoint);
    closedir(directory);
    return found;
}

/* NULL: it is gone, or another user's. */
static FILE *holders_open(int process, const char *name)
{
    int fd = openat(process, name, O_RDONLY | O_CLOEXEC);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (!file && fd >= 0)
        close(fd);
    return file;
}

/* "7f00-7f01 r--p 0 fd:00 12   /path": the path begins at the first slash. */
static bool holders_mappings_are_below(int process, const char *mountpoint)
{
    FILE *file = holders_open(process, "maps");
    if (!file)
        return false;
    cleanup_free char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (!found && getline(&line, &room, file) >= 0) {
        const char *path = strchr(line, '/');
        found = path && holders_path_is_below(path, mountpoint);
    }
    fclose(file);
    return found;
}

static bool holders_process_uses(int process, const char *mountpoint)
{
    return holders_link_is_below(process, "cwd", mountpoint) ||
           holders_link_is_below(process, "root", mountpoint) ||
           holders_link_is_below(process, "exe", mountpoint) ||
           holders_descriptors_are_below(process, mountpoint) ||
           holders_mappings_are_below(process, mountpoint);
}

static void holders_read_name(int process, char *out, size_t size)
{
    cleanup_fd int fd = openat(process, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, out, size - 1) : 0;
    out[length > 0 ? length : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

/* Lists the processes that `holds` says true of. */
static void holders_list(bool (*holds)(int process, void *context), void *context, char *out, size_t size)
{
    *out = '\0';
    DIR *processes = opendir("/proc");
    if (!processes)
        return;
    size_t used = 0;
    int found = 0;
    for (struct dirent *entry = readdir(processes); entry; entry = readdir(processes)) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        cleanup_fd int process = openat(dirfd(processes), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (process < 0 || !holds(process, context))
            continue;
        char name[64];
        holders_read_name(process, name, sizeof name);
        bool more = found++ == HOLDERS_MAX;
        int wrote = more ? snprintf(out + used, size - used, ", ...")
                         : snprintf(out + used, size - used, "%s%.20s (%s)", used ? ", " : "process ",
                                    entry->d_name, name);
        if (more || wrote < 0 || (size_t)wrote >= size - used)
            break;
        used += (size_t)wrote;
    }
    closedir(processes);
}

static bool holders_process_uses_mount(int process, void *context)
{
    const char *const *mountpoint = context;
    return holders_process_uses(process, *mountpoint);
}

void holders_describe(const char *mountpoint, char *out, size_t size)
{
    holders_list(holders_process_uses_mount, &mountpoint, out, size);
}

/* -- mount namespaces -------------------------------------------------------------------------------------
 */

struct holders_copies {
    const char *device;
    struct ids namespaces; /* looked at already */
};

/* "36 35 0:52 / /mountpoint ...": the third field. */
static bool holders_table_has(int process, const char *device)
{
    FILE *file = holders_open(process, "mountinfo");
    if (!file)
        return false;
    cleanup_free char *line = NULL;
    size_t room = 0;
    bool found = false;
    char field[32];
    while (!found && getline(&line, &room, file) >= 0)
        found = sscanf(line, "%*s %*s %31s", field) == 1 && strcmp(field, device) == 0;
    fclose(file);
    return found;
}

static bool holders_process_has_copy(int process, void *context)
{
    struct holders_copies *copies = context;
    struct stat space;
    if (fstatat(process, "ns/mnt", &space, 0) < 0)
        return false;
    if (ids_contain(&copies->namespaces, space.st_ino))
        return false;
    return ids_append(&copies->namespaces, space.st_ino) == 0 && holders_table_has(process, copies->device);
}

void holders_describe_copies(const char *device, char *out, size_t size)
{
    struct holders_copies copies = {.device = device};
    holders_list(holders_process_has_copy, &copies, out, size);
    ids_release(&copies.namespaces);
}
