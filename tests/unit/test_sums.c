/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk hashes: where objects are cut, what is equal, and the table beside an object. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"
#include "store/chunker.h"
#include "store/object.h"
#include "store/sums.h"
#include "store/sums_table.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

/* -- a store of one test --------------------------------------------------------------------------------- */

static char test_directory[256];
static struct store *test_store;

static void test_begin(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(test_directory, sizeof test_directory, "%s/ckptfs-test-sums.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(test_directory) || store_open(test_directory, -1, &test_store) != STORE_FINE) {
        printf("Bail out! no store to test with in %s\n", test_directory);
        exit(1);
    }
}

static void test_end(void)
{
    char command[320];
    store_close(test_store);
    snprintf(command, sizeof command, "rm -rf '%s'", test_directory);
    CHECK(system(command) == 0);
}

static const char *test_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/objects/00/%s", test_directory, name);
    return path;
}

/* -- bytes ----------------------------------------------------------------------------------------------- */

/* Bytes that never repeat (splitmix64), the same in every run. */
static void test_fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t value = seed += UINT64_C(0x9e3779b97f4a7c15);
        value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
        value ^= value >> 31;
        memcpy(bytes + at, &value, length - at < 8 ? length - at : 8);
    }
}

static uint8_t *test_bytes(size_t length, uint64_t seed)
{
    uint8_t *bytes = malloc(length + 1);
    if (!bytes) {
        printf("Bail out! no memory to test with\n");
        exit(1);
    }
    test_fill(bytes, length, seed);
    return bytes;
}

static int test_file(const void *bytes, size_t length)
{
    int fd = memfd_create("object", MFD_CLOEXEC);
    CHECK(fd >= 0);
    for (size_t done = 0; done < length;) {
        ssize_t wrote = write(fd, (const char *)bytes + done, length - done);
        CHECK(wrote > 0);
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    return fd;
}

static struct sums test_compute(int fd, int64_t size, const struct sums_part *parts, size_t count)
{
    struct sums_request request = {
        .store = test_store, .fd = fd, .size = size, .parts = parts, .part_count = count};
    struct sums sums = {0};
    CHECK_EQUAL(0, sums_compute(&request, &sums));
    return sums;
}

static struct sums test_compute_bytes(const void *bytes, size_t length, const struct sums_part *parts,
                                      size_t count)
{
    cleanup_fd int fd = test_file(bytes, length);
    return test_compute(fd, (int64_t)length, parts, count);
}

static struct sums test_compute_opaque(const void *bytes, size_t length)
{
    return test_compute_bytes(bytes, length, NULL, 0);
}

/* What holds for every result. */
static void test_check_shape(const struct sums *sums)
{
    int64_t offset = 0;
    size_t chunk = 0;
    for (size_t i = 0; i < sums->chunk_count; i++) {
        CHECK_EQUAL(offset, sums->chunks[i].offset);
        CHECK(sums->chunks[i].length > 0 && sums->chunks[i].length <= SUMS_CHUNK_MAX);
        CHECK_EQUAL(i, sums_chunk_at(sums, offset));
        offset += sums->chunks[i].length;
        CHECK_EQUAL(i, sums_chunk_at(sums, offset - 1));
    }
    CHECK_EQUAL(sums->size, offset);
    CHECK_EQUAL(sums->chunk_count, sums_chunk_at(sums, sums->size));
    CHECK_EQUAL(sums->chunk_count, sums_chunk_at(sums, -1));
    for (size_t i = 0; i < sums->segment_count; i++) {
        const struct sums_segment *segment = &sums->segments[i];
        CHECK_EQUAL(chunk, segment->first_chunk);
        CHECK(segment->chunk_count > 0 && sums->chunks[chunk].starts_segment);
        CHECK_EQUAL(sums->chunks[chunk].offset, segment->offset);
        int64_t length = 0;
        for (size_t j = 0; j < segment->chunk_count; j++, chunk++)
            length += sums->chunks[chunk].length;
        CHECK_EQUAL(segment->length, length);
    }
    CHECK_EQUAL(sums->chunk_count, chunk);
}

static bool test_equal(const struct sums *one, const struct sums *other)
{
    if (one->size != other->size || one->chunk_count != other->chunk_count ||
        one->segment_count != other->segment_count || !hash_equal(one->root, other->root))
        return false;
    for (size_t i = 0; i < one->chunk_count; i++) {
        const struct sums_chunk *a = &one->chunks[i], *b = &other->chunks[i];
        if (a->offset != b->offset || a->length != b->length || a->starts_segment != b->starts_segment ||
            !hash_equal(a->hash, b->hash))
            return false;
    }
    for (size_t i = 0; i < one->segment_count; i++) {
        const struct sums_segment *a = &one->segments[i], *b = &other->segments[i];
        if (a->offset != b->offset || a->length != b->length || a->first_chunk != b->first_chunk ||
            a->chunk_count != b->chunk_count || !hash_equal(a->hash, b->hash))
            return false;
    }
    return true;
}

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

/* -- the table ------------------------------------------------------------------------------------------- */

/* Object 1 with these bytes, and its sums. */
static struct sums test_make_object(const void *bytes, size_t length, const struct sums_part *parts,
                                    size_t count)
{
    cleanup_fd int fd = object_create(test_store, 1);
    CHECK(fd >= 0 && pwrite(fd, bytes, length, 0) == (ssize_t)length);
    return test_compute(fd, (int64_t)length, parts, count);
}

static void test_round_trip(void)
{
    static const size_t sizes[] = {0, 1, 5 * MIB};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(5 * MIB, 13);
    struct sums found = {0};
    CHECK_EQUAL(-ENOENT, sums_read(test_store, 1, &found));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cleanup_sums struct sums sums = test_make_object(bytes, sizes[i], NULL, 0);
        CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
        CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
        CHECK_EQUAL(0, sums_read(test_store, 1, &found));
        CHECK(test_equal(&sums, &found));
        test_check_shape(&found);
        sums_release(&found);
        struct stat status;
        CHECK(stat(test_path("0000000000000001.sum"), &status) == 0 && (status.st_mode & 07777) == 0600);
        CHECK_EQUAL(SUMS_TABLE_FIXED + SUMS_TABLE_ENTRY * sums.chunk_count, status.st_size);
        CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);

        /* It is a table of an object of this size, and of this store. */
        cleanup_fd int fd = object_open(test_store, 1, O_RDWR);
        CHECK(ftruncate(fd, (off_t)sizes[i] + 1) == 0);
        CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
        CHECK(ftruncate(fd, (off_t)sizes[i]) == 0);
        test_store->secret[7] ^= 1;
        CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
        test_store->secret[7] ^= 1;
        CHECK_EQUAL(0, sums_remove(test_store, 1));
        CHECK_EQUAL(0, sums_remove(test_store, 1));
        CHECK_EQUAL(-ENOENT, sums_read(test_store, 1, &found));
        CHECK_EQUAL(0, object_remove(test_store, 1));
    }
    test_end();
}

static void test_table_goes_with_object(void)
{
    test_begin();
    cleanup_sums struct sums sums = test_make_object("bytes", 5, NULL, 0);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    cleanup_fd int left = open(test_path("0000000000000001.sum.new"), O_WRONLY | O_CREAT, 0600);
    CHECK(left >= 0);
    cleanup_ids struct ids ids = {0};
    CHECK_EQUAL(0, object_list(test_store, &ids));
    CHECK(ids.count == 1 && ids.at[0] == 1);
    CHECK_EQUAL(0, object_remove(test_store, 1));
    CHECK(access(test_path("0000000000000001.sum"), F_OK) != 0);
    CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);

    /* A table that comes too late does not stay. */
    CHECK_EQUAL(-ENOENT, sums_write(test_store, 1, &sums));
    CHECK(access(test_path("0000000000000001.sum"), F_OK) != 0);
    CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);
    test_end();
}

/* The table of an object with several segments, to be damaged. */
static uint8_t *test_make_table(struct sums *sums, size_t *length)
{
    static const struct sums_part parts[] = {{.length = 100}, {.length = SUMS_CHUNK + 9}, {.length = 1}};
    cleanup_free uint8_t *bytes = test_bytes(SUMS_CHUNK + 110, 14);
    *sums = test_make_object(bytes, SUMS_CHUNK + 110, parts, 3);
    return sums_table_encode(test_store, sums, length);
}

static errint test_decode(const void *table, size_t length)
{
    /* Of exactly this size, so that the sanitizer sees a byte beyond. */
    cleanup_free void *copy = malloc(length ? length : 1);
    memcpy(copy, table, length);
    char why[SUMS_TABLE_WHY] = "";
    struct sums sums = {0};
    errint error = sums_table_decode(test_store, copy, length, &sums, why);
    CHECK((error == 0) == (*why == '\0'));
    sums_release(&sums);
    return error;
}

static void test_damage(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK_EQUAL(SUMS_TABLE_FIXED + 4 * SUMS_TABLE_ENTRY, length);
    CHECK_EQUAL(0, test_decode(table, length));
    for (size_t i = 0; i < length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            table[i] ^= (uint8_t)(1 << bit);
            CHECK(test_decode(table, length) != 0);
            table[i] ^= (uint8_t)(1 << bit);
        }
    }
    for (size_t i = 0; i < length; i++)
        CHECK_EQUAL(-EUCLEAN, test_decode(table, i));
    cleanup_free uint8_t *longer = calloc(1, length + 3 * SUMS_TABLE_ENTRY);
    memcpy(longer, table, length);
    for (size_t more = 1; more <= 3 * SUMS_TABLE_ENTRY; more++)
        CHECK_EQUAL(-EUCLEAN, test_decode(longer, length + more));
    test_end();
}

/* Damage on the disk, heard as one line: stderr is read back. */
static void test_damage_is_said(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0}, found = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    cleanup_fd int fd = open(test_path("0000000000000001.sum"), O_RDWR);
    cleanup_fd int heard = memfd_create("stderr", MFD_CLOEXEC), before = dup(2);
    fflush(stdout);
    CHECK(dup2(heard, 2) == 2);
    errint errors[4];
    CHECK(pwrite(fd, "?", 1, SUMS_TABLE_HEADER + 9) == 1);
    errors[0] = sums_read(test_store, 1, &found);
    CHECK(pwrite(fd, "\377\377\377\377\377\377\377\177", 8, SUMS_TABLE_AT_COUNT) == 8);
    errors[1] = sums_read(test_store, 1, &found);
    CHECK(ftruncate(fd, 20) == 0);
    errors[2] = sums_read(test_store, 1, &found);
    CHECK(pwrite(fd, table, length, 0) == (ssize_t)length && pwrite(fd, "\2", 1, SUMS_TABLE_AT_VERSION) == 1);
    errors[3] = sums_read(test_store, 1, &found);
    CHECK(dup2(before, 2) == 2);
    CHECK_EQUAL(-EUCLEAN, errors[0]);
    CHECK_EQUAL(-EUCLEAN, errors[1]);
    CHECK_EQUAL(-EUCLEAN, errors[2]);
    CHECK_EQUAL(-EPROTONOSUPPORT, errors[3]);
    char text[4096] = "";
    CHECK(pread(heard, text, sizeof text - 1, 0) > 0);
    unsigned lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        CHECK(strstr(line, "objects/00/0000000000000001.sum") && strstr(line, "expected") &&
              strstr(line, "found"));
    CHECK_EQUAL(4, lines);
    test_end();
}

/* With root and checksum made to fit: what is wrong inside is still noticed. */
static void test_fix(uint8_t *table, size_t length)
{
    size_t end = length - HASH_BYTES;
    hash_to_bytes(hash_of(test_store, table + SUMS_TABLE_HEADER, end - SUMS_TABLE_HEADER),
                  table + SUMS_TABLE_AT_ROOT);
    hash_to_bytes(hash_of(test_store, table, end), table + end);
}

static void test_lies(void)
{
    enum { ENTRY = SUMS_TABLE_HEADER + SUMS_TABLE_ENTRY };
    static const struct {
        size_t at, length;
        const char *bytes;
    } lies[] = {
        {SUMS_TABLE_AT_COUNT, 1, "\3"},
        {SUMS_TABLE_AT_COUNT, 1, "\5"},
        {SUMS_TABLE_AT_COUNT + 7, 1, "\x10"},
        {SUMS_TABLE_AT_COUNT, 8, "\315\314\314\314\314\314\314\014"}, /* times 20 is 4 in 64 bits */
        {SUMS_TABLE_AT_SIZE, 1, "\1"},
        {SUMS_TABLE_AT_SIZE + 7, 1, "\377"},
        {SUMS_TABLE_AT_SIZE, 8, "\0\0\0\0\0\0\0\0"},
        {SUMS_TABLE_HEADER, 4, "\x64\0\0\0"},   /* the first starts no segment */
        {SUMS_TABLE_HEADER, 4, "\0\0\0\x80"},   /* no bytes */
        {SUMS_TABLE_HEADER, 4, "\x65\0\0\x80"}, /* one more than there is */
        {ENTRY, 4, "\1\0\x10\x80"},             /* more than any chunk has */
        {ENTRY, 4, "\377\377\377\377"},
        {SUMS_TABLE_AT_VERSION, 1, "\0"},
        {SUMS_TABLE_AT_ALGORITHM, 1, "\2"},
    };
    test_begin();
    cleanup_sums struct sums sums = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    cleanup_free uint8_t *copy = malloc(length);
    memcpy(copy, table, length);
    test_fix(copy, length);
    CHECK(memcmp(copy, table, length) == 0);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(copy, table, length);
        memcpy(copy + lies[i].at, lies[i].bytes, lies[i].length);
        test_fix(copy, length);
        CHECK_EQUAL(-EUCLEAN, test_decode(copy, length));
    }
    /* The root itself. */
    memcpy(copy, table, length);
    copy[SUMS_TABLE_AT_ROOT] ^= 1;
    hash_to_bytes(hash_of(test_store, copy, length - HASH_BYTES), copy + length - HASH_BYTES);
    CHECK_EQUAL(-EUCLEAN, test_decode(copy, length));
    test_end();
}

/* A file of 1 TiB (a hole) that does not say so itself is refused before anything is allocated for it. */
static void test_lies_allocate_nothing(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0}, found = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    CHECK(truncate(test_path("0000000000000001.sum"), INT64_C(1) << 40) == 0);
    CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
    test_end();
}

/* -- space ----------------------------------------------------------------------------------------------- */

static void test_punch(void)
{
    enum { SIZE = MIB + 100 };
    test_begin();
    int can = object_can_punch(test_store);
    CHECK(can == 0 || can == 1);
    CHECK_EQUAL(can, object_can_punch(test_store));
    cleanup_free uint8_t *bytes = test_bytes(SIZE, 15), *found = test_bytes(SIZE, 0);
    cleanup_fd int fd = object_create(test_store, 1);
    CHECK(pwrite(fd, bytes, SIZE, 0) == SIZE && fsync(fd) == 0);
    int64_t stored = object_stored_bytes(fd);
    CHECK(stored >= MIB);
    CHECK_EQUAL(-EBADF, object_stored_bytes(-1));
    CHECK_EQUAL(-EINVAL, object_punch(fd, -1, 5));
    CHECK_EQUAL(-EINVAL, object_punch(fd, 0, -5));
    CHECK_EQUAL(-EINVAL, object_punch(fd, INT64_MAX, 2));
    if (can != 1) {
        CHECK_EQUAL(-EOPNOTSUPP, object_punch(fd, 0, MIB));
        check_skip("the disk of TMPDIR cannot punch holes");
        test_end();
        return;
    }
    /* Nothing whole is in these. */
    CHECK_EQUAL(0, object_punch(fd, 1, 4095));
    CHECK_EQUAL(0, object_punch(fd, 4095, 4096));
    CHECK_EQUAL(0, object_punch(fd, 0, 0));
    CHECK_EQUAL(0, object_punch(fd, SIZE, 0));
    CHECK_EQUAL(0, object_punch(fd, SIZE - 50, 50));
    CHECK_EQUAL(0, object_punch(fd, SIZE + MIB, MIB));
    CHECK_EQUAL(0, object_punch(fd, INT64_MAX - 1, 1));
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(stored, object_stored_bytes(fd));

    /* Shrunk inwards in the middle, up to the very end at the end. */
    CHECK_EQUAL(0, object_punch(fd, 65536 - 1, 131072 + 2));
    memset(bytes + 65536, 0, 131072);
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(stored - 131072, object_stored_bytes(fd));
    CHECK_EQUAL(0, object_punch(fd, MIB - 1, 101));
    memset(bytes + MIB, 0, 100);
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && status.st_size == SIZE);
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(0, object_punch(fd, 0, INT64_MAX));
    CHECK_EQUAL(0, object_stored_bytes(fd));
    CHECK(fstat(fd, &status) == 0 && status.st_size == SIZE);
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
    check_run("a table is written, read and removed", test_round_trip);
    check_run("a table goes with its object and is not listed", test_table_goes_with_object);
    check_run("damage of any bit of a table is noticed", test_damage);
    check_run("damage of a table is said in one line", test_damage_is_said);
    check_run("a table that lies with good checksums is refused", test_lies);
    check_run("a table's length is checked before it is allocated", test_lies_allocate_nothing);
    check_run("blocks of a range are given back, and the rest stays", test_punch);
    return check_done();
}
