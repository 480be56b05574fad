/* SPDX-License-Identifier: Apache-2.0 */
/* Copying ranges of files. */
#include "ckpt/assemble_copy.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/transfer.h"

enum {
    COPY_KERNEL_BLOCK = 64 << 20, /* at once, so that progress is told */
    COPY_CLONE_BLOCK = 1 << 30,
};

uint8_t *assemble_copy_buffer(struct assemble_copy *copy)
{
    if (!copy->buffer)
        copy->buffer = malloc(ASSEMBLE_BLOCK);
    return copy->buffer;
}

void assemble_copy_release(struct assemble_copy *copy)
{
    free(copy->buffer);
    copy->buffer = NULL;
}

static errint copy_tell(struct assemble_copy *copy, int64_t bytes)
{
    return copy->progress && !copy->progress(copy->context, bytes) ? -ECANCELED : 0;
}

/* -- through a buffer -------------------------------------------------------------------------------------
 */

static errint copy_buffered(struct assemble_copy *copy, const struct format_source *source, int64_t from,
                            int fd, int64_t to, int64_t length)
{
    uint8_t *buffer = assemble_copy_buffer(copy);
    if (!buffer)
        return -ENOMEM;
    while (length > 0) {
        size_t part = length < ASSEMBLE_BLOCK ? (size_t)length : ASSEMBLE_BLOCK;
        errint error = source->read(source->context, buffer, part, from);
        if (!error)
            error = transfer_write(fd, buffer, part, to);
        if (!error)
            error = copy_tell(copy, (int64_t)part);
        if (error)
            return error;
        copy->copied += (int64_t)part;
        from += (int64_t)part;
        to += (int64_t)part;
        length -= (int64_t)part;
    }
    return 0;
}

/* -- in the kernel ----------------------------------------------------------------------------------------
 */

/* Errors that say that this way is none, not that the disk has failed. */
static bool copy_is_refusal(int error)
{
    return error == EXDEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ENOTTY ||
           error == EPERM || error == ETXTBSY || error == EBADF || error == EISDIR;
}

/* Copies as much as the kernel takes; what is left is in the references then. */
static errint copy_in_kernel(struct assemble_copy *copy, int source_fd, int64_t *from, int fd, int64_t *to,
                             int64_t *length)
{
    while (*length > 0 && !copy->no_kernel_copy) {
        loff_t in = *from, out = *to;
        size_t part = *length < COPY_KERNEL_BLOCK ? (size_t)*length : COPY_KERNEL_BLOCK;
        ssize_t done = copy_file_range(source_fd, &in, fd, &out, part, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && !copy_is_refusal(errno))
            return -errno;
        if (done <= 0) {
            copy->no_kernel_copy = true;
            return 0;
        }
        copy->copied += done;
        *from += done;
        *to += done;
        *length -= done;
        errint error = copy_tell(copy, done);
        if (error)
            return error;
    }
    return 0;
}

/* -- shared blocks ----------------------------------------------------------------------------------------
 */

/* Shares whole blocks of the range, which start at the first multiple of the block size behind `*from`. */
static errint copy_clone(struct assemble_copy *copy, int source_fd, int64_t *from, int fd, int64_t *to,
                         int64_t *length)
{
    while (*length > 0) {
        int64_t part = *length < COPY_CLONE_BLOCK ? *length : COPY_CLONE_BLOCK;
        struct file_clone_range range = {.src_fd = source_fd,
                                         .src_offset = (uint64_t)*from,
                                         .src_length = (uint64_t)part,
                                         .dest_offset = (uint64_t)*to};
        if (ioctl(fd, FICLONERANGE, &range) < 0) {
            copy->no_clone = copy_is_refusal(errno);
            return copy->no_clone ? 0 : -errno;
        }
        copy->cloned += part;
        *from += part;
        *to += part;
        *length -= part;
        errint error = copy_tell(copy, part);
        if (error)
            return error;
    }
    return 0;
}

static errint copy_uncloned(struct assemble_copy *copy, const struct format_source *source, int source_fd,
                            int64_t from, int fd, int64_t to, int64_t length)
{
    errint error = source_fd >= 0 ? copy_in_kernel(copy, source_fd, &from, fd, &to, &length) : 0;
    return error ? error : copy_buffered(copy, source, from, fd, to, length);
}

errint assemble_copy_range(struct assemble_copy *copy, const struct format_source *source, int source_fd,
                           int64_t from, int fd, int64_t to, int64_t length)
{
    struct stat status;
    if (source_fd < 0 || copy->no_clone || fstat(fd, &status) < 0)
        return copy_uncloned(copy, source, source_fd, from, fd, to, length);
    int64_t block = status.st_blksize;
    int64_t head = block > 0 ? (block - from % block) % block : 0;
    if (block <= 0 || from % block != to % block || length < head + block)
        return copy_uncloned(copy, source, source_fd, from, fd, to, length);
    errint error = copy_uncloned(copy, source, source_fd, from, fd, to, head);
    int64_t middle = (length - head) / block * block, tail = (length - head) % block;
    from += head;
    to += head;
    if (!error)
        error = copy_clone(copy, source_fd, &from, fd, &to, &middle);
    return error ? error : copy_uncloned(copy, source, source_fd, from, fd, to, middle + tail);
}
