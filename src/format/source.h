/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a parser reads: a size and a callback. The parsers know no filesystem, no database and no thread, so
 * that each can be tested and fuzzed alone, on bytes in memory.
 */
#ifndef CKPTFS_FORMAT_SOURCE_H
#define CKPTFS_FORMAT_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* What a parser returns, besides 0 and a negative errno, when the bytes are not what it reads. */
enum { FORMAT_FOREIGN = 1 };

struct format_source {
    void *context;
    int64_t size; /* bytes; the file does not change while it is parsed */
    /* Reads exactly `length` bytes at `offset`, which the caller has checked against the size: 0, or a
     * negative errno. */
    errint (*read)(void *context, void *buffer, size_t length, int64_t offset);
};

#endif
