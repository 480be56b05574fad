/* SPDX-License-Identifier: Apache-2.0 */
/* The last lines, and places in them. */
#include "fs/event_ring.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENT_RING_LOST_MAX = 160 };

static const struct event_line *event_ring_line(const struct event_ring *ring, size_t index)
{
    return &ring->at[(ring->first + index) % EVENT_RING_LINES];
}

void event_ring_add(struct event_ring *ring, const struct event_line *line)
{
    struct event_line *slot = &ring->at[(ring->first + ring->count) % EVENT_RING_LINES];
    if (ring->count == EVENT_RING_LINES) {
        free(slot->text);
        ring->first = (ring->first + 1) % EVENT_RING_LINES;
    } else {
        ring->count++;
    }
    *slot = *line;
}

void event_ring_release(struct event_ring *ring)
{
    for (size_t i = 0; i < ring->count; i++)
        free(event_ring_line(ring, i)->text);
    ring->count = 0;
}

uint64_t event_ring_oldest(const struct event_ring *ring)
{
    return ring->count > 0 ? event_ring_line(ring, 0)->sequence : 0;
}

uint64_t event_ring_newest(const struct event_ring *ring)
{
    return ring->count > 0 ? event_ring_line(ring, ring->count - 1)->sequence : 0;
}

/* The first line with this number or a greater one; NULL: none. Numbers grow, so it is found by halving. */
static const struct event_line *event_ring_find(const struct event_ring *ring, uint64_t sequence)
{
    size_t low = 0, high = ring->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (event_ring_line(ring, middle)->sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ring->count ? event_ring_line(ring, low) : NULL;
}

static bool event_ring_shows(const struct event_line *line, const struct event_viewer *viewer)
{
    return viewer->sees_all || (line->uid != UINT32_MAX && line->uid == viewer->uid);
}

static void event_ring_print_lost(const struct event_place *place, char out[EVENT_RING_LOST_MAX])
{
    snprintf(out, EVENT_RING_LOST_MAX,
             "{\"sequence\":%" PRIu64 ",\"event\":\"lost\",\"count\":%" PRIu32
             ",\"reason\":\"the reader was too slow\"}\n",
             place->sequence + place->lost - 1, place->lost);
}

/* The text that the place stands at: `lost`, where it is made there, or a line's own. NULL: nothing. */
static const char *event_ring_text(const struct event_ring *ring, struct event_place *place,
                                   const struct event_viewer *viewer, char lost[EVENT_RING_LOST_MAX])
{
    for (;;) {
        const struct event_line *line = event_ring_find(ring, place->sequence);
        if (!place->lost && line && line->sequence > place->sequence) {
            uint64_t count = line->sequence - place->sequence;
            *place = (struct event_place){.sequence = place->sequence,
                                          .lost = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX};
        }
        if (place->lost) {
            event_ring_print_lost(place, lost);
            return lost;
        }
        if (!line || event_ring_shows(line, viewer))
            return line ? line->text : NULL;
        *place = (struct event_place){.sequence = line->sequence + 1};
    }
}

bool event_ring_has(const struct event_ring *ring, struct event_place *place,
                    const struct event_viewer *viewer)
{
    char lost[EVENT_RING_LOST_MAX];
    return event_ring_text(ring, place, viewer, lost) != NULL;
}

size_t event_ring_read(const struct event_ring *ring, struct event_place *place,
                       const struct event_viewer *viewer, char *out, size_t room)
{
    char lost[EVENT_RING_LOST_MAX];
    const char *text;
    size_t done = 0;
    while (done < room && (text = event_ring_text(ring, place, viewer, lost)) != NULL) {
        size_t length = strlen(text);
        size_t from = place->offset < length ? place->offset : length;
        size_t rest = length - from, fits = rest < room - done ? rest : room - done;
        if (fits < rest && done > 0)
            break;
        memcpy(out + done, text + from, fits);
        done += fits;
        if (fits < rest)
            place->offset = (uint32_t)(from + fits);
        else
            *place = (struct event_place){.sequence = place->sequence + (place->lost ? place->lost : 1)};
    }
    return done;
}
