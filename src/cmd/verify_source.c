/* SPDX-License-Identifier: Apache-2.0 */
/* Opening what is to be verified, and asking it. */
#include "cmd/verify_source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "base/log.h"
#include "cmd/exit.h"
#include "fs/mount_table.h"
#include "fs/sequence.h"
#include "meta/journal.h"
#include "store/copies.h"
#include "store/store.h"

/* -- opening ----------------------------------------------------------------------------------------------
 */

/* After a power cut a mount first finds out what was lost; until then it would look like damage. */
static int verify_source_check_clean(const struct verify_source *source)
{
    cleanup_free char *clean = NULL;
    cleanup_free char *before = NULL;
    char now[128];
    if (store_epoch(source->store, now) < 0 || meta_setting_get(source->meta, "clean", &clean) < 0 ||
        meta_setting_get(source->meta, "epoch", &before) < 0 || strcmp(clean, "1") == 0 ||
        strcmp(before, now) == 0)
        return EXIT_FINE;
    log_error("%s was not closed before its disk was cut off; mount it once, so that what was lost is known",
              source->store->path);
    return EXIT_FAILED;
}

static int verify_source_open_database(struct verify_source *out)
{
    cleanup_free char *database = store_path_of(out->store, STORE_DATABASE);
    cleanup_free char *journal = store_path_of(out->store, COPIES_JOURNAL);
    if (!database || !journal) {
        log_error("verify: out of memory");
        return EXIT_FAILED;
    }
    errint error = out->store->created ? -ENOENT : meta_open_journaled(database, false, journal, &out->meta);
    if (error == -ENOSPC && store_reserve_spend_last(out->store) == 0)
        error = meta_open_journaled(database, false, journal, &out->meta);
    if (!error)
        error = sequence_check(out->store, out->meta);
    if (!error)
        return verify_source_check_clean(out);
    if (error == -ESTALE)
        log_error("%s " SEQUENCE_OLDER "; `ckptfs fsck --rebuild %s` brings the store in line", database,
                  out->store->path);
    else
        log_error("%s cannot be opened: %s", database, strerror(-error));
    switch (-error) {
    case ESTALE: return EXIT_DATABASE_OLD;
    case ENOENT: return EXIT_NO_DATABASE;
    case EPROTONOSUPPORT: return EXIT_STORE_NEWER;
    case EUCLEAN: return EXIT_STORE_DAMAGED;
    case ENOSPC: return EXIT_NO_SPACE;
    default: return EXIT_FAILED;
    }
}

/* store_open makes a store where there is none: here that would be a mistake. */
static int verify_source_open_store(const char *path, struct verify_source *out)
{
    cleanup_free char *identity = NULL;
    if (asprintf(&identity, "%s/ckptfs.json", path) < 0) {
        identity = NULL;
        log_error("verify: out of memory");
        return EXIT_FAILED;
    }
    if (access(identity, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        log_error("%s is neither a ckptfs mount nor a store", path);
        return EXIT_NOT_A_STORE;
    }
    enum store_problem problem = store_open(path, -1, &out->store);
    return problem ? exit_code_of_store(problem) : verify_source_open_database(out);
}

static int verify_source_open_mount(const char *mountpoint, struct verify_source *out)
{
    out->mountpoint = strdup(mountpoint);
    out->fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->mountpoint && out->fd >= 0)
        return EXIT_FINE;
    log_error("%s cannot be opened: %m", mountpoint);
    if (errno == ENOTCONN || errno == ECONNABORTED)
        return EXIT_MOUNTPOINT_DEAD;
    return errno == EACCES || errno == EPERM ? EXIT_NOT_PERMITTED : EXIT_FAILED;
}

int verify_source_open(const char *argument, struct verify_source *out)
{
    *out = (struct verify_source){.fd = -1};
    cleanup_mount_table struct mount_table table = {0};
    errint ignored;
    cleanup_free char *path = mount_table_resolve(argument, &ignored);
    if (!path || mount_table_read(&table) != 0) {
        log_error("the mounts cannot be read: /proc is not mounted or memory is short");
        return EXIT_FAILED;
    }
    const struct mount_entry *entry = mount_table_find(&table, path);
    return entry && mount_entry_is_ours(entry) ? verify_source_open_mount(path, out)
                                               : verify_source_open_store(path, out);
}

void verify_source_close(struct verify_source *source)
{
    if (source->fd >= 0)
        close(source->fd);
    errint error = meta_close(source->meta);
    if (error)
        log_error("the database was not closed in order: %s", strerror(-error));
    store_close(source->store);
    free(source->mountpoint);
    *source = (struct verify_source){.fd = -1};
}

/* -- files ------------------------------------------------------------------------------------------------
 */

static errint verify_source_walk_mount(int parent, const char *name, dev_t device, struct ids *out);

static errint verify_source_walk_directory(int fd, dev_t device, struct ids *out)
{
    DIR *directory = fdopendir(fd);
    if (!directory) {
        errint error = -errno;
        close(fd);
        return error;
    }
    errint error = 0;
    struct dirent *entry;
    while (!error && (errno = 0, entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            error = verify_source_walk_mount(dirfd(directory), entry->d_name, device, out);
        /* Gone meanwhile; or another filesystem is mounted there. */
        error = error == -ENOENT || error == -EXDEV ? 0 : error;
    }
    if (!error && errno)
        error = -errno;
    closedir(directory);
    return error;
}

static errint verify_source_walk_mount(int parent, const char *name, dev_t device, struct ids *out)
{
    struct stat status;
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (status.st_dev != device)
        return -EXDEV;
    if (S_ISREG(status.st_mode))
        return ids_append(out, status.st_ino);
    if (!S_ISDIR(status.st_mode))
        return 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : verify_source_walk_directory(fd, device, out);
}

struct verify_source_entries {
    struct ids files, directories;
    errint error;
};

static bool verify_source_note(void *context, const char *name, size_t length, uint64_t cookie,
                               const struct meta_inode *inode)
{
    (void)name;
    (void)length;
    (void)cookie;
    struct verify_source_entries *entries = context;
    if (S_ISREG(inode->mode))
        entries->error = ids_append(&entries->files, inode->ino);
    else if (S_ISDIR(inode->mode))
        entries->error = ids_append(&entries->directories, inode->ino);
    return entries->error == 0;
}

/* Directories are taken from a list that grows while it is walked. */
static errint verify_source_walk_store(struct meta *meta, uint64_t directory, struct ids *out)
{
    struct verify_source_entries entries = {0};
    errint error = ids_append(&entries.directories, directory);
    for (size_t i = 0; !error && i < entries.directories.count; i++) {
        error = meta_list(meta, entries.directories.at[i], 0, verify_source_note, &entries);
        error = error ? error : entries.error;
    }
    for (size_t i = 0; !error && i < entries.files.count; i++)
        error = ids_append(out, entries.files.at[i]);
    ids_release(&entries.files);
    ids_release(&entries.directories);
    return error;
}

static errint verify_source_find(struct meta *meta, const char *path, struct meta_inode *inode)
{
    errint error = meta_get(meta, META_ROOT_INO, inode);
    while (!error && *path) {
        size_t length = strcspn(path, "/");
        if (length > 0)
            error = meta_lookup(meta, inode->ino, path, length, inode);
        path += length + strspn(path + length, "/");
    }
    return error;
}

errint verify_source_files(const struct verify_source *source, const char *path, struct ids *out)
{
    size_t prefix = source->mountpoint ? strlen(source->mountpoint) : 0;
    if (prefix && strncmp(path, source->mountpoint, prefix) == 0 && (path[prefix] == '/' || !path[prefix]))
        path += prefix;
    path += strspn(path, "/");
    if (source->mountpoint) {
        struct stat root;
        return fstat(source->fd, &root) < 0
                   ? -errno
                   : verify_source_walk_mount(source->fd, *path ? path : ".", root.st_dev, out);
    }
    struct meta_inode inode;
    errint error = verify_source_find(source->meta, path, &inode);
    if (error || (!S_ISREG(inode.mode) && !S_ISDIR(inode.mode)))
        return error;
    return S_ISREG(inode.mode) ? ids_append(out, inode.ino)
                               : verify_source_walk_store(source->meta, inode.ino, out);
}

/* -- objects ----------------------------------------------------------------------------------------------
 */

static errint verify_source_append(struct verify_objects *out, const struct control_object *object)
{
    if (!grow_reserve(out->at, out->capacity, out->count + 1))
        return -ENOMEM;
    out->at[out->count++] = *object;
    return 0;
}

static errint verify_source_ask_objects(const struct verify_source *source, struct control_objects *objects)
{
    if (source->mountpoint)
        return ioctl(source->fd, CKPTFS_IOCTL_OBJECTS, objects) < 0 ? -errno : 0;
    return control_list_objects(source->meta, objects);
}

errint verify_source_objects(const struct verify_source *source, uint64_t ino, struct verify_objects *out)
{
    cleanup_free struct control_objects *objects = calloc(1, sizeof *objects);
    if (!objects)
        return -ENOMEM;
    objects->ino = ino;
    for (;;) {
        errint error = verify_source_ask_objects(source, objects);
        if (error)
            return error;
        if (objects->count == 0)
            return 0;
        if (objects->count > CONTROL_OBJECTS_MAX || objects->at[objects->count - 1].id <= objects->after)
            return -EPROTO;
        for (size_t i = 0; !error && i < objects->count; i++)
            error = verify_source_append(out, &objects->at[i]);
        if (error)
            return error;
        objects->after = objects->at[objects->count - 1].id;
    }
}

/* Nothing that a daemon of another version may answer leads out of the answer. */
static errint verify_source_check_answer(struct verify_answer *answer, int64_t offset)
{
    answer->text[sizeof answer->text - 1] = '\0';
    bool sound = answer->lines <= VERIFY_LINES_MAX && (answer->next == -1 || answer->next > offset);
    for (uint32_t i = 0; sound && i < answer->lines; i++)
        sound = answer->line[i].path < sizeof answer->text;
    return sound ? 0 : -EPROTO;
}

errint verify_source_step(const struct verify_source *source, uint64_t object, int64_t offset, int64_t budget,
                          bool repair, struct verify_answer *out)
{
    if (!source->mountpoint) {
        const struct verify_request request = {
            .store = source->store,
            .meta = source->meta,
            .object = object,
            .offset = offset,
            .budget = budget,
            .repair = repair,
        };
        return verify_step(&request, out);
    }
    struct control_verify step = {.object = object, .offset = offset, .budget = budget, .repair = repair};
    if (ioctl(source->fd, CKPTFS_IOCTL_VERIFY, &step) < 0)
        return -errno;
    *out = step.answer;
    return verify_source_check_answer(out, offset);
}
