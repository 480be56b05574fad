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
#include "store/object_path.h"

enum {
    OBJECT_BLOCK = 4096,         /* what is given back to the disk is a multiple of this */
    OBJECT_SCRATCH = 256 * 1024, /* of the file that punching is tried on */
};

static unsigned object_directory_index(uint64_t id)
{
    return (unsigned)(id >> 8) & 0xff;
}

struct object_path object_path_of(uint64_t id)
{
    struct object_path path;
    unsigned directory = object_directory_index(id);
    snprintf(path.directory, sizeof path.directory, "%02x", directory);
    snprintf(path.file, sizeof path.file, "%02x/%016" PRIx64, directory, id);
    snprintf(path.sums, sizeof path.sums, "%s" OBJECT_SUMS, path.file);
    snprintf(path.sums_new, sizeof path.sums_new, "%s" OBJECT_SUMS_NEW, path.file);
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
    object_directory_note(store, id);
    return fd;
}

int object_open(struct store *store, uint64_t id, int flags)
{
    struct object_path path = object_path_of(id);
    int fd = openat(store->objects_fd, path.file, flags | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 ? fd : -errno;
}

static errint object_unlink(const struct store *store, const char *name)
{
    return unlinkat(store->objects_fd, name, 0) == 0 || errno == ENOENT ? 0 : -errno;
}

/*
 * The table of chunk hashes goes first: a crash in between leaves an object, which recovery finds, and no
 * table that nobody would find. It goes once more at the end, as it may have been written meanwhile; a table
 * that is written later is removed by its writer (sums_write).
 */
errint object_remove(struct store *store, uint64_t id)
{
    errint error = fault_hit("object-remove");
    if (error)
        return error;
    struct object_path path = object_path_of(id);
    const char *const names[] = {path.sums_new, path.sums, path.file, path.sums};
    for (size_t i = 0; i < sizeof names / sizeof *names && !error; i++)
        error = object_unlink(store, names[i]);
    return error;
}

/*
 * Syncs a directory unless every entry made so far is known to be on stable storage. `made` is read before
 * the sync: an entry made meanwhile is not counted as synced.
 */
static errint object_sync_directory(struct store_directory *directory, int parent, const char *name)
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

void object_directory_note(struct store *store, uint64_t id)
{
    atomic_fetch_add(&store->directories[object_directory_index(id)].made, 1);
}

errint object_directory_sync(struct store *store, uint64_t id)
{
    struct object_path path = object_path_of(id);
    errint error = object_sync_directory(&store->directories[object_directory_index(id)], store->objects_fd,
                                         path.directory);
    if (error)
        return error;
    return object_sync_directory(&store->directories[STORE_DIRECTORY_OBJECTS], store->objects_fd, ".");
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
    return object_directory_sync(store, id);
}

int64_t object_data_end(int fd, int64_t from)
{
    off_t end = lseek(fd, from, SEEK_HOLE);
    if (end >= 0)
        return end;
    return errno == ENXIO ? from : -errno;
}

/* -- space ----------------------------------------------------------------------------------------------- */

errint object_punch(int fd, int64_t offset, int64_t length)
{
    errint error = fault_hit("object-punch");
    if (error)
        return error;
    struct stat status;
    int64_t end;
    if (offset < 0 || length < 0 || __builtin_add_overflow(offset, length, &end))
        return -EINVAL;
    if (fstat(fd, &status) != 0)
        return -errno;
    int64_t size = status.st_size;
    if (offset >= size)
        return 0;
    /* The last block goes too when nothing behind the range is in it. */
    end = end >= size ? (size + OBJECT_BLOCK - 1) / OBJECT_BLOCK * OBJECT_BLOCK
                      : end / OBJECT_BLOCK * OBJECT_BLOCK;
    int64_t begin = (offset / OBJECT_BLOCK + (offset % OBJECT_BLOCK != 0)) * OBJECT_BLOCK;
    if (begin >= end)
        return 0;
    while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, end - begin) != 0) {
        if (errno != EINTR)
            return errno == ENOSYS ? -EOPNOTSUPP : -errno;
    }
    return 0;
}

/* A file without a name, or with one that goes at once where the disk cannot make such a file. */
static int object_open_scratch(const struct store *store)
{
    int fd = openat(store->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd >= 0 ? fd : -errno;
    static const char name[] = "scratch";
    fd = openat(store->fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    unlinkat(store->fd, name, 0);
    return fd;
}

static int object_try_punch(const struct store *store)
{
    cleanup_fd int fd = object_open_scratch(store);
    if (fd < 0)
        return fd;
    cleanup_free char *bytes = malloc(OBJECT_SCRATCH);
    if (!bytes)
        return -ENOMEM;
    memset(bytes, 'x', OBJECT_SCRATCH);
    ssize_t wrote = pwrite(fd, bytes, OBJECT_SCRATCH, 0);
    if (wrote != OBJECT_SCRATCH)
        return wrote < 0 ? -errno : -ENOSPC;
    errint error = object_punch(fd, 0, OBJECT_SCRATCH / 2);
    if (error == -EOPNOTSUPP)
        return 0;
    return error ? error : 1;
}

int object_can_punch(struct store *store)
{
    int known = atomic_load(&store->can_punch);
    if (known != STORE_PUNCH_UNTRIED)
        return known == STORE_PUNCH_WORKS;
    int can = object_try_punch(store);
    if (can >= 0)
        atomic_store(&store->can_punch, can ? STORE_PUNCH_WORKS : STORE_PUNCH_FAILS);
    return can;
}

static errint object_file_status(const struct store *store, uint64_t id, struct stat *out)
{
    struct object_path path = object_path_of(id);
    return fstatat(store->objects_fd, path.file, out, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

int64_t object_file_size(const struct store *store, uint64_t id)
{
    struct stat status;
    errint error = object_file_status(store, id, &status);
    return error ? error : status.st_size;
}

static int64_t object_status_bytes(const struct stat *status)
{
    return (int64_t)status->st_blocks * 512;
}

int64_t object_stored_bytes(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? object_status_bytes(&status) : -errno;
}

int64_t object_file_stored_bytes(const struct store *store, uint64_t id)
{
    struct stat status;
    errint error = object_file_status(store, id, &status);
    return error ? error : object_status_bytes(&status);
}

/* -- listing --------------------------------------------------------------------------------------------- */

static bool object_parse_hex(const char *text, size_t digits, uint64_t *out)
{
    if (strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

/* ID.sum and ID.sum.new: what lies beside an object and is removed with it. */
static bool object_name_is_sums(const char *name, uint64_t number)
{
    char digits[OBJECT_NAME_DIGITS + 1] = "";
    uint64_t id;
    if (strlen(name) <= OBJECT_NAME_DIGITS)
        return false;
    memcpy(digits, name, OBJECT_NAME_DIGITS);
    if (!object_parse_hex(digits, OBJECT_NAME_DIGITS, &id) || object_directory_index(id) != number)
        return false;
    const char *suffix = name + OBJECT_NAME_DIGITS;
    return strcmp(suffix, OBJECT_SUMS) == 0 || strcmp(suffix, OBJECT_SUMS_NEW) == 0;
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
        if (object_name_is_sums(entry->d_name, number))
            continue;
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

/* -- what they take ---------------------------------------------------------------------------------------
 */

static errint object_add_directory(DIR *directory, bool (*stop)(void *context), void *context, int64_t *bytes)
{
    struct dirent *entry;
    while ((entry = object_next_entry(directory))) {
        struct stat status;
        if (stop(context))
            return -ECANCELED;
        /* What is removed meanwhile does not count. */
        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            *bytes += object_status_bytes(&status);
    }
    return -errno;
}

errint object_total_stored(struct store *store, bool (*stop)(void *context), void *context, int64_t *out)
{
    *out = 0;
    for (unsigned number = 0; number < STORE_DIRECTORY_OBJECTS; number++) {
        char name[3];
        snprintf(name, sizeof name, "%02x", number);
        cleanup_directory DIR *directory = object_open_directory(store->objects_fd, name);
        errint error = directory ? object_add_directory(directory, stop, context, out) : -errno;
        if (error && error != -ENOENT)
            return error;
    }
    return 0;
}
