/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks and segments by content. */
#include "store/chunker.h"

#include "store/sums.h"

/* A gear hash forgets a byte after 64 more. */
enum { CHUNKER_WINDOW = 64 };

/* The hash is below these where its 20 or 16 highest bits are zero. */
#define CHUNKER_BELOW_EARLY  (UINT64_C(1) << 44)
#define CHUNKER_BELOW_LATE   (UINT64_C(1) << 48)
#define CHUNKER_SEGMENT_MASK (UINT64_C(15) << 40)

static uint64_t chunker_splitmix64(uint64_t *state)
{
    uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

void chunker_init(struct chunker *chunker)
{
    uint64_t state = CHUNKER_SEED;
    for (size_t i = 0; i < 256; i++)
        chunker->gear[i] = chunker_splitmix64(&state);
}

/*
 * Rolls over bytes[from, to) until the hash is below `limit`: the position after that byte; to + 1 when it
 * never is. Eight steps a turn: this loop is what cutting costs.
 */
static size_t chunker_scan(const struct chunker *chunker, const uint8_t *bytes, size_t from, size_t to,
                           uint64_t limit, uint64_t *hash)
{
    uint64_t rolling = *hash;
    size_t at = from;
#define CHUNKER_STEP()                                                                                       \
    do {                                                                                                     \
        rolling = (rolling << 1) + chunker->gear[bytes[at++]];                                               \
        if (rolling < limit)                                                                                 \
            goto found;                                                                                      \
    } while (0)
    while (to - at >= 8) {
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
        CHUNKER_STEP();
    }
    while (at < to)
        CHUNKER_STEP();
#undef CHUNKER_STEP
    at = to + 1;
found:
    *hash = rolling;
    return at;
}

struct chunker_cut chunker_cut(const struct chunker *chunker, const uint8_t *bytes, size_t length)
{
    if (length <= SUMS_CHUNK_MIN)
        return (struct chunker_cut){.length = length};
    size_t end = length < SUMS_CHUNK_MAX ? length : SUMS_CHUNK_MAX;
    size_t normal = end < CHUNKER_NORMAL ? end : CHUNKER_NORMAL;
    uint64_t hash = 0;
    for (size_t at = SUMS_CHUNK_MIN - CHUNKER_WINDOW; at < SUMS_CHUNK_MIN; at++)
        hash = (hash << 1) + chunker->gear[bytes[at]];
    size_t cut = chunker_scan(chunker, bytes, SUMS_CHUNK_MIN, normal, CHUNKER_BELOW_EARLY, &hash);
    if (cut > normal)
        cut = chunker_scan(chunker, bytes, normal, end, CHUNKER_BELOW_LATE, &hash);
    /* Where there was no place to cut (zeros), segments have as many chunks as they may. */
    if (cut > end)
        return (struct chunker_cut){.length = end};
    return (struct chunker_cut){.length = cut, .ends_segment = (hash & CHUNKER_SEGMENT_MASK) == 0};
}
