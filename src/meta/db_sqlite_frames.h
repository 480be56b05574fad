/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what was committed out of SQLite's log, as its recovery would
 * (https://www.sqlite.org/fileformat2.html#walformat).
 *
 * A log is a header and frames: a page's number, the size of the database where the frame ends a commit, and
 * the page. The header names the log by a salt, which every frame repeats; each frame's checksum covers all
 * before it. So a place is told by salt, number of frames and checksum, and a log in which a place is found
 * again has the same bytes before it.
 */
#ifndef CKPTFS_META_DB_SQLITE_FRAMES_H
#define CKPTFS_META_DB_SQLITE_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum { FRAMES_HEADER_SIZE = 32, FRAMES_FRAME_HEADER_SIZE = 24, FRAMES_PAGE_MAX = 65536 };

/* Behind `frame` frames of the log with that salt. */
struct frames_place {
    uint32_t salt[2];
    uint32_t frame;
    uint32_t sum[2]; /* of all before */
};

struct frames {
    int fd; /* of the log; the caller's */
    uint32_t page_size;
    bool big_endian; /* how the checksum takes its words */
    struct frames_place place;
};

/* One frame, in the bytes that frames_read gave. */
struct frames_frame {
    uint32_t page;          /* from 1 */
    uint32_t database_size; /* in pages, when the frame ends a commit; else 0 */
    const uint8_t *bytes;   /* of the page */
};

/* Goes to the beginning of the log: 1; 0 when it has no (whole) header; or a negative errno. */
int frames_begin(struct frames *frames, int fd);
/*
 * Goes to a place that was left earlier: 1; 0 when this log has not that place, which leaves `frames` at its
 * beginning; or an error. frames_begin comes first.
 */
int frames_go_to(struct frames *frames, const struct frames_place *place);

/* The place behind that many frames, which are there. `frames` is at the beginning, and stays there. */
errint frames_take_place(const struct frames *frames, uint32_t frame, struct frames_place *out);

static inline size_t frames_size(const struct frames *frames)
{
    return FRAMES_FRAME_HEADER_SIZE + (size_t)frames->page_size;
}

/*
 * Reads up to `room` frames into `bytes` (frames_size each), and goes behind them: how many are whole, which
 * ends before the first that is not; or an error.
 */
ssize_t frames_read(struct frames *frames, uint8_t *bytes, size_t room);
/* The frame `index` of those. */
struct frames_frame frames_look(const struct frames *frames, const uint8_t *bytes, size_t index);
/* The place behind the frame `index` of those. */
struct frames_place frames_place_behind(const struct frames *frames, const uint8_t *bytes, size_t count,
                                        size_t index);

/* How many frames of the log are committed: what its recovery would find. Or an error. */
ssize_t frames_count_committed(int fd);

#endif
