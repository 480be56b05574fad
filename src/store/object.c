/* SPDX-License-Identifier: Apache-2.0 */
/* Backing files: their place, their life, and when they are on stable storage. */
#include "store/object.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"

enum { OBJECT_NAME_DIGITS = 16 };

/* "xx" and "xx/ID". */
struct object_path {
    char directory[3];
    char file[3 + OBJECT_NAME_DIGITS + 1];
};

static unsigned object_directory_index(uint64_t id)
{
    return (unsigned)(id >> 8) & 0xff;
}

static struct object_path object_path_of(uint64_t id)
{
    struct object_path path;
    unsigned directory = object_directory_index(id);
    snprintf(path.directory, sizeof path.directory, "%02x", directory);
    snprintf(path.file, sizeof path.file, "%02x/%016" PRIx64, directory, id);
    return path;
}

int object_create(struct store *store, uint64_t id)
{
    errint error = fault_hit("object-create");
    if (error)
        return error;
    struct object_path path = object_path_of(id);
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(store->objects_fd, path.file, flags, 0600);
    if (fd < 0 && errno == ENOENT) {
        if (mkdirat(store->objects_fd, path.directory, 0700) == 0)
            atomic_fetch_add(&store->directories[STORE_DIRECTORY_OBJECTS].made, 1);
        else if (errno != EEXIST)
            return -errno;
        fd = openat(store->objects_fd, path.file, flags, 0600);
    }
    if (fd < 0)
        return -errno;
    atomic_fetch_add(&store->directories[object_directory_index(id)].made, 1);
    return fd;
}

int object_open(struct store *store, uint64_t id, int flags)
{
    struct object_path path = object_path_of(id);
    int fd = openat(store->objects_fd, path.file, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 ? fd : -errno;
}

errint object_remove(struct store *store, uint64_t id)
{
    errint error = fault_hit("object-remove");
    if (error)
        return error;
    struct object_path path = object_path_of(id);
    if (unlinkat(store->objects_fd, path.file, 0) == 0 || errno == ENOENT)
        return 0;
    return -errno;
}

/*
 * Syncs a directory unless every entry made so far is known to be on stable storage. `made` is read before
 * the sync: an entry made meanwhile is not counted as synced.
 */
static errint object_directory_sync(struct store_directory *directory, int parent, const char *name)
{
    uint64_t made = atomic_load(&directory->made);
    uint64_t synced = atomic_load(&directory->synced);
    if (synced >= made)
        return 0;
    cleanup_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        return -errno;
    while (synced < made && !atomic_compare_exchange_weak(&directory->synced, &synced, made))
        continue;
    return 0;
}

errint object_sync(struct store *store, uint64_t id, int fd)
{
    errint error = fault_hit("object-sync");
    if (error)
        return error;
    char byte;
    /* A filesystem that was shut down during the sync may answer 0, but fails every read. */
    if (fdatasync(fd) != 0 || pread(fd, &byte, 1, 0) < 0)
        return -errno;
    struct object_path path = object_path_of(id);
    error = object_directory_sync(&store->directories[object_directory_index(id)], store->objects_fd,
                                  path.directory);
    if (error)
        return error;
    return object_directory_sync(&store->directories[STORE_DIRECTORY_OBJECTS], store->objects_fd, ".");
}

int64_t object_data_end(int fd, int64_t from)
{
    off_t end = lseek(fd, from, SEEK_HOLE);
    if (end >= 0)
        return end;
    return errno == ENXIO ? from : -errno;
}

static bool object_parse_hex(const char *text, size_t digits, uint64_t *out)
{
    if (strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

static void object_close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

#define cleanup_directory __attribute__((cleanup(object_close_directory)))

/* Opens a directory for reading its entries; NULL and errno. */
static DIR *object_open_directory(int parent, const char *name)
{
    cleanup_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    DIR *directory = fdopendir(fd);
    if (directory)
        (void)steal_fd(fd);
    return directory;
}

/* The next entry that is not "." or ".."; NULL at the end, with errno 0, or on an error. */
static struct dirent *object_next_entry(DIR *directory)
{
    struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(directory);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry;
}

static errint object_list_directory(struct store *store, const char *name, uint64_t number, struct ids *out)
{
    cleanup_directory DIR *directory = object_open_directory(store->objects_fd, name);
    if (!directory)
        return -errno;
    struct dirent *entry;
    while ((entry = object_next_entry(directory))) {
        uint64_t id;
        if (!object_parse_hex(entry->d_name, OBJECT_NAME_DIGITS, &id) ||
            object_directory_index(id) != number) {
            log_warning("%s/objects/%s/%s is no object and is left alone", store->path, name, entry->d_name);
            continue;
        }
        errint error = ids_append(out, id);
        if (error)
            return error;
    }
    return -errno;
}

errint object_list(struct store *store, struct ids *out)
{
    cleanup_directory DIR *directory = object_open_directory(store->objects_fd, ".");
    if (!directory)
        return -errno;
    struct dirent *entry;
    while ((entry = object_next_entry(directory))) {
        uint64_t number;
        if (!object_parse_hex(entry->d_name, 2, &number)) {
            log_warning("%s/objects/%s is no directory of objects and is left alone", store->path,
                        entry->d_name);
            continue;
        }
        errint error = object_list_directory(store, entry->d_name, number, out);
        if (error)
            return error;
    }
    return -errno;
}
