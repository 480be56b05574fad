/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last lines, by number, and reading on from a place in them. What was dropped before a reader came to it
 * is one line that says how many. One thread's at a time; the memory is bounded.
 */
#ifndef CKPTFS_FS_EVENT_RING_H
#define CKPTFS_FS_EVENT_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum { EVENT_RING_LINES = 1024 };

struct event_line {
    uint64_t sequence;
    uint32_t uid; /* who may see it besides those who see all */
    char *text;   /* ends with a newline */
    size_t length;
};

struct event_ring {
    struct event_line at[EVENT_RING_LINES]; /* the oldest at `first` */
    size_t first, count;
};

/* Where a reader is. */
struct event_place {
    uint64_t sequence; /* of the line that is next */
    uint32_t offset;   /* so many bytes of that were read already */
    uint32_t lost;     /* it is the line that tells of so many lost ones */
};

struct event_viewer {
    bool sees_all;
    uint32_t uid;
};

/* Takes the text over. Numbers must grow; what is left out of them counts as lost. */
void event_ring_add(struct event_ring *ring, const struct event_line *line);
void event_ring_release(struct event_ring *ring);

/* The numbers of the oldest line and of the newest; 0: there is none. */
uint64_t event_ring_oldest(const struct event_ring *ring);
uint64_t event_ring_newest(const struct event_ring *ring);

/* Whether there is something to be read from there. `place` may move on, over what the reader may not see. */
bool event_ring_has(const struct event_ring *ring, struct event_place *place,
                    const struct event_viewer *viewer);
/*
 * Copies what comes from the place on, and moves it: whole lines, as many as fit; but of a first one that
 * does not fit a part, which the next read goes on with. 0: nothing has come.
 */
size_t event_ring_read(const struct event_ring *ring, struct event_place *place,
                       const struct event_viewer *viewer, char *out, size_t room);

#endif
