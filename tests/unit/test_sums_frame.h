/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of chunk hashes share: a store of one test, bytes, and what holds for every result. */
#ifndef CKPTFS_TESTS_UNIT_TEST_SUMS_FRAME_H
#define CKPTFS_TESTS_UNIT_TEST_SUMS_FRAME_H

#include "store/sums.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

/* A new store below TMPDIR, until test_end removes it. */
extern struct store *test_store;
void test_begin(void);
void test_end(void);
/* The path of a file in objects/00, until the next call. */
const char *test_path(const char *name);

/* Bytes that never repeat, the same in every run (splitmix64). test_bytes: to be freed. */
void test_fill(uint8_t *bytes, size_t length, uint64_t seed);
uint8_t *test_bytes(size_t length, uint64_t seed);
/* A file in memory that has them: a descriptor. */
int test_file(const void *bytes, size_t length);

/* The sums of an object of these parts (NULL: opaque), which must work; to be released. */
struct sums test_compute(int fd, int64_t size, const struct sums_part *parts, size_t count);
struct sums test_compute_bytes(const void *bytes, size_t length, const struct sums_part *parts, size_t count);
struct sums test_compute_opaque(const void *bytes, size_t length);

/* Checks that chunks and segments follow each other and cover the object. */
void test_check_shape(const struct sums *sums);
bool test_equal(const struct sums *one, const struct sums *other);

#endif
