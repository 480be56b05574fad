/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that is written from front to back, with the SHA-256 of what it got, in steps of which each is on
 * stable storage before it is told.
 */
#ifndef CKPTFS_CKPT_EXPORT_SINK_H
#define CKPTFS_CKPT_EXPORT_SINK_H

#include <stdbool.h>

#include "base/sha256.h"
#include "format/source.h"

enum { EXPORT_BLOCK = 4 << 20, EXPORT_STEP = 32 << 20 };

/* Of one thread; filled by export_sink_begin. */
struct export_sink {
    int fd; /* the caller's */
    struct sha256 *sum;
    int64_t at;     /* bytes that are there */
    int64_t stable; /* of these, on stable storage */
    uint8_t *buffer;
    int64_t cloned, written; /* by the sink */
    bool no_clone;           /* tried, and not possible here */
    /* Told of bytes that were done; false ends with -ECANCELED. */
    bool (*progress)(void *context, int64_t bytes);
    /* Told of a step: `at` bytes are on stable storage. */
    errint (*stable_at)(void *context, struct export_sink *sink);
    void *context;
};

/* 0 or -ENOMEM; the caller gives it to export_sink_end in any case. */
errint export_sink_begin(struct export_sink *sink);
void export_sink_end(struct export_sink *sink);

/* Each returns 0 or -errno, which is not logged. */
errint export_sink_bytes(struct export_sink *sink, const void *bytes, size_t length);
/* A range of a source; `*unreadable`: the source is what failed. */
errint export_sink_range(struct export_sink *sink, const struct format_source *source, int64_t from,
                         int64_t length, bool *unreadable);
/* Hashes what the file has already, up to `length`, and goes on from there. */
errint export_sink_skip(struct export_sink *sink, int64_t length);
/* Reads a file again, from the disk as far as its cached pages can be dropped, and hashes it. */
errint export_sink_read_back(int fd, int64_t size, uint8_t sum[SHA256_BYTES]);

#endif
