/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and copying configuration, tokenizer and code. */
#include "cmd/template_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/transfer.h"
#include "ckpt/side_files.h"
#include "format/plain_text.h"

enum { TEMPLATE_COPY_BYTES = 1 << 20, TEMPLATE_NAME_TRIES = 100 };

void template_files_release(struct template_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->at[i].name);
        if (files->at[i].copy >= 0)
            close(files->at[i].copy);
    }
    if (files->fd > 0)
        close(files->fd);
}

/* Says of one file what keeps it from being lent, or copied. */
static void template_tell(const struct template_files *files, const char *name, const char *problem)
{
    cleanup_free char *plain = plain_text(name);
    log_error("%s/%s: %s", files->directory, plain ? plain : "?", problem);
}

/* -- finding ----------------------------------------------------------------------------------------------
 */

/* What keeps it out; NULL: nothing. */
static const char *template_objection(int fd, const char *name, int64_t *size)
{
    struct stat status;
    if (fstatat(fd, name, &status, 0) < 0)
        return strerror(errno);
    if (!S_ISREG(status.st_mode))
        return "is no regular file";
    if (status.st_size > TEMPLATE_FILE_MAX)
        return "is larger than 256 MiB";
    if (strlen(name) >= CONTROL_TEMPLATE_NAME)
        return "has too long a name";
    *size = status.st_size;
    return NULL;
}

/* False: one line was logged. */
static bool template_add(struct template_files *files, const char *name)
{
    int64_t size = 0;
    const char *objection = template_objection(files->fd, name, &size);
    if (objection) {
        cleanup_free char *plain = plain_text(name);
        log_warning("%s/%s: %s; it is left out", files->directory, plain ? plain : "?", objection);
        return true;
    }
    if (files->count == CONTROL_TEMPLATE_FILES) {
        log_error("%s: has more than %d files of configuration, tokenizer or code", files->directory,
                  CONTROL_TEMPLATE_FILES);
        return false;
    }
    char *copy = strdup(name);
    if (!copy) {
        template_tell(files, name, strerror(ENOMEM));
        return false;
    }
    files->at[files->count++] = (struct template_file){copy, size, -1};
    return true;
}

static int template_compare(const void *a, const void *b)
{
    const struct template_file *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static void template_close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

bool template_files_find(struct template_files *files)
{
    files->fd = open(files->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int copy = files->fd < 0 ? -1 : openat(files->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    __attribute__((cleanup(template_close_directory))) DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        log_error("%s: %m", files->directory);
        if (copy >= 0)
            close(copy);
        return false;
    }
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (side_file_is(entry->d_name) && !template_add(files, entry->d_name))
            return false;
    }
    if (errno) {
        log_error("%s: %m", files->directory);
        return false;
    }
    qsort(files->at, files->count, sizeof *files->at, template_compare);
    if (files->count == 0)
        log_error("%s: holds no configuration, tokenizer or code", files->directory);
    return files->count > 0;
}

/* -- copying ----------------------------------------------------------------------------------------------
 */

/* Where the library under the mount knows no O_TMPFILE: a file that loses its name at once. */
static int template_make_unnamed(int run)
{
    for (int i = 0; i < TEMPLATE_NAME_TRIES; i++) {
        char name[48];
        snprintf(name, sizeof name, ".ckptfs-template-%ld-%d", (long)getpid(), i);
        int fd = openat(run, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd >= 0 && unlinkat(run, name, 0) < 0) {
            close(fd);
            return -1;
        }
        return fd;
    }
    return -1;
}

static int template_make_file(int run)
{
    int fd = openat(run, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR) ? template_make_unnamed(run) : fd;
}

/* As long as bytes can be shared; what is left is copied. A negative errno. */
static errint template_share(int from, int to, int64_t size, int64_t *done)
{
    while (*done < size) {
        off64_t from_offset = *done, to_offset = *done;
        ssize_t got = copy_file_range(from, &from_offset, to, &to_offset, (size_t)(size - *done), 0);
        if (got < 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
            return -errno;
        if (got <= 0)
            return 0;
        *done += got;
    }
    return 0;
}

/* To the file's end, as far as it is not copied yet. */
static errint template_copy_rest(int from, int to, int64_t *done)
{
    cleanup_free char *buffer = malloc(TEMPLATE_COPY_BYTES);
    if (!buffer)
        return -ENOMEM;
    for (;;) {
        ssize_t got = transfer_read_some(from, buffer, TEMPLATE_COPY_BYTES, *done);
        if (got <= 0)
            return (errint)got;
        errint error =
            *done + got > TEMPLATE_FILE_MAX ? -EFBIG : transfer_write(to, buffer, (size_t)got, *done);
        if (error)
            return error;
        *done += got;
    }
}

/* Who may enter the run may read it, if he might before; it is the run's owner's. */
static errint template_set_owner(int copy, const struct stat *from, const struct stat *run)
{
    mode_t shown = (run->st_mode & S_IXGRP ? S_IRGRP : 0) | (run->st_mode & S_IXOTH ? S_IROTH : 0);
    struct stat status;
    if (fstat(copy, &status) < 0)
        return -errno;
    bool other = status.st_uid != run->st_uid || status.st_gid != run->st_gid;
    if (other && fchown(copy, run->st_uid, run->st_gid) < 0 && status.st_uid != run->st_uid)
        return -errno;
    return fchmod(copy, S_IRUSR | S_IWUSR | (from->st_mode & shown)) < 0 ? -errno : 0;
}

static errint template_copy(const struct template_files *files, struct template_file *file, int run)
{
    struct stat status, above;
    cleanup_fd int from = openat(files->fd, file->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from < 0 || fstat(from, &status) < 0 || fstat(run, &above) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_size > TEMPLATE_FILE_MAX)
        return -EINVAL;
    file->copy = template_make_file(run);
    if (file->copy < 0)
        return -errno;
    file->size = 0;
    errint error = template_share(from, file->copy, status.st_size, &file->size);
    if (!error)
        error = template_copy_rest(from, file->copy, &file->size);
    return error ? error : template_set_owner(file->copy, &status, &above);
}

bool template_files_copy(struct template_files *files, int run)
{
    for (size_t i = 0; i < files->count; i++) {
        errint error = template_copy(files, &files->at[i], run);
        if (error) {
            template_tell(files, files->at[i].name, strerror(-error));
            return false;
        }
    }
    return true;
}

bool template_files_sync(const struct template_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        if (fsync(files->at[i].copy) < 0) {
            template_tell(files, files->at[i].name, strerror(errno));
            return false;
        }
    }
    return true;
}
