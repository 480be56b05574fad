/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buffer over a range of a source, for records that are read in order and whose length is known only from
 * their own first bytes. Starts as {0}; may be aimed again and again.
 */
#ifndef CKPTFS_FORMAT_WINDOW_H
#define CKPTFS_FORMAT_WINDOW_H

#include "format/internal.h"

/* The longest record: a zip directory's entry with name, extra field and comment of 65,535 bytes each. */
enum { WINDOW_SIZE = 256 * 1024 };

struct window {
    const struct format_source *source;
    int64_t start, end; /* the range, inside the source */
    size_t ahead;       /* how much is read at once, at most WINDOW_SIZE */
    int64_t offset;     /* of the buffer's first byte */
    size_t length;
    uint8_t *buffer;
};

/* -ENOMEM. */
errint window_aim(struct window *window, const struct format_source *source, int64_t start, int64_t end,
                  size_t ahead);
/*
 * Gives `length` bytes at `offset`, valid until the next call. FORMAT_FOREIGN when they do not lie in the
 * range; -errno of the source.
 */
int window_get(struct window *window, int64_t offset, size_t length, const uint8_t **bytes);
void window_release(struct window *window);

#define cleanup_window __attribute__((cleanup(window_release)))

#endif
