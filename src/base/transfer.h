/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing a range of a file whole: over short transfers and interruptions.
 */
#ifndef CKPTFS_BASE_TRANSFER_H
#define CKPTFS_BASE_TRANSFER_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Reads `length` bytes at `offset`: 0, or a negative errno; -EIO when the file ends before. Thread-safe. */
static inline errint transfer_read(int fd, void *bytes, size_t length, int64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(fd, (char *)bytes + done, length - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        done += (size_t)got;
    }
    return 0;
}

/* Reads up to `length` bytes at `offset`: as many as there are before the end of the file, or a negative
 * errno. Thread-safe. */
static inline ssize_t transfer_read_some(int fd, void *bytes, size_t length, int64_t offset)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, (char *)bytes + done, length - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Writes `length` bytes at `offset`: 0, or a negative errno, when a part may be written. Thread-safe. */
static inline errint transfer_write(int fd, const void *bytes, size_t length, int64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t wrote = pwrite(fd, (const char *)bytes + done, length - done, offset + (int64_t)done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return -errno;
        done += (size_t)wrote;
    }
    return 0;
}

#endif
