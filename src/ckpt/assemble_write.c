/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a plan: every file under a name of its own first. */
#include "ckpt/assemble_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "ckpt/assemble_copy.h"
#include "ckpt/assemble_source.h"

enum { WRITE_TRIES = 16 };

/* A file that is written. */
struct write_file {
    const char *name;
    char temporary[NAME_MAX + 1]; /* "": there is none */
    bool renamed;
};

struct write {
    const struct assemble_output *output;
    struct assemble_sources sources;
    struct assemble_copy copy;
    int64_t done, total, made;
    struct write_file *files;
    size_t count;
};

static errint write_fail(const struct write *write, const char *name, errint error)
{
    if (error == -ECANCELED)
        return error;
    if (error == -EEXIST)
        log_error("%s/%s is there already; --force replaces it", write->output->name, name);
    else
        log_error("%s/%s: %s", write->output->name, name, strerror(-error));
    return error;
}

static bool write_progress(void *context, int64_t bytes)
{
    struct write *write = context;
    write->done += bytes;
    return !write->output->progress ||
           write->output->progress(write->output->context, write->done, write->total);
}

/* -- parts ------------------------------------------------------------------------------------------------
 */

static errint write_made(struct write *write, int fd, const void *bytes, size_t length, int64_t offset)
{
    errint error = transfer_write(fd, bytes, length, offset);
    write->made += (int64_t)length;
    if (error)
        return error;
    return write_progress(write, (int64_t)length) ? 0 : -ECANCELED;
}

/* What could not be read was told; `*told` keeps it from being told again. */
static errint write_computed(struct write *write, int fd, const struct assemble_part *part, bool *told)
{
    uint8_t *buffer = assemble_copy_buffer(&write->copy);
    errint error = buffer ? 0 : -ENOMEM;
    for (int64_t done = 0; done < part->length && !error;) {
        size_t length = part->length - done < ASSEMBLE_BLOCK ? (size_t)(part->length - done) : ASSEMBLE_BLOCK;
        error = assemble_compute(write->output->model, part, done, length, buffer, assemble_source_read,
                                 &write->sources);
        *told = error && error != -ENOMEM;
        if (!error)
            error = write_made(write, fd, buffer, length, part->offset + done);
        done += (int64_t)length;
    }
    return error;
}

static errint write_copied(struct write *write, int fd, const struct assemble_part *part, bool *told)
{
    const struct format_source *source;
    errint error = assemble_source_get(&write->sources, part->file, &source);
    *told = error;
    if (error)
        return error;
    return assemble_copy_range(&write->copy, source, folder_plain_descriptor(source), part->file_offset, fd,
                               part->offset, part->length);
}

static errint write_part(struct write *write, int fd, const struct assemble_part *part, bool *told)
{
    errint error = fault_hit("assemble.write");
    if (error)
        return error;
    switch (part->kind) {
    case ASSEMBLE_BYTES: return write_made(write, fd, part->bytes, (size_t)part->length, part->offset);
    case ASSEMBLE_COPY: return write_copied(write, fd, part, told);
    case ASSEMBLE_COMPUTE: return write_computed(write, fd, part, told);
    }
    return -EINVAL;
}

/* -- files ------------------------------------------------------------------------------------------------
 */

/* As long as a handle that only reads was there first, the file is served by who can map ranges. */
static int write_create(const struct write *write, const char *name)
{
    int directory = write->output->directory, flags = O_CREAT | O_EXCL | O_CLOEXEC;
    if (!write->output->maps)
        return openat(directory, name, O_WRONLY | flags, 0666);
    cleanup_fd int first = openat(directory, name, O_RDONLY | flags, 0666);
    int fd = first < 0 ? -1 : openat(directory, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (first >= 0 && fd < 0) {
        int error = errno;
        unlinkat(directory, name, 0);
        errno = error;
    }
    return fd;
}

/* Makes a file of a new name; -errno, which is not logged. */
static int write_open(const struct write *write, struct write_file *file)
{
    for (unsigned i = 0; i < WRITE_TRIES; i++) {
        uint32_t number;
        if (getrandom(&number, sizeof number, 0) < 0)
            return -errno;
        snprintf(file->temporary, sizeof file->temporary, ".ckptfs-assemble-%08x", number);
        int fd = write_create(write, file->temporary);
        if (fd >= 0)
            return fd;
        file->temporary[0] = '\0';
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

static errint write_planned(struct write *write, const struct assemble_file *planned, struct write_file *file)
{
    bool told = false;
    cleanup_fd int fd = write_open(write, file);
    errint error = fd < 0 ? fd : 0;
    for (size_t i = 0; i < planned->part_count && !error; i++)
        error = write_part(write, fd, &planned->parts[i], &told);
    if (!error && fsync(fd) < 0)
        error = -errno;
    return error && !told ? write_fail(write, file->name, error) : error;
}

static errint write_beside(struct write *write, struct write_file *file)
{
    struct format_source source;
    const struct folder *folder = write->output->beside_folder;
    errint error = folder_open(folder, file->name, &source);
    if (error) {
        log_error("%s: %s", file->name, strerror(-error));
        return error;
    }
    cleanup_fd int fd = write_open(write, file);
    error = fd < 0 ? fd : 0;
    if (!error)
        error = assemble_copy_range(&write->copy, &source, folder_plain_descriptor(&source), 0, fd, 0,
                                    source.size);
    if (!error && fsync(fd) < 0)
        error = -errno;
    folder_close(folder, &source);
    return error ? write_fail(write, file->name, error) : 0;
}

/* -- names ------------------------------------------------------------------------------------------------
 */

static bool write_exists(const struct write *write, const char *name)
{
    struct stat status;
    return fstatat(write->output->directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static errint write_rename(struct write *write, struct write_file *file)
{
    int directory = write->output->directory;
    unsigned flags = write->output->force ? 0 : RENAME_NOREPLACE;
    errint error = fault_hit("assemble.rename");
    if (!error && renameat2(directory, file->temporary, directory, file->name, flags) < 0)
        error = -errno;
    /* Some filesystems do not know the flag. */
    if (error == -EINVAL && flags) {
        error = write_exists(write, file->name) ? -EEXIST : 0;
        if (!error && renameat(directory, file->temporary, directory, file->name) < 0)
            error = -errno;
    }
    if (error)
        return write_fail(write, file->name, error);
    file->renamed = true;
    file->temporary[0] = '\0';
    return 0;
}

/* All or nothing: what has its name already loses it when another cannot get its own. */
static void write_undo(struct write *write)
{
    for (size_t i = 0; i < write->count; i++) {
        struct write_file *file = &write->files[i];
        const char *name = file->temporary[0] ? file->temporary : NULL;
        if (file->renamed && !write->output->force)
            name = file->name;
        if (name && unlinkat(write->output->directory, name, 0) < 0)
            log_error("%s/%s cannot be removed: %m", write->output->name, name);
    }
}

static errint write_all(struct write *write)
{
    const struct assemble_plan *plan = write->output->plan;
    errint error = 0;
    for (size_t i = 0; i < write->count && !error; i++) {
        if (!write->output->force && write_exists(write, write->files[i].name))
            error = write_fail(write, write->files[i].name, -EEXIST);
    }
    for (size_t i = 0; i < write->count && !error; i++) {
        struct write_file *file = &write->files[i];
        error =
            i < plan->file_count ? write_planned(write, &plan->files[i], file) : write_beside(write, file);
    }
    for (size_t i = 0; i < write->count && !error; i++)
        error = write_rename(write, &write->files[i]);
    if (!error && fsync(write->output->directory) < 0 && errno != EINVAL)
        error = write_fail(write, ".", -errno);
    return error;
}

errint assemble_write(const struct assemble_output *output, struct assemble_written *out)
{
    struct write write = {.output = output,
                          .sources = {.model = output->model, .folder = output->folder},
                          .count = output->plan->file_count + output->beside_count};
    cleanup_free struct write_file *files = calloc(write.count + 1, sizeof *files);
    *out = (struct assemble_written){0};
    if (!files)
        return -ENOMEM;
    write.files = files;
    write.copy.progress = write_progress;
    write.copy.context = &write;
    for (size_t i = 0; i < write.count; i++) {
        bool planned = i < output->plan->file_count;
        files[i].name = planned ? output->plan->files[i].name : output->beside[i - output->plan->file_count];
        write.total += planned ? output->plan->files[i].size : 0;
    }
    errint error = write_all(&write);
    if (error)
        write_undo(&write);
    *out = (struct assemble_written){
        .cloned = write.copy.cloned, .copied = write.copy.copied, .made = write.made};
    assemble_sources_release(&write.sources);
    assemble_copy_release(&write.copy);
    return error;
}
