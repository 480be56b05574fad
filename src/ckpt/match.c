/* SPDX-License-Identifier: Apache-2.0 */
/* Finding which ranges of older objects have the bytes of a new one. */
#include "ckpt/match.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/grow.h"

/* An older object that has something of the new one. */
struct match_source {
    uint64_t object;
    bool usable; /* its table was read, and is the one that the database knows */
    uint8_t root[META_ROOT_BYTES];
    struct sums sums;
    bool *taken; /* a chunk each: it is in a move */
};

/* The chunks of the new object by hash: open addressing, positions + 1. */
struct match_table {
    uint32_t *slots;
    size_t mask;
};

struct match_work {
    const struct match_request *request;
    struct match *match;
    struct match_table table;
    size_t move_capacity;
    size_t source_chunks; /* of all tables that were read */
    size_t lookups;
};

/* Tables of older objects are read up to so many chunks (32 bytes each) for one new object. */
enum { MATCH_CHUNKS_MAX = 1 << 20 };

/* After so many look-ups in a row there is a pause: those who wait for the database might never get it. */
enum { MATCH_LOOKUPS = 256, MATCH_PAUSE_NS = 100000 };

void match_release(struct match *match)
{
    for (size_t i = 0; i < match->source_count; i++) {
        sums_release(&match->sources[i].sums);
        free(match->sources[i].taken);
    }
    free(match->sources);
    free(match->moves);
    ids_release(&match->objects);
    *match = (struct match){0};
}

/* -- segments ---------------------------------------------------------------------------------------------
 */

static int match_compare_segments(const void *a, const void *b, void *context)
{
    const struct sums_segment *segments = context;
    const size_t i = *(const size_t *)a, j = *(const size_t *)b;
    const struct sums_segment *left = &segments[i], *right = &segments[j];
    if (left->hash.low != right->hash.low)
        return left->hash.low < right->hash.low ? -1 : 1;
    if (left->hash.high != right->hash.high)
        return left->hash.high < right->hash.high ? -1 : 1;
    if (left->length != right->length)
        return left->length < right->length ? -1 : 1;
    return (i > j) - (i < j);
}

/*
 * Which segments an earlier one of the object equals: true for each of them. One seed is enough to find the
 * others chunk by chunk, while so many tensors of zeros would meet so many rows each. The caller frees the
 * array. NULL: no memory.
 */
static bool *match_find_repeated(const struct sums *sums)
{
    cleanup_free size_t *order = calloc(sums->segment_count + 1, sizeof *order);
    bool *repeated = calloc(sums->segment_count + 1, sizeof *repeated);
    if (!order || !repeated) {
        free(repeated);
        return NULL;
    }
    for (size_t i = 0; i < sums->segment_count; i++)
        order[i] = i;
    qsort_r(order, sums->segment_count, sizeof *order, match_compare_segments, sums->segments);
    for (size_t i = 1; i < sums->segment_count; i++) {
        const struct sums_segment *before = &sums->segments[order[i - 1]],
                                  *segment = &sums->segments[order[i]];
        repeated[order[i]] = before->length == segment->length && hash_equal(before->hash, segment->hash);
    }
    return repeated;
}

/* -- sources ----------------------------------------------------------------------------------------------
 */

/* Reads the table of an older object. It stays unusable, without an error, when there is no good one. */
static errint match_load_source(struct match_work *work, struct match_source *source)
{
    const struct match_request *request = work->request;
    uint8_t root[META_ROOT_BYTES];
    if (work->source_chunks >= MATCH_CHUNKS_MAX)
        return 0;
    errint error = meta_object_root(request->meta, source->object, source->root);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = sums_read(request->store, source->object, &source->sums);
    if (error)
        return error == -ENOMEM ? error : 0;
    work->source_chunks += source->sums.chunk_count;
    hash_to_bytes(source->sums.root, root);
    if (memcmp(root, source->root, sizeof root) != 0 || source->sums.chunk_count == 0)
        return 0;
    source->taken = calloc(source->sums.chunk_count, sizeof *source->taken);
    if (!source->taken)
        return -ENOMEM;
    source->usable = true;
    return 0;
}

static errint match_get_source(struct match_work *work, uint64_t object, struct match_source **out)
{
    struct match *match = work->match;
    for (size_t i = match->source_count; i-- > 0;) {
        if (match->sources[i].object == object) {
            *out = &match->sources[i];
            return 0;
        }
    }
    struct match_source *grown =
        reallocarray(match->sources, match->source_count + 1, sizeof *match->sources);
    if (!grown)
        return -ENOMEM;
    match->sources = grown;
    *out = &grown[match->source_count++];
    **out = (struct match_source){.object = object};
    return match_load_source(work, *out);
}

/* -- runs of equal chunks ---------------------------------------------------------------------------------
 */

static bool match_is_equal(const struct sums_chunk *a, const struct sums_chunk *b)
{
    return a->length == b->length && hash_equal(a->hash, b->hash);
}

static errint match_add_move(struct match_work *work, const struct match_source *source, size_t first,
                             size_t last, int64_t to_offset)
{
    struct match *match = work->match;
    if (!grow_reserve(match->moves, work->move_capacity, match->move_count + 1))
        return -ENOMEM;
    const struct sums_chunk *from = &source->sums.chunks[first], *to = &source->sums.chunks[last];
    match->moves[match->move_count++] = (struct meta_move){
        .object = source->object,
        .offset = from->offset,
        .length = to->offset + to->length - from->offset,
        .to_offset = to_offset,
    };
    return 0;
}

/* Grows the pair of equal chunks (old, new) in both directions, and makes it a move when it is long enough.
 */
static errint match_grow(struct match_work *work, struct match_source *source, size_t old, size_t new)
{
    const struct sums *theirs = &source->sums, *ours = work->request->sums;
    size_t first = old, last = old, to = new, to_last = new;
    while (first > 0 && to > 0 && !source->taken[first - 1] &&
           match_is_equal(&theirs->chunks[first - 1], &ours->chunks[to - 1])) {
        first--;
        to--;
    }
    while (last + 1 < theirs->chunk_count && to_last + 1 < ours->chunk_count && !source->taken[last + 1] &&
           match_is_equal(&theirs->chunks[last + 1], &ours->chunks[to_last + 1])) {
        last++;
        to_last++;
    }
    int64_t length = theirs->chunks[last].offset + theirs->chunks[last].length - theirs->chunks[first].offset;
    if (length < MATCH_LENGTH_MIN)
        return 0;
    memset(&source->taken[first], 1, last - first + 1);
    return match_add_move(work, source, first, last, ours->chunks[to].offset);
}

/* The range of an older object that the index gives for a segment of ours whose first chunk is `new`. */
static errint match_seed(struct match_work *work, const struct meta_range *range, size_t new)
{
    struct match_source *source;
    errint error = match_get_source(work, range->object, &source);
    if (error || !source->usable)
        return error;
    size_t old = sums_chunk_at(&source->sums, range->offset);
    if (old == source->sums.chunk_count || source->sums.chunks[old].offset != range->offset ||
        source->taken[old] || !match_is_equal(&source->sums.chunks[old], &work->request->sums->chunks[new]))
        return 0;
    return match_grow(work, source, old, new);
}

static errint match_segment(struct match_work *work, const struct meta_segment *segment, size_t first_chunk)
{
    const struct match_request *request = work->request;
    cleanup_free struct meta_range *ranges = NULL;
    size_t count;
    if (segment->length < MATCH_LENGTH_MIN)
        return 0;
    if (++work->lookups % MATCH_LOOKUPS == 0)
        nanosleep(&(struct timespec){.tv_nsec = MATCH_PAUSE_NS}, NULL);
    uint32_t whose = request->anyone ? META_ANYONE : request->uid;
    errint error = meta_find_segment(request->meta, segment, whose, request->object, &ranges, &count);
    for (size_t i = 0; !error && i < count; i++)
        error = match_seed(work, &ranges[i], first_chunk);
    return error;
}

/* The whole object first: what equals it in one piece is one extent. */
static errint match_segments(struct match_work *work)
{
    const struct sums *sums = work->request->sums;
    const struct meta_segment whole = {0, sums->size, sums->root.low, sums->root.high};
    cleanup_free bool *repeated = match_find_repeated(sums);
    errint error = repeated ? match_segment(work, &whole, 0) : -ENOMEM;
    for (size_t i = 0; !error && i < sums->segment_count; i++) {
        const struct sums_segment *segment = &sums->segments[i];
        if (repeated[i])
            continue;
        const struct meta_segment wanted = {segment->offset, segment->length, segment->hash.low,
                                            segment->hash.high};
        error = match_segment(work, &wanted, segment->first_chunk);
    }
    return error;
}

/* -- chunk by chunk ---------------------------------------------------------------------------------------
 */

static errint match_fill_table(struct match_work *work)
{
    const struct sums *sums = work->request->sums;
    size_t size = 16;
    while (size < sums->chunk_count * 2)
        size *= 2;
    if (sums->chunk_count >= UINT32_MAX)
        return -EFBIG;
    work->table.slots = calloc(size, sizeof *work->table.slots);
    if (!work->table.slots)
        return -ENOMEM;
    work->table.mask = size - 1;
    for (size_t i = 0; i < sums->chunk_count; i++) {
        size_t slot = sums->chunks[i].hash.low & work->table.mask;
        while (work->table.slots[slot] &&
               !match_is_equal(&sums->chunks[work->table.slots[slot] - 1], &sums->chunks[i]))
            slot = (slot + 1) & work->table.mask;
        if (!work->table.slots[slot])
            work->table.slots[slot] = (uint32_t)i + 1;
    }
    return 0;
}

/* A chunk of ours that equals this one; chunk_count when there is none. */
static size_t match_find_chunk(const struct match_work *work, const struct sums_chunk *chunk)
{
    const struct sums *sums = work->request->sums;
    size_t slot = chunk->hash.low & work->table.mask;
    for (; work->table.slots[slot]; slot = (slot + 1) & work->table.mask) {
        size_t index = work->table.slots[slot] - 1;
        if (match_is_equal(&sums->chunks[index], chunk))
            return index;
    }
    return sums->chunk_count;
}

static errint match_chunks(struct match_work *work, struct match_source *source)
{
    errint error = 0;
    for (size_t i = 0; !error && source->usable && i < source->sums.chunk_count; i++) {
        const struct sums_chunk *chunk = &source->sums.chunks[i];
        if (source->taken[i] || chunk->length < MATCH_LENGTH_MIN)
            continue;
        size_t found = match_find_chunk(work, chunk);
        if (found < work->request->sums->chunk_count)
            error = match_grow(work, source, i, found);
    }
    return error;
}

/* The objects of the same file in the checkpoint before, which may differ in each segment and not in each
 * chunk. */
static errint match_add_predecessor(struct match_work *work)
{
    const struct match_request *request = work->request;
    uint64_t before;
    errint error = meta_find_predecessor(request->meta, request->ino, request->uid, &before);
    /* What the owner's files share must not depend on whether somebody else has such a file too. */
    if (!error && !before && request->anyone)
        error = meta_find_predecessor(request->meta, request->ino, META_ANYONE, &before);
    if (error || !before)
        return error;
    cleanup_free struct meta_extent *extents = NULL;
    size_t count;
    error = meta_extents(request->meta, before, &extents, &count);
    if (error)
        return error == -ENOENT ? 0 : error;
    for (size_t i = 0; !error && i < count; i++) {
        struct match_source *source;
        bool again = i > 0 && extents[i].object == extents[i - 1].object;
        if (!again && extents[i].object != request->object)
            error = match_get_source(work, extents[i].object, &source);
    }
    return error;
}

/* -- the result -------------------------------------------------------------------------------------------
 */

static int match_compare(const void *a, const void *b)
{
    const struct meta_move *left = a, *right = b;
    if (left->object != right->object)
        return left->object < right->object ? -1 : 1;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

static const struct match_source *match_find_source(const struct match *match, uint64_t object)
{
    size_t i = 0;
    while (match->sources[i].object != object)
        i++;
    return &match->sources[i];
}

bool match_pays(int64_t size, int64_t bytes)
{
    int64_t least = size / MATCH_PART_MIN;
    return bytes >= (least < MATCH_BYTES_ENOUGH ? least : MATCH_BYTES_ENOUGH);
}

static errint match_finish(struct match *match)
{
    size_t kept = 0, next;
    if (match->move_count)
        qsort(match->moves, match->move_count, sizeof *match->moves, match_compare);
    for (size_t first = 0; first < match->move_count; first = next) {
        const struct match_source *source = match_find_source(match, match->moves[first].object);
        int64_t bytes = 0;
        for (next = first; next < match->move_count && match->moves[next].object == source->object; next++)
            bytes += match->moves[next].length;
        if (!match_pays(source->sums.size, bytes))
            continue;
        for (size_t i = first; i < next; i++) {
            match->moves[kept] = match->moves[i];
            match->moves[kept++].root = source->root;
        }
        errint error = ids_append(&match->objects, source->object);
        if (error)
            return error;
    }
    match->move_count = kept;
    return 0;
}

errint match_find(const struct match_request *request, struct match *out)
{
    *out = (struct match){0};
    struct match_work work = {.request = request, .match = out};
    errint error = request->sums->chunk_count ? match_segments(&work) : 0;
    if (!error)
        error = match_add_predecessor(&work);
    if (!error && out->source_count)
        error = match_fill_table(&work);
    for (size_t i = 0; !error && i < out->source_count; i++)
        error = match_chunks(&work, &out->sources[i]);
    free(work.table.slots);
    return error ? error : match_finish(out);
}

struct meta_segment *match_rows(const struct sums *sums, size_t *count)
{
    cleanup_free bool *repeated = match_find_repeated(sums);
    struct meta_segment *rows = repeated ? calloc(sums->segment_count + 1, sizeof *rows) : NULL;
    *count = 0;
    if (!rows)
        return NULL;
    if (sums->size >= MATCH_LENGTH_MIN)
        rows[(*count)++] = (struct meta_segment){0, sums->size, sums->root.low, sums->root.high};
    for (size_t i = 0; i < sums->segment_count; i++) {
        const struct sums_segment *segment = &sums->segments[i];
        if (!repeated[i] && segment->length >= MATCH_LENGTH_MIN && segment->length < sums->size)
            rows[(*count)++] = (struct meta_segment){segment->offset, segment->length, segment->hash.low,
                                                     segment->hash.high};
    }
    return rows;
}
