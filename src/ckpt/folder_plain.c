/* SPDX-License-Identifier: Apache-2.0 */
/* A directory on a disk as a folder, or one file of it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/transfer.h"
#include "ckpt/folder.h"

struct folder_plain {
    int directory;
    char *only;  /* the one file that is there; NULL: all */
    bool strict; /* symbolic links lead nowhere */
};

/* As openat(2) does it, with O_CLOEXEC. */
static int folder_plain_openat(bool strict, int directory, const char *path, int flags)
{
    const struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_SYMLINKS};
    return strict ? (int)syscall(SYS_openat2, directory, path, &how, sizeof how)
                  : openat(directory, path, flags | O_CLOEXEC);
}

static bool folder_plain_describe(bool strict, int directory, const char *name, struct folder_entry *entry)
{
    struct stat status;
    if (fstatat(directory, name, &status, strict ? AT_SYMLINK_NOFOLLOW : 0) < 0 ||
        (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)))
        return false;
    *entry = (struct folder_entry){
        .name = name,
        .directory = S_ISDIR(status.st_mode),
        .time = clock_from_timespec(&status.st_mtim),
    };
    if (!entry->directory)
        entry->size = status.st_size;
    return true;
}

static errint folder_plain_list_all(const struct folder_plain *plain, const char *path,
                                    bool (*visit)(void *, const struct folder_entry *), void *visit_context)
{
    int fd = folder_plain_openat(plain->strict, plain->directory, *path ? path : ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return -errno;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        errint error = -errno;
        close(fd);
        return error;
    }
    struct folder_entry entry;
    const struct dirent *found;
    bool more = true;
    errno = 0;
    while (more && (found = readdir(stream))) {
        if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0 &&
            folder_plain_describe(plain->strict, fd, found->d_name, &entry))
            more = visit(visit_context, &entry);
        errno = 0;
    }
    errint error = more ? -errno : 0;
    closedir(stream);
    return error;
}

static errint folder_plain_list(void *context, const char *path,
                                bool (*visit)(void *visit_context, const struct folder_entry *entry),
                                void *visit_context)
{
    const struct folder_plain *plain = context;
    struct folder_entry entry;
    if (!plain->only)
        return folder_plain_list_all(plain, path, visit, visit_context);
    if (*path)
        return -ENOENT;
    if (folder_plain_describe(plain->strict, plain->directory, plain->only, &entry))
        visit(visit_context, &entry);
    return 0;
}

static errint folder_plain_read(void *context, void *buffer, size_t length, int64_t offset)
{
    return transfer_read((int)(intptr_t)context, buffer, length, offset);
}

static errint folder_plain_open(void *context, const char *path, struct format_source *out)
{
    const struct folder_plain *plain = context;
    struct stat status;
    if (plain->only && strcmp(path, plain->only) != 0)
        return -ENOENT;
    /* Without O_NONBLOCK a pipe of that name would be waited for. */
    cleanup_fd int fd =
        folder_plain_openat(plain->strict, plain->directory, path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
    *out = (struct format_source){
        .context = (void *)(intptr_t)steal_fd(fd), .size = status.st_size, .read = folder_plain_read};
    return 0;
}

static void folder_plain_close(void *context, struct format_source *source)
{
    (void)context;
    close((int)(intptr_t)source->context);
}

/* On a mount of ours, which says so. */
static bool folder_plain_is_shed(void *context, const char *path)
{
    static const char shed[] = "shed";
    char state[sizeof shed];
    struct format_source source;
    if (folder_plain_open(context, path, &source) < 0)
        return false;
    ssize_t length = fgetxattr((int)(intptr_t)source.context, "user.ckptfs.state", state, sizeof state);
    folder_plain_close(context, &source);
    return length == sizeof shed - 1 && memcmp(state, shed, sizeof shed - 1) == 0;
}

int folder_plain_descriptor(const struct format_source *source)
{
    return source->read == folder_plain_read ? (int)(intptr_t)source->context : -1;
}

/* Splits the path of a file: the directory is opened, the name kept. */
static errint folder_plain_open_parent(const char *path, struct folder_plain *plain)
{
    cleanup_free char *parent = strdup(path);
    const char *slash = strrchr(path, '/');
    plain->only = strdup(slash ? slash + 1 : path);
    if (!parent || !plain->only)
        return -ENOMEM;
    if (slash)
        parent[slash - path + 1] = '\0';
    plain->directory = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return plain->directory < 0 ? -errno : 0;
}

void folder_plain_release(struct folder *folder)
{
    struct folder_plain *plain = folder->context;
    if (!plain)
        return;
    if (plain->directory >= 0)
        close(plain->directory);
    free(plain->only);
    free(plain);
    *folder = (struct folder){0};
}

static errint folder_plain_start(const char *path, bool strict, struct folder *out)
{
    struct folder_plain *plain = calloc(1, sizeof *plain);
    *out = (struct folder){.context = plain,
                           .list = folder_plain_list,
                           .open = folder_plain_open,
                           .close = folder_plain_close,
                           .is_shed = folder_plain_is_shed};
    if (!plain)
        return -ENOMEM;
    plain->strict = strict;
    plain->directory = folder_plain_openat(strict, AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    errint error = plain->directory < 0 ? -errno : 0;
    if (error == -ENOTDIR && !strict)
        error = folder_plain_open_parent(path, plain);
    if (error)
        folder_plain_release(out);
    return error;
}

errint folder_plain(const char *path, struct folder *out)
{
    return folder_plain_start(path, false, out);
}

errint folder_plain_strict(const char *path, struct folder *out)
{
    return folder_plain_start(path, true, out);
}

int folder_plain_directory(const struct folder *folder)
{
    const struct folder_plain *plain = folder->context;
    return plain->directory;
}
