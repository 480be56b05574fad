/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what was committed out of SQLite's log. */
#include "meta/db_sqlite_frames.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/transfer.h"

enum {
    FRAMES_MAGIC = 0x377f0682, /* the last bit: the checksum takes big-endian words */
    FRAMES_VERSION = 3007000,
    FRAMES_PAGE_MIN = 512,
    FRAMES_SUMMED_HEADER = 8, /* bytes of a frame's header that the checksum covers */
    FRAMES_COUNT_AT_ONCE = 1024,
};

static uint32_t frames_number(const uint8_t *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return be32toh(number);
}

/* `length` is a multiple of 8. */
static void frames_add_to_sum(bool big_endian, const uint8_t *bytes, size_t length, uint32_t sum[2])
{
    uint32_t first = sum[0], second = sum[1];
    for (size_t at = 0; at < length; at += 8) {
        uint32_t words[2];
        memcpy(words, bytes + at, sizeof words);
        first += (big_endian ? be32toh(words[0]) : le32toh(words[0])) + second;
        second += (big_endian ? be32toh(words[1]) : le32toh(words[1])) + first;
    }
    sum[0] = first;
    sum[1] = second;
}

int frames_begin(struct frames *frames, int fd)
{
    uint8_t header[FRAMES_HEADER_SIZE];
    *frames = (struct frames){.fd = fd};
    ssize_t got = transfer_read_some(fd, header, sizeof header, 0);
    if (got < (ssize_t)sizeof header)
        return got < 0 ? (int)got : 0;
    uint32_t magic = frames_number(header), page_size = frames_number(header + 8), sum[2] = {0, 0};
    frames->big_endian = magic & 1;
    frames_add_to_sum(frames->big_endian, header, sizeof header - 8, sum);
    if ((magic & ~1U) != FRAMES_MAGIC || frames_number(header + 4) != FRAMES_VERSION ||
        sum[0] != frames_number(header + 24) || sum[1] != frames_number(header + 28) ||
        page_size < FRAMES_PAGE_MIN || page_size > FRAMES_PAGE_MAX || (page_size & (page_size - 1)) != 0)
        return 0;
    frames->page_size = page_size;
    frames->place = (struct frames_place){.salt = {frames_number(header + 16), frames_number(header + 20)},
                                          .sum = {sum[0], sum[1]}};
    return 1;
}

static int64_t frames_offset(const struct frames *frames, uint32_t frame)
{
    return FRAMES_HEADER_SIZE + (int64_t)frame * (int64_t)frames_size(frames);
}

int frames_go_to(struct frames *frames, const struct frames_place *place)
{
    uint8_t header[FRAMES_FRAME_HEADER_SIZE];
    if (memcmp(place->salt, frames->place.salt, sizeof place->salt) != 0)
        return 0;
    if (place->frame == 0)
        return memcmp(place, &frames->place, sizeof *place) == 0;
    ssize_t got =
        transfer_read_some(frames->fd, header, sizeof header, frames_offset(frames, place->frame - 1));
    if (got < (ssize_t)sizeof header)
        return got < 0 ? (int)got : 0;
    if (frames_number(header + 8) != place->salt[0] || frames_number(header + 12) != place->salt[1] ||
        frames_number(header + 16) != place->sum[0] || frames_number(header + 20) != place->sum[1])
        return 0;
    frames->place = *place;
    return 1;
}

errint frames_take_place(const struct frames *frames, uint32_t frame, struct frames_place *out)
{
    uint8_t header[FRAMES_FRAME_HEADER_SIZE];
    *out = frames->place;
    if (frame == 0)
        return 0;
    ssize_t got = transfer_read_some(frames->fd, header, sizeof header, frames_offset(frames, frame - 1));
    if (got < (ssize_t)sizeof header)
        return got < 0 ? (errint)got : -EIO;
    out->frame = frame;
    out->sum[0] = frames_number(header + 16);
    out->sum[1] = frames_number(header + 20);
    return 0;
}

/* Whether the frame continues the log. The place goes behind it. */
static bool frames_check(struct frames *frames, const uint8_t *frame)
{
    struct frames_place *place = &frames->place;
    uint32_t sum[2] = {place->sum[0], place->sum[1]};
    if (frames_number(frame + 8) != place->salt[0] || frames_number(frame + 12) != place->salt[1] ||
        frames_number(frame) == 0 || place->frame == UINT32_MAX)
        return false;
    frames_add_to_sum(frames->big_endian, frame, FRAMES_SUMMED_HEADER, sum);
    frames_add_to_sum(frames->big_endian, frame + FRAMES_FRAME_HEADER_SIZE, frames->page_size, sum);
    if (frames_number(frame + 16) != sum[0] || frames_number(frame + 20) != sum[1])
        return false;
    memcpy(place->sum, sum, sizeof sum);
    place->frame++;
    return true;
}

ssize_t frames_read(struct frames *frames, uint8_t *bytes, size_t room)
{
    ssize_t got = transfer_read_some(frames->fd, bytes, room * frames_size(frames),
                                     frames_offset(frames, frames->place.frame));
    if (got < 0)
        return got;
    size_t count = 0;
    while ((count + 1) * frames_size(frames) <= (size_t)got &&
           frames_check(frames, bytes + count * frames_size(frames)))
        count++;
    return (ssize_t)count;
}

struct frames_frame frames_look(const struct frames *frames, const uint8_t *bytes, size_t index)
{
    const uint8_t *frame = bytes + index * frames_size(frames);
    return (struct frames_frame){.page = frames_number(frame),
                                 .database_size = frames_number(frame + 4),
                                 .bytes = frame + FRAMES_FRAME_HEADER_SIZE};
}

struct frames_place frames_place_behind(const struct frames *frames, const uint8_t *bytes, size_t count,
                                        size_t index)
{
    const uint8_t *frame = bytes + index * frames_size(frames);
    struct frames_place place = frames->place;
    place.frame -= (uint32_t)(count - 1 - index);
    place.sum[0] = frames_number(frame + 16);
    place.sum[1] = frames_number(frame + 20);
    return place;
}

ssize_t frames_count_committed(int fd)
{
    struct frames frames;
    int begun = frames_begin(&frames, fd);
    if (begun <= 0)
        return begun;
    cleanup_free uint8_t *bytes = malloc(FRAMES_COUNT_AT_ONCE * frames_size(&frames));
    if (!bytes)
        return -ENOMEM;
    uint32_t committed = 0;
    for (;;) {
        uint32_t before = frames.place.frame;
        ssize_t count = frames_read(&frames, bytes, FRAMES_COUNT_AT_ONCE);
        if (count <= 0)
            return count < 0 ? count : (ssize_t)committed;
        for (size_t i = 0; i < (size_t)count; i++) {
            if (frames_look(&frames, bytes, i).database_size > 0)
                committed = before + (uint32_t)i + 1;
        }
    }
}
