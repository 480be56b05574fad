/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of files around the size at which their bytes move between the database and an object (16 KiB). */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT 16384

static const size_t lengths[] = {0, 1, 4095, 4096, 4097, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT};

#define LENGTH_COUNT (sizeof(lengths) / sizeof(lengths[0]))

/* Has what an open file of this length shows: through a descriptor that stays, a new one, and a mapping. */
static void expect_everywhere(int reader, const unsigned char *model, size_t length)
{
    CHECK_EQUAL(probe_fstat(reader).st_size, length);
    probe_pread_expect(reader, model, length, 0);
    char beyond;
    CHECK_EQUAL(pread(reader, &beyond, 1, (off_t)length), 0);
    probe_file_expect("file", model, length);
    if (length == 0)
        return;
    unsigned char *map = probe_map(reader, length, PROT_READ, MAP_SHARED);
    CHECK(memcmp(map, model, length) == 0);
    CHECK_OK(munmap(map, length));
}

static void inline_sizes(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        probe_file_pattern("file", lengths[i], 1);
        for (int pass = 0; pass < 3; pass++)
            probe_file_expect_pattern("file", lengths[i], 1);
        CHECK_EQUAL(probe_stat("file").st_size, lengths[i]);
        CHECK_EQUAL(probe_stat("file").st_blocks > 0, lengths[i] > 0);
    }
}

/* Grows over the limit and shrinks under it in steps, closed after each, while a reader holds the file open.
 */
static void inline_crossing(void)
{
    static const size_t steps[] = {100, LIMIT - 1, LIMIT, LIMIT + 1, 50000, LIMIT,
                                   10,  40000,     0,     LIMIT + 1, 3,     LIMIT - 1};
    unsigned char model[50000];
    probe_file_write("file", "", 0);
    int reader = (int)CHECK_OK(open("file", O_RDONLY));
    size_t length = 0;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (steps[i] > length) {
            size_t added = steps[i] - length;
            probe_pattern_fill(model + length, added, length, (unsigned)i);
            int fd = (int)CHECK_OK(open("file", O_WRONLY | O_APPEND));
            CHECK_EQUAL(write(fd, model + length, added), added);
            CHECK_OK(close(fd));
        } else {
            CHECK_OK(truncate("file", (off_t)steps[i]));
        }
        length = steps[i];
        expect_everywhere(reader, model, length);
    }
    CHECK_OK(close(reader));
}

/* Bytes are changed in place at the ends and in the middle, closed after each change. */
static void inline_overwrite(void)
{
    unsigned char model[2 * LIMIT + 1];
    for (size_t i = 1; i < LENGTH_COUNT; i++) {
        size_t length = lengths[i];
        probe_file_pattern("file", length, 2);
        probe_pattern_fill(model, length, 0, 2);
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        const size_t positions[] = {0, length / 2, length - 1};
        for (size_t j = 0; j < 3; j++) {
            int fd = (int)CHECK_OK(open("file", j == 1 ? O_RDWR : O_WRONLY));
            model[positions[j]] ^= 0xff;
            probe_pwrite(fd, &model[positions[j]], 1, (off_t)positions[j]);
            probe_pread_expect(reader, model, length, 0);
            CHECK_OK(close(fd));
            expect_everywhere(reader, model, length);
        }
        CHECK_OK(close(reader));
    }
}

/* A writer and a reader that stay open while the file crosses the limit both ways. */
static void inline_crossing_open(void)
{
    unsigned char model[60000];
    memset(model, 0, sizeof(model));
    int writer = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    int reader = (int)CHECK_OK(open("file", O_RDONLY));
    for (size_t round = 0; round < 4; round++) {
        probe_pattern_fill(model, 1000, 0, (unsigned)round);
        probe_pwrite(writer, model, 1000, 0);
        expect_everywhere(reader, model, 1000);
        probe_pattern_fill(model + 59000, 1000, 59000, (unsigned)round);
        probe_pwrite(writer, model + 59000, 1000, 59000);
        expect_everywhere(reader, model, 60000);
        memset(model + 100, 0, sizeof(model) - 100);
        CHECK_OK(ftruncate(writer, 100));
        expect_everywhere(reader, model, 100);
    }
    CHECK_OK(close(writer));
    expect_everywhere(reader, model, 100);
    CHECK_OK(close(reader));
}

/* Growing by truncate and fallocate alone: zeros on both sides of the limit. */
static void inline_grow_without_writing(void)
{
    unsigned char model[3 * LIMIT];
    memset(model, 0, sizeof(model));
    probe_pattern_fill(model, 500, 0, 3);
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        if (lengths[i] < 500)
            continue;
        probe_file_pattern("file", 500, 3);
        CHECK_OK(truncate("file", (off_t)lengths[i]));
        probe_file_expect("file", model, lengths[i]);
        CHECK_OK(truncate("file", 500));
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        CHECK_OK(fallocate(fd, 0, 0, (off_t)lengths[i]));
        CHECK_OK(close(fd));
        probe_file_expect("file", model, lengths[i]);
    }
}

/* Shared mappings of small files, stored to, then the file grows behind the limit by write(2). */
static void inline_mapped(void)
{
    for (size_t i = 1; i < LENGTH_COUNT; i++) {
        size_t length = lengths[i];
        unsigned char *model = probe_alloc(length + 40000);
        memset(model, 0, length + 40000);
        probe_pattern_fill(model, length, 0, 4);
        probe_file_write("file", model, length);
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        unsigned char *map = probe_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        map[length - 1] = model[length - 1] = 'x';
        probe_pwrite(fd, "grown", 5, (off_t)length + 39995);
        memcpy(model + length + 39995, "grown", 5);
        map[0] = model[0] = 'y';
        CHECK_OK(close(fd));
        probe_file_expect("file", model, length + 40000);
        CHECK_OK(munmap(map, length));
        probe_file_expect("file", model, length + 40000);
        free(model);
    }
}

/* Small files keep names, links and attributes when their bytes move. */
static void inline_names(void)
{
    probe_file_pattern("file", 1000, 5);
    ino_t number = probe_stat("file").st_ino;
    CHECK_OK(link("file", "link"));
    CHECK_OK(chmod("file", 0604));
    CHECK_OK(truncate("link", 50000));
    CHECK_OK(truncate("link", 1000));
    CHECK_EQUAL(probe_stat("file").st_ino, number);
    CHECK_EQUAL(probe_stat("file").st_mode & 07777, 0604);
    CHECK_OK(rename("link", "renamed"));
    probe_file_expect_pattern("renamed", 1000, 5);
    CHECK_OK(unlink("file"));
    probe_file_expect_pattern("renamed", 1000, 5);
    CHECK_EQUAL(probe_stat("renamed").st_nlink, 1);
}

/* Many small files, each rewritten over its neighbour's former size. */
static void inline_many(void)
{
    enum { COUNT = 500 };
    char name[32];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            snprintf(name, sizeof(name), "small-%u", i);
            probe_file_pattern(name, (i + round * 250) % COUNT * 67, i + round);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            snprintf(name, sizeof(name), "small-%u", i);
            probe_file_expect_pattern(name, (i + round * 250) % COUNT * 67, i + round);
        }
    }
}

const struct probe probes_inline[] = {
    {"inline-sizes", inline_sizes},
    {"inline-crossing", inline_crossing},
    {"inline-crossing-open", inline_crossing_open},
    {"inline-overwrite", inline_overwrite},
    {"inline-grow-without-writing", inline_grow_without_writing},
    {"inline-mapped", inline_mapped},
    {"inline-names", inline_names},
    {"inline-many", inline_many},
    {NULL, NULL},
};
