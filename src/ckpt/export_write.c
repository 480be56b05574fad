/* SPDX-License-Identifier: Apache-2.0 */
/* The files of an export, one after the other. */
#include "ckpt/export_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "ckpt/assemble_source.h"
#include "ckpt/export_sink.h"

struct export_work {
    struct export_job *job;
    int directory;
    const char *name;
    const struct export_state *state;
    struct export_written *written;
    struct assemble_sources sources;
    size_t current; /* file */
    uint64_t ino;   /* of that */
    int64_t done, total;
    bool no_clone;
};

/* Says it once, where the target is the cause. */
static errint work_fail(const struct export_work *work, errint error)
{
    const char *name = work->job->files[work->current].name;
    if (error == -ENOSPC || error == -EDQUOT)
        log_error("%s/%s: %s; what is written is kept, and the next export of it goes on from there",
                  work->name, name, strerror(-error));
    else if (error != -ECANCELED)
        log_error("%s/%s: %s", work->name, name,
                  error == -EBADMSG ? "what is read back is not what was written" : strerror(-error));
    return error;
}

/* -- being told -------------------------------------------------------------------------------------------
 */

static bool work_progress(void *context, int64_t bytes)
{
    struct export_work *work = context;
    work->done += bytes;
    return !work->job->progress || work->job->progress(work->job->context, work->done, work->total);
}

/* Without its line a step is only done again. */
static errint work_stable(void *context, struct export_sink *sink)
{
    const struct export_work *work = context;
    struct export_mark mark = {.ino = work->ino, .length = sink->at};
    errint error = sha256_so_far(sink->sum, mark.sum);
    return error ? error : export_state_add(work->state, work->job, work->current, &mark);
}

/* -- contents ---------------------------------------------------------------------------------------------
 */

static errint work_compute(struct export_work *work, struct export_sink *sink,
                           const struct assemble_part *part, bool *told)
{
    errint error = 0;
    while (sink->at < part->offset + part->length && !error) {
        int64_t from = sink->at - part->offset, left = part->length - from;
        size_t length = left < EXPORT_BLOCK ? (size_t)left : EXPORT_BLOCK;
        error = assemble_compute(work->job->model, part, from, length, sink->buffer, assemble_source_read,
                                 &work->sources);
        *told = error && error != -ENOMEM;
        if (!error)
            error = export_sink_bytes(sink, sink->buffer, length);
        work->written->made += (int64_t)length;
    }
    return error;
}

static errint work_copy(struct export_work *work, struct export_sink *sink, const struct assemble_part *part,
                        bool *told)
{
    const struct format_source *source;
    int64_t skipped = sink->at - part->offset, before = sink->written;
    bool unreadable = false;
    errint error = assemble_source_get(&work->sources, part->file, &source);
    *told = error;
    if (error)
        return error;
    error = export_sink_range(sink, source, part->file_offset + skipped, part->length - skipped, &unreadable);
    work->written->copied += sink->written - before;
    if (unreadable)
        log_error("%s: %s", work->job->model->files[part->file].path, strerror(-error));
    *told = unreadable;
    return error;
}

static errint work_part(struct export_work *work, struct export_sink *sink, const struct assemble_part *part,
                        bool *told)
{
    int64_t skipped = sink->at - part->offset;
    if (skipped >= part->length)
        return 0;
    switch (part->kind) {
    case ASSEMBLE_BYTES:
        work->written->made += part->length - skipped;
        return export_sink_bytes(sink, part->bytes + skipped, (size_t)(part->length - skipped));
    case ASSEMBLE_COPY: return work_copy(work, sink, part, told);
    case ASSEMBLE_COMPUTE: return work_compute(work, sink, part, told);
    }
    return -EINVAL;
}

static errint work_copied_file(struct export_work *work, struct export_sink *sink,
                               const struct export_file *file, bool *told)
{
    struct format_source source;
    int64_t before = sink->written;
    bool unreadable = false;
    errint error = folder_open(file->folder, file->path, &source);
    if (!error && source.size != file->size) {
        folder_close(file->folder, &source);
        error = -ESTALE;
    }
    if (error) {
        *told = true;
        log_error("%s: %s", file->path, error == -ESTALE ? "changed meanwhile" : strerror(-error));
        return error;
    }
    error = export_sink_range(sink, &source, sink->at, source.size - sink->at, &unreadable);
    work->written->copied += sink->written - before;
    folder_close(file->folder, &source);
    if (unreadable)
        log_error("%s: %s", file->path, strerror(-error));
    *told = unreadable;
    return error;
}

/* -- a file -----------------------------------------------------------------------------------------------
 */

/* Makes the directories that it lies in. */
static errint work_make_parents(const struct export_work *work, const char *name)
{
    char path[PATH_MAX];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(path, sizeof path, "%.*s", (int)(slash - name), name);
        if (mkdirat(work->directory, path, 0777) < 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

/* Opens what an earlier export has left of it, when that is what the mark says; -ENOENT: there is none. */
static int work_open_left(const struct export_work *work, const struct export_file *file,
                          const struct export_mark *mark)
{
    struct stat status;
    cleanup_fd int fd = mark->ino ? openat(work->directory, file->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;
    bool same = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_ino == mark->ino;
    if (same && mark->whole)
        same = status.st_size == file->size && clock_from_timespec(&status.st_mtim) == mark->mtime;
    return same && status.st_size >= mark->length ? steal_fd(fd) : -ENOENT;
}

static int work_create(const struct export_work *work, const struct export_file *file)
{
    errint error = work_make_parents(work, file->name);
    if (!error && unlinkat(work->directory, file->name, 0) < 0 && errno != ENOENT)
        error = -errno;
    if (error)
        return error;
    int fd = openat(work->directory, file->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd < 0 ? -errno : fd;
}

/* Goes on behind the bytes that are there and are the right ones. False: they are not. */
static bool work_resume(struct export_work *work, struct export_sink *sink, const struct export_mark *mark)
{
    uint8_t sum[SHA256_BYTES];
    if (export_sink_skip(sink, mark->length) < 0 || sha256_so_far(sink->sum, sum) < 0 ||
        memcmp(sum, mark->sum, sizeof sum) != 0 || ftruncate(sink->fd, mark->length) < 0)
        return false;
    work->written->resumed += mark->length;
    work->done += mark->length;
    return true;
}

static errint work_content(struct export_work *work, struct export_sink *sink, struct export_file *file)
{
    bool told = false;
    errint error = 0;
    if (!file->planned)
        error = work_copied_file(work, sink, file, &told);
    for (size_t i = 0; file->planned && i < file->planned->part_count && !error; i++)
        error = work_part(work, sink, &file->planned->parts[i], &told);
    if (!error && sink->at != file->size)
        error = -EIO;
    if (!error && fsync(sink->fd) < 0)
        error = -errno;
    if (!error)
        error = sha256_end(sink->sum, file->sum);
    return error && !told ? work_fail(work, error) : error;
}

/* The file is written: says so, and looks whether it is. */
static errint work_finish_file(struct export_work *work, int fd, struct export_file *file)
{
    struct stat status;
    uint8_t sum[SHA256_BYTES];
    errint error = work->job->verify ? export_sink_read_back(fd, file->size, sum) : 0;
    if (!error && work->job->verify && memcmp(sum, file->sum, sizeof sum) != 0) {
        unlinkat(work->directory, file->name, 0);
        error = -EBADMSG;
    }
    if (!error && fstat(fd, &status) < 0)
        error = -errno;
    if (error)
        return work_fail(work, error);
    struct export_mark mark = {.whole = true,
                               .ino = status.st_ino,
                               .length = file->size,
                               .mtime = clock_from_timespec(&status.st_mtim)};
    memcpy(mark.sum, file->sum, sizeof mark.sum);
    error = export_state_add(work->state, work->job, work->current, &mark);
    return error ? work_fail(work, error) : 0;
}

static errint work_write_file(struct export_work *work, int *fd, struct export_file *file,
                              const struct export_mark *mark)
{
    struct export_sink sink = {.fd = *fd,
                               .no_clone = work->no_clone,
                               .progress = work_progress,
                               .stable_at = work_stable,
                               .context = work};
    struct stat status;
    errint error = export_sink_begin(&sink);
    if (!error && *fd >= 0 && !work_resume(work, &sink, mark)) {
        close(*fd);
        *fd = -1;
        export_sink_end(&sink);
        sink.at = sink.stable = 0;
        error = export_sink_begin(&sink);
    }
    if (!error && *fd < 0) {
        *fd = work_create(work, file);
        error = *fd < 0 ? *fd : 0;
        sink.fd = *fd;
    }
    if (!error && fstat(*fd, &status) < 0)
        error = -errno;
    if (error)
        work_fail(work, error);
    work->ino = error ? 0 : status.st_ino;
    if (!error)
        error = work_content(work, &sink, file);
    work->written->cloned += sink.cloned;
    work->no_clone = sink.no_clone;
    export_sink_end(&sink);
    return error;
}

static errint work_file(struct export_work *work, size_t index)
{
    struct export_file *file = &work->job->files[index];
    const struct export_mark *mark = &work->state->marks[index];
    work->current = index;
    cleanup_fd int fd = work_open_left(work, file, mark);
    if (fd >= 0 && mark->whole) {
        memcpy(file->sum, mark->sum, sizeof file->sum);
        work->written->resumed += file->size;
        work_progress(work, file->size);
    } else {
        errint error = work_write_file(work, &fd, file, mark);
        if (error)
            return error;
    }
    return work_finish_file(work, fd, file);
}

errint export_write(struct export_job *job, int directory, const char *name, const struct export_state *state,
                    struct export_written *out)
{
    struct export_work work = {.job = job,
                               .directory = directory,
                               .name = name,
                               .state = state,
                               .written = out,
                               .sources = {.model = job->model, .folder = job->folder}};
    errint error = 0;
    *out = (struct export_written){0};
    for (size_t i = 0; i < job->count; i++)
        work.total += job->files[i].size;
    for (size_t i = 0; i < job->count && !error; i++)
        error = work_file(&work, i);
    assemble_sources_release(&work.sources);
    return error;
}
