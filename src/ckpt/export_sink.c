/* SPDX-License-Identifier: Apache-2.0 */
/* Writing in steps, with shared blocks where there can be any. */
#include "ckpt/export_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/transfer.h"
#include "ckpt/folder.h"

errint export_sink_begin(struct export_sink *sink)
{
    sink->buffer = malloc(EXPORT_BLOCK);
    return sink->buffer ? sha256_begin(&sink->sum) : -ENOMEM;
}

void export_sink_end(struct export_sink *sink)
{
    sha256_release(&sink->sum);
    free(sink->buffer);
    sink->buffer = NULL;
}

/* Bytes have their place: goes on behind them. */
static errint sink_advance(struct export_sink *sink, const void *bytes, size_t length)
{
    sha256_add(sink->sum, bytes, length);
    sink->at += (int64_t)length;
    if (sink->progress && !sink->progress(sink->context, (int64_t)length))
        return -ECANCELED;
    if (sink->at - sink->stable < EXPORT_STEP)
        return 0;
    if (fdatasync(sink->fd) < 0)
        return -errno;
    sink->stable = sink->at;
    return sink->stable_at ? sink->stable_at(sink->context, sink) : 0;
}

errint export_sink_bytes(struct export_sink *sink, const void *bytes, size_t length)
{
    errint error = fault_hit("export.write");
    if (!error)
        error = transfer_write(sink->fd, bytes, length, sink->at);
    if (error)
        return error;
    sink->written += (int64_t)length;
    return sink_advance(sink, bytes, length);
}

/* -- shared blocks ----------------------------------------------------------------------------------------
 */

/* Errors that say that this disk cannot, not that it has failed. */
static bool sink_is_refusal(int error)
{
    return error == EXDEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ENOTTY ||
           error == EPERM || error == ETXTBSY || error == EBADF || error == EISDIR;
}

/*
 * Shares the whole blocks of a range, or all of a whole file: *end is where the shared ones end, `*start`
 * where they begin, in the file that is written.
 */
static errint sink_clone(struct export_sink *sink, const struct format_source *source, int64_t from,
                         int64_t length, int64_t *start, int64_t *end)
{
    struct stat status;
    int fd = folder_plain_descriptor(source);
    *start = *end = sink->at;
    if (fd < 0 || sink->no_clone || fstat(sink->fd, &status) < 0 || status.st_blksize <= 0)
        return 0;
    int64_t block = status.st_blksize, head = (block - from % block) % block;
    bool whole = from == 0 && sink->at == 0 && length == source->size;
    int64_t middle = whole ? length : (length - head) / block * block;
    if (from % block != sink->at % block || middle < block)
        return 0;
    const struct file_clone_range range = {.src_fd = fd,
                                           .src_offset = (uint64_t)(from + head),
                                           /* 0: to the end, which need not be that of a block. */
                                           .src_length = whole ? 0 : (uint64_t)middle,
                                           .dest_offset = (uint64_t)(sink->at + head)};
    if (ioctl(sink->fd, FICLONERANGE, &range) < 0) {
        sink->no_clone = sink_is_refusal(errno);
        return sink->no_clone ? 0 : -errno;
    }
    *start = sink->at + head;
    *end = *start + middle;
    sink->cloned += middle;
    return 0;
}

errint export_sink_range(struct export_sink *sink, const struct format_source *source, int64_t from,
                         int64_t length, bool *unreadable)
{
    int64_t start, end, shift = from - sink->at, stop = sink->at + length;
    errint error = sink_clone(sink, source, from, length, &start, &end);
    while (sink->at < stop && !error) {
        bool shared = sink->at >= start && sink->at < end;
        int64_t until = shared ? end : sink->at < start ? start : stop;
        size_t part = until - sink->at < EXPORT_BLOCK ? (size_t)(until - sink->at) : EXPORT_BLOCK;
        error = source->read(source->context, sink->buffer, part, sink->at + shift);
        *unreadable = error;
        if (!error)
            error =
                shared ? sink_advance(sink, sink->buffer, part) : export_sink_bytes(sink, sink->buffer, part);
    }
    return error;
}

/* -- what is there already --------------------------------------------------------------------------------
 */

errint export_sink_skip(struct export_sink *sink, int64_t length)
{
    while (sink->at < length) {
        size_t part = length - sink->at < EXPORT_BLOCK ? (size_t)(length - sink->at) : EXPORT_BLOCK;
        errint error = transfer_read(sink->fd, sink->buffer, part, sink->at);
        if (error)
            return error;
        sha256_add(sink->sum, sink->buffer, part);
        sink->at += (int64_t)part;
    }
    sink->stable = sink->at;
    return 0;
}

errint export_sink_read_back(int fd, int64_t size, uint8_t sum[SHA256_BYTES])
{
    struct export_sink sink = {.fd = fd};
    errint error = export_sink_begin(&sink);
    /* Pages that the disk has already can be forgotten; then the disk is asked. */
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (!error)
        error = export_sink_skip(&sink, size);
    if (!error)
        error = sha256_end(sink.sum, sum);
    export_sink_end(&sink);
    return error;
}
