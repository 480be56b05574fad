/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a file the kernel has in memory, found out without reading any of it. (A read with RWF_NOWAIT is
 * no such question: it starts the read-ahead of what is not there.)
 */
#ifndef CKPTFS_BASE_PAGE_CACHE_H
#define CKPTFS_BASE_PAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether all of the range is in the page cache now; false where that cannot be known, and for what lies
 * behind the file's end. `offset` and `length` in bytes, of a regular file open for reading. Thread-safe. */
bool page_cache_has(int fd, int64_t offset, size_t length);

#endif
