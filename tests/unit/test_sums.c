/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk hashes: where objects are cut, and what is equal. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "check.h"
#include "store/chunker.h"
#include "store/object.h"
#include "test_sums_frame.h"

/* -- the hash -------------------------------------------------------------------------------------------- */

static void test_hash(void)
{
    static const uint8_t canonical[HASH_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    struct hash128 hash = hash_from_bytes(canonical);
    CHECK(hash.high == UINT64_C(0x0102030405060708) && hash.low == UINT64_C(0x090a0b0c0d0e0f10));
    uint8_t again[HASH_BYTES];
    hash_to_bytes(hash, again);
    CHECK(memcmp(again, canonical, HASH_BYTES) == 0);

    static struct store one, other;
    test_fill(one.secret, STORE_SECRET_SIZE, 0);
    other = one;
    other.secret[STORE_SECRET_SIZE / 2] ^= 1;
    static uint8_t bytes[SUMS_CHUNK];
    hash = hash_of(&one, bytes, sizeof bytes);
    CHECK(hash_equal(hash, hash_of(&one, bytes, sizeof bytes)));
    CHECK(!hash_equal(hash, hash_of(&other, bytes, sizeof bytes)));
    CHECK(!hash_equal(hash, hash_of(&one, bytes, sizeof bytes - 1)));
    bytes[sizeof bytes - 1] = 1;
    CHECK(!hash_equal(hash, hash_of(&one, bytes, sizeof bytes)));
}

/* -- cuts of a known format ------------------------------------------------------------------------------ */

static void test_sizes(void)
{
    static const size_t sizes[] = {
        0, 1, 4095, 4096, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 12345};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(10 * MIB, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t size = sizes[i];
        const struct sums_part part = {.length = (int64_t)size};
        cleanup_sums struct sums sums = test_compute_bytes(bytes, size, &part, size ? 1 : 0);
        CHECK_EQUAL((size + SUMS_CHUNK - 1) / SUMS_CHUNK, sums.chunk_count);
        CHECK_EQUAL(size ? 1 : 0, sums.segment_count);
        test_check_shape(&sums);
        for (size_t j = 0; j < sums.chunk_count; j++) {
            const struct sums_chunk *chunk = &sums.chunks[j];
            CHECK(hash_equal(chunk->hash, hash_of(test_store, bytes + chunk->offset, chunk->length)));
            CHECK(j + 1 == sums.chunk_count || chunk->length == SUMS_CHUNK);
        }
        cleanup_sums struct sums opaque = test_compute_opaque(bytes, size);
        test_check_shape(&opaque);
    }
    test_end();
}

static void test_parts(void)
{
    static const struct sums_part parts[] = {
        {.length = 1000},
        {.length = 3 * SUMS_CHUNK},
        {.length = 1},
        {.length = SUMS_CHUNK + 5},
        {.length = 3 * MIB, .opaque = true},
        {.length = 2 * MIB, .opaque = true},
        {.length = 7},
    };
    test_begin();
    size_t count = sizeof parts / sizeof *parts, size = 0;
    for (size_t i = 0; i < count; i++)
        size += (size_t)parts[i].length;
    cleanup_free uint8_t *bytes = test_bytes(size, 2);
    cleanup_sums struct sums sums = test_compute_bytes(bytes, size, parts, count);
    test_check_shape(&sums);
    CHECK_EQUAL(1, sums.segments[0].chunk_count);
    CHECK_EQUAL(3, sums.segments[1].chunk_count);
    CHECK_EQUAL(1, sums.segments[2].chunk_count);
    CHECK_EQUAL(2, sums.segments[3].chunk_count);
    CHECK_EQUAL(5, sums.chunks[6].length);
    /* Every part starts a segment, whatever its neighbours are. */
    int64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sums_chunk *chunk = &sums.chunks[sums_chunk_at(&sums, offset)];
        CHECK(chunk->offset == offset && chunk->starts_segment);
        offset += parts[i].length;
    }
    test_end();
}

static void test_equal_segments(void)
{
    static const struct sums_part one[] = {{.length = 999}, {.length = MIB + 77}, {.length = 5}};
    static const struct sums_part other[] = {{.length = 123456}, {.length = 3}, {.length = MIB + 77}};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(2 * MIB, 3), *moved = test_bytes(2 * MIB, 4);
    memcpy(moved + 123459, bytes + 999, MIB + 77);
    cleanup_sums struct sums a = test_compute_bytes(bytes, 999 + MIB + 77 + 5, one, 3);
    cleanup_sums struct sums b = test_compute_bytes(moved, 123459 + MIB + 77, other, 3);
    CHECK(hash_equal(a.segments[1].hash, b.segments[2].hash));
    CHECK(!hash_equal(a.segments[0].hash, b.segments[0].hash));
    CHECK(!hash_equal(a.root, b.root));
    moved[123459 + MIB] ^= 1;
    cleanup_sums struct sums c = test_compute_bytes(moved, 123459 + MIB + 77, other, 3);
    CHECK(!hash_equal(b.segments[2].hash, c.segments[2].hash));
    CHECK(hash_equal(b.segments[1].hash, c.segments[1].hash));
    CHECK(!hash_equal(b.root, c.root));

    struct store *stored = test_store, stranger = *test_store;
    stranger.secret[0] ^= 1;
    test_store = &stranger;
    cleanup_sums struct sums d = test_compute_bytes(moved, 123459 + MIB + 77, other, 3);
    test_store = stored;
    for (size_t i = 0; i < d.chunk_count; i++)
        CHECK(d.chunks[i].length == c.chunks[i].length && !hash_equal(d.chunks[i].hash, c.chunks[i].hash));
    CHECK(!hash_equal(c.root, d.root) && !hash_equal(c.segments[0].hash, d.segments[0].hash));
    test_end();
}

/* -- cuts by content ------------------------------------------------------------------------------------- */

/* These numbers may never change: stores that exist were cut by them. */
static void test_cuts_stay(void)
{
    static const struct chunker_cut expected[] = {
        {273026, false}, {259636, false}, {292085, false}, {365672, false}, {101350, false}, {377610, false},
        {136931, false}, {303817, false}, {352042, false}, {399008, false}, {278822, false}, {78571, false},
        {226849, false}, {235832, false}, {268870, false}, {273324, false}, {230405, false}, {326311, false},
        {266754, false}, {236441, false}, {273242, false}, {223629, false}, {267010, false}, {244130, false},
        {322370, false}, {274697, false}, {260698, false}, {228743, false}, {239225, false}, {326888, false},
        {374586, false}, {305348, true},  {185813, false}, {273942, false}, {116098, false}, {267539, false},
        {373907, false}, {292491, false}, {280400, false}, {146454, true},
    };
    struct chunker chunker;
    chunker_init(&chunker);
    CHECK(chunker.gear[0] == UINT64_C(0x6aa30f4f4b3404a8) &&
          chunker.gear[255] == UINT64_C(0x986f3bec6cc62be2));
    cleanup_free uint8_t *bytes = test_bytes(16 * MIB, 5);
    size_t at = 0;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct chunker_cut cut = chunker_cut(&chunker, bytes + at, 16 * MIB - at);
        CHECK_EQUAL(expected[i].length, cut.length);
        CHECK_EQUAL(expected[i].ends_segment, cut.ends_segment);
        at += cut.length;
    }
}

static void test_cut_bounds(void)
{
    enum { SIZE = 256 * MIB };
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 6);
    cleanup_sums struct sums sums = test_compute_opaque(bytes, SIZE);
    test_check_shape(&sums);
    for (size_t i = 0; i + 1 < sums.chunk_count; i++)
        CHECK(sums.chunks[i].length >= SUMS_CHUNK_MIN);
    for (size_t i = 0; i < sums.segment_count; i++)
        CHECK(sums.segments[i].chunk_count <= SUMS_SEGMENT_CHUNKS_MAX);
    double chunk = (double)SIZE / (double)sums.chunk_count / KIB;
    double segment = (double)sums.chunk_count / (double)sums.segment_count;
    printf("# %zu chunks of %.0f KiB, %zu segments of %.1f chunks\n", sums.chunk_count, chunk,
           sums.segment_count, segment);
    CHECK(chunk > 230 && chunk < 280);
    CHECK(segment > 10 && segment < 22);

    /* Bytes that are all the same have no place to cut at: the longest chunks and segments. */
    struct chunker chunker;
    chunker_init(&chunker);
    for (int value = 0; value < 256; value++) {
        memset(bytes, value, SUMS_CHUNK_MAX + 1);
        struct chunker_cut cut = chunker_cut(&chunker, bytes, SUMS_CHUNK_MAX + 1);
        CHECK(cut.length == SUMS_CHUNK_MAX && !cut.ends_segment);
    }
    memset(bytes, 0, SIZE);
    cleanup_sums struct sums zeros = test_compute_opaque(bytes, SIZE);
    CHECK_EQUAL(SIZE / SUMS_CHUNK_MAX, zeros.chunk_count);
    CHECK_EQUAL(SIZE / SUMS_CHUNK_MAX / SUMS_SEGMENT_CHUNKS_MAX, zeros.segment_count);
    CHECK(hash_equal(zeros.segments[0].hash, zeros.segments[3].hash));
    test_end();
}

static bool test_has_chunk(const struct sums *sums, struct hash128 hash)
{
    for (size_t i = 0; i < sums->chunk_count; i++) {
        if (hash_equal(sums->chunks[i].hash, hash))
            return true;
    }
    return false;
}

static bool test_has_segment(const struct sums *sums, struct hash128 hash)
{
    for (size_t i = 0; i < sums->segment_count; i++) {
        if (hash_equal(sums->segments[i].hash, hash))
            return true;
    }
    return false;
}

/* How many chunks and segments of `one` the other has not. */
static void test_count_new(const struct sums *one, const struct sums *other, size_t *chunks, size_t *segments)
{
    *chunks = *segments = 0;
    for (size_t i = 0; i < one->chunk_count; i++)
        *chunks += !test_has_chunk(other, one->chunks[i].hash);
    for (size_t i = 0; i < one->segment_count; i++)
        *segments += !test_has_segment(other, one->segments[i].hash);
}

static void test_insertion(void)
{
    enum { SIZE = 64 * MIB };
    static const size_t places[] = {0, SIZE / 3, SIZE - 100};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 7), *longer = test_bytes(SIZE + 8, 0);
    cleanup_sums struct sums before = test_compute_opaque(bytes, SIZE);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memcpy(longer, bytes, places[i]);
        longer[places[i]] = 42;
        memcpy(longer + places[i] + 1, bytes + places[i], SIZE - places[i]);
        cleanup_sums struct sums after = test_compute_opaque(longer, SIZE + 1);
        size_t chunks, segments;
        test_count_new(&after, &before, &chunks, &segments);
        printf("# a byte at %zu: %zu of %zu chunks and %zu of %zu segments are new\n", places[i], chunks,
               after.chunk_count, segments, after.segment_count);
        CHECK(chunks >= 1 && chunks <= 3);
        CHECK(segments >= 1 && segments <= 2);
    }
    test_end();
}

/* -- what the caller hears ------------------------------------------------------------------------------- */

struct test_listener {
    uint8_t *bytes;
    size_t length, part, asked, stop_after;
    int64_t part_lengths[8];
};

static void test_hear(void *context, size_t part, const void *data, size_t length)
{
    struct test_listener *listener = context;
    CHECK(part >= listener->part && part < 8);
    listener->part = part;
    listener->part_lengths[part & 7] += (int64_t)length;
    memcpy(listener->bytes + listener->length, data, length);
    listener->length += length;
}

static bool test_stop(void *context)
{
    struct test_listener *listener = context;
    return listener->asked++ == listener->stop_after;
}

static void test_callbacks(void)
{
    enum { SIZE = 11 * MIB + 3 };
    static const struct sums_part parts[] = {
        {.length = 3}, {.length = 5 * MIB, .opaque = true}, {.length = 6 * MIB}};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 8), *heard = test_bytes(SIZE, 9);
    cleanup_fd int fd = test_file(bytes, SIZE);
    struct test_listener listener = {.bytes = heard, .stop_after = SIZE_MAX};
    struct sums_request request = {.store = test_store,
                                   .fd = fd,
                                   .size = SIZE,
                                   .parts = parts,
                                   .part_count = 3,
                                   .bytes = test_hear,
                                   .stop = test_stop,
                                   .context = &listener};
    cleanup_sums struct sums sums = {0};
    CHECK_EQUAL(0, sums_compute(&request, &sums));
    CHECK_EQUAL(SIZE, listener.length);
    CHECK(memcmp(heard, bytes, SIZE) == 0);
    for (size_t i = 0; i < 3; i++)
        CHECK_EQUAL(parts[i].length, listener.part_lengths[i]);
    CHECK_EQUAL(sums.chunk_count, listener.asked);

    struct sums untouched = {.size = 77};
    for (size_t after = 0; after < sums.chunk_count; after += 5) {
        listener = (struct test_listener){.bytes = heard, .stop_after = after};
        CHECK_EQUAL(-ECANCELED, sums_compute(&request, &untouched));
        CHECK_EQUAL(after + 1, listener.asked);
    }
    CHECK_EQUAL(77, untouched.size);
    test_end();
}

static void test_bad_requests(void)
{
    enum { SIZE = 5 * MIB };
    static const struct {
        int64_t lengths[3];
        size_t count;
    } bad[] = {
        {{SIZE - 1}, 1},     {{SIZE + 1}, 1},
        {{SIZE, 1}, 2},      {{SIZE, 0}, 2},
        {{-1, SIZE + 1}, 2}, {{INT64_MAX, INT64_MAX, SIZE + 2}, 3},
        {{0, SIZE}, 2},      {{0}, 0},
    };
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 10);
    cleanup_fd int fd = test_file(bytes, SIZE);
    struct sums sums = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sums_part parts[3] = {0};
        for (size_t j = 0; j < 3; j++)
            parts[j].length = bad[i].lengths[j];
        struct sums_request request = {
            .store = test_store, .fd = fd, .size = SIZE, .parts = parts, .part_count = bad[i].count};
        CHECK_EQUAL(-EINVAL, sums_compute(&request, &sums));
    }
    struct sums_request request = {.store = test_store, .fd = fd, .size = -1};
    CHECK_EQUAL(-EINVAL, sums_compute(&request, &sums));
    static const int64_t too_long[] = {SIZE + 1, SIZE + 4096, 3 * SIZE, INT64_MAX};
    for (size_t i = 0; i < sizeof too_long / sizeof *too_long; i++) {
        request.size = too_long[i];
        CHECK_EQUAL(-EIO, sums_compute(&request, &sums));
    }
    request.size = SIZE;
    request.fd = -1;
    CHECK_EQUAL(-EBADF, sums_compute(&request, &sums));

    /* An object that has grown since: as if it had not. */
    cleanup_sums struct sums shorter = test_compute(fd, SIZE - 4097, NULL, 0);
    cleanup_sums struct sums same = test_compute_opaque(bytes, SIZE - 4097);
    CHECK(test_equal(&shorter, &same));
    test_end();
}

static void test_direct(void)
{
    enum { SIZE = 9 * MIB + 4097 };
    static const struct sums_part parts[] = {
        {.length = 5}, {.length = 4 * MIB + 1, .opaque = true}, {.length = 5 * MIB + 4091}};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 11);
    cleanup_fd int fd = object_create(test_store, 1);
    CHECK(pwrite(fd, bytes, SIZE, 0) == SIZE);
    cleanup_sums struct sums sums = test_compute_bytes(bytes, SIZE, parts, 3);
    cleanup_fd int direct = object_open(test_store, 1, O_RDONLY | O_DIRECT);
    if (direct < 0) {
        check_skip("the disk of TMPDIR has no O_DIRECT");
    } else {
        cleanup_sums struct sums same = test_compute(direct, SIZE, parts, 3);
        CHECK(test_equal(&sums, &same));
        for (size_t i = 0; i < sums.chunk_count; i++)
            CHECK_EQUAL(1, sums_check_chunk(test_store, direct, &sums.chunks[i]));
    }
    test_end();
}

static void test_check_chunks(void)
{
    enum { SIZE = 3 * MIB + 10 };
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 12);
    cleanup_fd int fd = test_file(bytes, SIZE);
    cleanup_sums struct sums sums = test_compute(fd, SIZE, NULL, 0);
    CHECK(sums.chunk_count > 3);
    for (size_t i = 0; i < sums.chunk_count; i++)
        CHECK_EQUAL(1, sums_check_chunk(test_store, fd, &sums.chunks[i]));
    int64_t place = sums.chunks[2].offset + sums.chunks[2].length - 1;
    CHECK(pwrite(fd, "!", 1, place) == 1 || bytes[place] == '!');
    for (size_t i = 0; i < sums.chunk_count; i++)
        CHECK_EQUAL(i != 2, sums_check_chunk(test_store, fd, &sums.chunks[i]));
    CHECK(ftruncate(fd, SIZE - 1) == 0);
    CHECK_EQUAL(-EIO, sums_check_chunk(test_store, fd, &sums.chunks[sums.chunk_count - 1]));
    CHECK_EQUAL(-EBADF, sums_check_chunk(test_store, -1, &sums.chunks[0]));
    test_end();
}

static int test_compare_to(int fd, const struct sums *sums, struct test_listener *listener)
{
    const struct sums_request request = {.store = test_store,
                                         .fd = fd,
                                         .size = sums->size,
                                         .stop = listener ? test_stop : NULL,
                                         .context = listener};
    return sums_compare(&request, sums);
}

/* `size` bytes in chunks of SUMS_CHUNK. */
static void test_compare_size(size_t size)
{
    const struct sums_part part = {.length = (int64_t)size};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(size, 13);
    cleanup_fd int fd = test_file(bytes, size);
    cleanup_sums struct sums sums = test_compute(fd, (int64_t)size, &part, size ? 1 : 0);
    CHECK_EQUAL(1, test_compare_to(fd, &sums, NULL));
    struct sums_request request = {.store = test_store, .fd = fd, .size = (int64_t)size + 1};
    CHECK_EQUAL(0, sums_compare(&request, &sums));
    /* One byte of any chunk, wherever it lies. */
    for (size_t i = 0; i < sums.chunk_count; i += 1 + sums.chunk_count / 20) {
        int64_t place = sums.chunks[i].offset + (int64_t)(i * 7919 % sums.chunks[i].length);
        uint8_t other = bytes[place] ^ 1;
        CHECK(pwrite(fd, &other, 1, place) == 1);
        CHECK_EQUAL(0, test_compare_to(fd, &sums, NULL));
        CHECK(pwrite(fd, &bytes[place], 1, place) == 1);
    }
    CHECK_EQUAL(1, test_compare_to(fd, &sums, NULL));
    if (size) {
        CHECK(ftruncate(fd, (off_t)size - 1) == 0);
        CHECK_EQUAL(-EIO, test_compare_to(fd, &sums, NULL));
        CHECK_EQUAL(-EBADF, test_compare_to(-1, &sums, NULL));
    }
    test_end();
}

static void test_compare(void)
{
    /* None, one, some, and so many chunks that threads share them. */
    static const size_t sizes[] = {0, 1, SUMS_CHUNK + 1, 9 * MIB, 100 * MIB + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        test_compare_size(sizes[i]);
}

static void test_compare_stops(void)
{
    enum { SIZE = 9 * MIB };
    const struct sums_part part = {.length = SIZE};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 14);
    cleanup_fd int fd = test_file(bytes, SIZE);
    cleanup_sums struct sums sums = test_compute(fd, SIZE, &part, 1);
    for (size_t after = 0; after < sums.chunk_count; after += 7) {
        struct test_listener listener = {.stop_after = after};
        CHECK_EQUAL(-ECANCELED, test_compare_to(fd, &sums, &listener));
        CHECK_EQUAL(after + 1, listener.asked);
    }
    /* What differs all over is told apart by the first look. */
    cleanup_free uint8_t *others = test_bytes(SIZE, 15);
    cleanup_fd int other = test_file(others, SIZE);
    struct test_listener listener = {.stop_after = SIZE_MAX};
    CHECK_EQUAL(0, test_compare_to(other, &sums, &listener));
    CHECK_EQUAL(1, listener.asked);
    test_end();
}

int main(void)
{
    check_run("the hash depends on every byte, the length and the secret", test_hash);
    check_run("objects of every size are cut and hashed", test_sizes);
    check_run("each part is a segment, or several when it is opaque", test_parts);
    check_run("equal segments have equal hashes wherever they are, in one store only", test_equal_segments);
    check_run("cuts by content stay where they always were", test_cuts_stay);
    check_run("cuts by content keep their bounds and averages", test_cut_bounds);
    check_run("an inserted byte changes its neighbourhood only", test_insertion);
    check_run("the caller sees each byte once and can stop", test_callbacks);
    check_run("requests that do not fit the object are refused", test_bad_requests);
    check_run("an object is read through O_DIRECT", test_direct);
    check_run("a chunk is checked against its hash", test_check_chunks);
    check_run("an object is compared with the table of another", test_compare);
    check_run("a comparison ends early", test_compare_stops);
    return check_done();
}
