/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of fallocate(2): allocating, punching, zeroing, and what is refused. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static const size_t lengths[] = {1000, 16384, 20000, 65536, 1000000};

#define LENGTH_COUNT (sizeof(lengths) / sizeof(lengths[0]))

static void fallocate_extend(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        off_t length = (off_t)lengths[i];
        probe_file_pattern("file", lengths[i], 1);
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        CHECK_OK(fallocate(fd, 0, 0, length / 2));
        CHECK_EQUAL(probe_fstat(fd).st_size, length);
        CHECK_OK(fallocate(fd, 0, length - 10, 50000));
        CHECK_EQUAL(probe_fstat(fd).st_size, length + 49990);
        probe_pread_expect_byte(fd, 0, 49990, length);
        CHECK_EQUAL(posix_fallocate(fd, length + 60000, 1), 0);
        CHECK_EQUAL(probe_stat("file").st_size, length + 60001);
        CHECK_OK(close(fd));
        CHECK_OK(truncate("file", length));
        probe_file_expect_pattern("file", lengths[i], 1);
    }
}

static void fallocate_keep_size(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        probe_file_pattern("file", lengths[i], 2);
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)lengths[i] + 1000000));
        CHECK_EQUAL(probe_fstat(fd).st_size, lengths[i]);
        char byte;
        CHECK_EQUAL(pread(fd, &byte, 1, (off_t)lengths[i]), 0);
        CHECK_OK(close(fd));
        probe_file_expect_pattern("file", lengths[i], 2);
        CHECK_OK(truncate("file", (off_t)lengths[i] + 1000));
        fd = (int)CHECK_OK(open("file", O_RDONLY));
        probe_pread_expect_byte(fd, 0, 1000, (off_t)lengths[i]);
        CHECK_OK(close(fd));
    }
}

/* Zeroes [start, start + length) of a file that is 300,000 bytes of pattern and looks at the whole, open and
 * reopened. */
static void zero_and_compare(int mode, off_t start, off_t length, off_t expected_size)
{
    enum { SIZE = 300000 };
    unsigned char *model = probe_alloc((size_t)expected_size);
    memset(model, 0, (size_t)expected_size);
    probe_pattern_fill(model, SIZE, 0, 3);
    for (off_t i = start; i < start + length && i < expected_size; i++)
        model[i] = 0;
    probe_file_pattern("file", SIZE, 3);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    int reader = (int)CHECK_OK(open("file", O_RDONLY));
    unsigned char *map = probe_map(reader, SIZE, PROT_READ, MAP_SHARED);
    unsigned char sum = 0;
    for (size_t i = 0; i < SIZE; i += 4096)
        sum ^= map[i];
    CHECK_OK(fallocate(fd, mode, start, length));
    CHECK_EQUAL(probe_fstat(reader).st_size, expected_size);
    probe_pread_expect(fd, model, (size_t)expected_size, 0);
    probe_pread_expect(reader, model, (size_t)expected_size, 0);
    for (size_t i = 0; i < SIZE; i++)
        if (map[i] != model[i])
            probe_fail(__FILE__, __LINE__, 0, "the mapping shows %02x at %zu, expected %02x (sum %02x)",
                       map[i], i, model[i], sum);
    CHECK_OK(munmap(map, SIZE));
    CHECK_OK(close(fd));
    CHECK_OK(close(reader));
    probe_file_expect("file", model, (size_t)expected_size);
    free(model);
}

static void fallocate_punch_hole(void)
{
    zero_and_compare(PUNCH, 0, 4096, 300000);
    zero_and_compare(PUNCH, 65536, 131072, 300000);
    zero_and_compare(PUNCH, 1, 1, 300000);
    zero_and_compare(PUNCH, 4095, 70003, 300000);
    zero_and_compare(PUNCH, 299990, 100, 300000);
    zero_and_compare(PUNCH, 0, 300000, 300000);
    zero_and_compare(PUNCH, 400000, 5000, 300000);
}

static void fallocate_zero_range(void)
{
    zero_and_compare(FALLOC_FL_ZERO_RANGE, 4096, 8192, 300000);
    zero_and_compare(FALLOC_FL_ZERO_RANGE, 100, 200, 300000);
    zero_and_compare(FALLOC_FL_ZERO_RANGE, 299990, 100, 300090);
    zero_and_compare(FALLOC_FL_ZERO_RANGE, 350000, 5000, 355000);
    zero_and_compare(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 299990, 100, 300000);
}

/* The hole is a hole: SEEK_HOLE finds it. */
static void fallocate_hole_is_found(void)
{
    enum { MIB = 1024 * 1024 };
    probe_file_pattern("file", 4 * MIB, 4);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    CHECK_OK(fsync(fd));
    CHECK_OK(fallocate(fd, PUNCH, MIB, 2 * MIB));
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("file", O_RDONLY));
    probe_await_hole(fd, 4 * MIB);
    CHECK_EQUAL(lseek(fd, 0, SEEK_HOLE), MIB);
    CHECK_EQUAL(lseek(fd, MIB, SEEK_DATA), 3 * MIB);
    CHECK_OK(close(fd));
}

static void fallocate_small_file(void)
{
    for (size_t length = 100; length < 40000; length = length * 4 + 1) {
        unsigned char *model = probe_alloc(length);
        probe_file_pattern("file", length, 5);
        probe_pattern_fill(model, length, 0, 5);
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        int fd = (int)CHECK_OK(open("file", O_WRONLY));
        CHECK_OK(fallocate(fd, PUNCH, 10, 20));
        memset(model + 10, 0, 20);
        probe_pread_expect(reader, model, length, 0);
        CHECK_OK(close(fd));
        CHECK_OK(close(reader));
        probe_file_expect("file", model, length);
        free(model);
    }
}

static void fallocate_refusals(void)
{
    probe_file_pattern("file", 10000, 6);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
    CHECK_ERRNO(fallocate(fd, 0, -1, 10), EINVAL);
    CHECK_ERRNO(fallocate(fd, 0, 10, -1), EINVAL);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 10),
                EOPNOTSUPP);
    CHECK_ERRNO(fallocate(fd, 1 << 30, 0, 10), EOPNOTSUPP);
    if (!probe_is_plain()) {
        CHECK_ERRNO(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
        CHECK_ERRNO(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096), EOPNOTSUPP);
    }
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_ERRNO(fallocate(fd, 0, 0, 10), EBADF);
    CHECK_OK(close(fd));
    int ends[2];
    CHECK_OK(pipe(ends));
    CHECK_ERRNO(fallocate(ends[1], 0, 0, 10), ESPIPE);
    probe_file_expect_pattern("file", 10000, 6);
}

const struct probe probes_fallocate[] = {
    {"fallocate-extend", fallocate_extend},
    {"fallocate-keep-size", fallocate_keep_size},
    {"fallocate-punch-hole", fallocate_punch_hole},
    {"fallocate-zero-range", fallocate_zero_range},
    {"fallocate-hole-is-found", fallocate_hole_is_found},
    {"fallocate-small-file", fallocate_small_file},
    {"fallocate-refusals", fallocate_refusals},
    {NULL, NULL},
};
