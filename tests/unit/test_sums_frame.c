/* SPDX-License-Identifier: Apache-2.0 */
/* Stores, bytes and sums for the tests of chunk hashes. */
#include "test_sums_frame.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "check.h"

/* -- a store of one test --------------------------------------------------------------------------------- */

static char test_directory[256];
struct store *test_store;

void test_begin(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(test_directory, sizeof test_directory, "%s/ckptfs-test-sums.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(test_directory) || store_open(test_directory, -1, &test_store) != STORE_FINE) {
        printf("Bail out! no store to test with in %s\n", test_directory);
        exit(1);
    }
}

void test_end(void)
{
    char command[320];
    store_close(test_store);
    snprintf(command, sizeof command, "rm -rf '%s'", test_directory);
    CHECK(system(command) == 0);
}

const char *test_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/objects/00/%s", test_directory, name);
    return path;
}

/* -- bytes ----------------------------------------------------------------------------------------------- */

/* Bytes that never repeat (splitmix64), the same in every run. */
void test_fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t at = 0; at < length; at += 8) {
        uint64_t value = seed += UINT64_C(0x9e3779b97f4a7c15);
        value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
        value ^= value >> 31;
        memcpy(bytes + at, &value, length - at < 8 ? length - at : 8);
    }
}

uint8_t *test_bytes(size_t length, uint64_t seed)
{
    uint8_t *bytes = malloc(length + 1);
    if (!bytes) {
        printf("Bail out! no memory to test with\n");
        exit(1);
    }
    test_fill(bytes, length, seed);
    return bytes;
}

int test_file(const void *bytes, size_t length)
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

struct sums test_compute(int fd, int64_t size, const struct sums_part *parts, size_t count)
{
    struct sums_request request = {
        .store = test_store, .fd = fd, .size = size, .parts = parts, .part_count = count};
    struct sums sums = {0};
    CHECK_EQUAL(0, sums_compute(&request, &sums));
    return sums;
}

struct sums test_compute_bytes(const void *bytes, size_t length, const struct sums_part *parts, size_t count)
{
    cleanup_fd int fd = test_file(bytes, length);
    return test_compute(fd, (int64_t)length, parts, count);
}

struct sums test_compute_opaque(const void *bytes, size_t length)
{
    return test_compute_bytes(bytes, length, NULL, 0);
}

/* What holds for every result. */
void test_check_shape(const struct sums *sums)
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

bool test_equal(const struct sums *one, const struct sums *other)
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
