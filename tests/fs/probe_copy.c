/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of copy_file_range(2): after it, source and destination have nothing more in common. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t lengths[] = {0, 1, 1000, 16384, 16385, 100000, 3000000};

#define LENGTH_COUNT (sizeof(lengths) / sizeof(lengths[0]))

/* Copies a whole range, however many calls it takes. */
static void copy_range(int from, off_t from_offset, int to, off_t to_offset, size_t length)
{
    while (length > 0) {
        long count = CHECK_OK(copy_file_range(from, &from_offset, to, &to_offset, length, 0));
        CHECK(count > 0);
        length -= (size_t)count;
    }
}

static void copy_whole_file(const char *source, const char *target)
{
    int from = (int)CHECK_OK(open(source, O_RDONLY));
    int to = (int)CHECK_OK(open(target, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    copy_range(from, 0, to, 0, (size_t)probe_fstat(from).st_size);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
}

static void copy_whole(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        probe_file_pattern("from", lengths[i], 1);
        copy_whole_file("from", "to");
        probe_file_expect_pattern("to", lengths[i], 1);
        probe_file_expect_pattern("from", lengths[i], 1);
    }
}

/* NULL offsets use and move the file positions; given ones leave them alone. */
static void copy_positions(void)
{
    probe_file_pattern("from", 10000, 2);
    int from = (int)CHECK_OK(open("from", O_RDONLY));
    int to = (int)CHECK_OK(open("to", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(copy_file_range(from, NULL, to, NULL, 4000, 0), 4000);
    CHECK_EQUAL(lseek(from, 0, SEEK_CUR), 4000);
    CHECK_EQUAL(lseek(to, 0, SEEK_CUR), 4000);
    off_t offset = 4000;
    CHECK_EQUAL(copy_file_range(from, &offset, to, NULL, 100000, 0), 6000);
    CHECK_EQUAL(offset, 10000);
    CHECK_EQUAL(lseek(from, 0, SEEK_CUR), 4000);
    CHECK_EQUAL(lseek(to, 0, SEEK_CUR), 10000);
    CHECK_EQUAL(copy_file_range(from, &offset, to, NULL, 100, 0), 0);
    offset = 20000;
    CHECK_EQUAL(copy_file_range(from, &offset, to, NULL, 100, 0), 0);
    CHECK_EQUAL(copy_file_range(from, NULL, to, NULL, 0, 0), 0);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
    probe_file_expect_pattern("to", 10000, 2);
}

/* Parts of a file to other offsets of another, beyond its end and over what it has. */
static void copy_parts(void)
{
    enum { SIZE = 500000 };
    static const struct {
        off_t from, to;
        size_t length;
    } parts[] = {
        {0, 0, 4096}, {4096, 100000, 65536}, {1, 3, 9999}, {300000, 600000, 100001}, {499999, 17, 1}};
    enum { TARGET = 700001 };
    unsigned char *source = probe_alloc(SIZE), *model = probe_alloc(TARGET);
    probe_pattern_fill(source, SIZE, 0, 3);
    memset(model, 0, TARGET);
    probe_pattern_fill(model, 200000, 0, 4);
    for (int closed = 0; closed < 2; closed++) {
        probe_file_write("from", source, SIZE);
        probe_file_write("to", model, 200000);
        int from = (int)CHECK_OK(open("from", closed ? O_RDONLY : O_RDWR));
        int to = (int)CHECK_OK(open("to", O_RDWR));
        unsigned char *expected = probe_alloc(TARGET);
        memcpy(expected, model, TARGET);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            copy_range(from, parts[i].from, to, parts[i].to, parts[i].length);
            memcpy(expected + parts[i].to, source + parts[i].from, parts[i].length);
        }
        probe_pread_expect(to, expected, TARGET, 0);
        CHECK_OK(close(from));
        CHECK_OK(close(to));
        probe_file_expect("to", expected, TARGET);
        probe_file_expect("from", source, SIZE);
        free(expected);
    }
    free(source);
    free(model);
}

static void copy_within(void)
{
    probe_file_pattern("file", 200000, 5);
    unsigned char *model = probe_alloc(200000);
    probe_pattern_fill(model, 200000, 0, 5);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    copy_range(fd, 0, fd, 100000, 50000);
    memcpy(model + 100000, model, 50000);
    copy_range(fd, 150000, fd, 10, 777);
    memcpy(model + 10, model + 150000, 777);
    off_t from = 0, to = 10;
    CHECK_ERRNO(copy_file_range(fd, &from, fd, &to, 100, 0), EINVAL);
    from = 10, to = 10;
    CHECK_ERRNO(copy_file_range(fd, &from, fd, &to, 100, 0), EINVAL);
    probe_pread_expect(fd, model, 200000, 0);
    CHECK_OK(close(fd));
    probe_file_expect("file", model, 200000);
    free(model);
}

static void copy_refusals(void)
{
    probe_file_pattern("from", 1000, 6);
    CHECK_OK(mkdir("directory", 0700));
    int from = (int)CHECK_OK(open("from", O_RDONLY));
    int to = (int)CHECK_OK(open("to", O_WRONLY | O_CREAT, 0600));
    int append = (int)CHECK_OK(open("to", O_WRONLY | O_APPEND));
    int readonly = (int)CHECK_OK(open("to", O_RDONLY));
    int directory = (int)CHECK_OK(open("directory", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(copy_file_range(from, NULL, append, NULL, 10, 0), EBADF);
    CHECK_ERRNO(copy_file_range(from, NULL, readonly, NULL, 10, 0), EBADF);
    CHECK_ERRNO(copy_file_range(to, NULL, to, NULL, 10, 0), EBADF);
    CHECK_ERRNO(copy_file_range(directory, NULL, to, NULL, 10, 0), EISDIR);
    CHECK_ERRNO(copy_file_range(from, NULL, to, NULL, 10, 1), EINVAL);
    CHECK_EQUAL(probe_fstat(to).st_size, 0);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
    CHECK_OK(close(append));
    CHECK_OK(close(readonly));
    CHECK_OK(close(directory));
}

/* Whatever is done to one of the two afterwards, the other does not show it. */
static void change_one(const char *name, int how)
{
    int fd = (int)CHECK_OK(open(name, O_RDWR));
    char bytes[5000];
    memset(bytes, 'c', sizeof(bytes));
    switch (how) {
    case 0: probe_pwrite(fd, bytes, sizeof(bytes), 30000); break;
    case 1: CHECK_OK(ftruncate(fd, 100)); break;
    case 2: CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 65536)); break;
    case 3: probe_pwrite(fd, bytes, sizeof(bytes), 1000000); break;
    case 4: {
        char *map = probe_map(fd, 100000, PROT_READ | PROT_WRITE, MAP_SHARED);
        memset(map, 'm', 100000);
        CHECK_OK(munmap(map, 100000));
        break;
    }
    case 5: CHECK_OK(unlink(name)); break;
    default: CHECK_OK(close((int)CHECK_OK(open(name, O_WRONLY | O_TRUNC)))); break;
    }
    CHECK_OK(close(fd));
}

static void copy_is_independent(void)
{
    static const size_t sizes[] = {100000, 3000000};
    for (size_t i = 0; i < 2; i++) {
        for (int how = 0; how <= 6; how++) {
            probe_file_pattern("one", sizes[i], 7);
            copy_whole_file("one", "two");
            change_one("one", how);
            probe_file_expect_pattern("two", sizes[i], 7);
            probe_file_pattern("one", sizes[i], 8);
            copy_whole_file("one", "two");
            change_one("two", how);
            probe_file_expect_pattern("one", sizes[i], 8);
        }
    }
}

/* The source changes while both are still open: what was copied is what was there. */
static void copy_then_write_source(void)
{
    enum { SIZE = 2000000 };
    probe_file_pattern("from", SIZE, 9);
    int from = (int)CHECK_OK(open("from", O_RDWR));
    int to = (int)CHECK_OK(open("to", O_RDWR | O_CREAT, 0600));
    copy_range(from, 0, to, 0, SIZE);
    char *other = probe_alloc(SIZE);
    memset(other, 'o', SIZE);
    probe_pwrite(from, other, SIZE, 0);
    char *expected = probe_alloc(SIZE);
    probe_pattern_fill(expected, SIZE, 0, 9);
    probe_pread_expect(to, expected, SIZE, 0);
    CHECK_OK(close(from));
    probe_pread_expect(to, expected, SIZE, 0);
    CHECK_OK(close(to));
    probe_file_expect("to", expected, SIZE);
    probe_file_expect("from", other, SIZE);
    free(other);
    free(expected);
}

/* A chain of copies, each of the copy before; the ones between are removed or changed. */
static void copy_chain(void)
{
    probe_file_pattern("0", 1000000, 10);
    char from[16], to[16];
    for (int i = 0; i < 20; i++) {
        snprintf(from, sizeof(from), "%d", i);
        snprintf(to, sizeof(to), "%d", i + 1);
        copy_whole_file(from, to);
        if (i % 3 == 1)
            CHECK_OK(unlink(from));
        else if (i % 3 == 2)
            CHECK_OK(truncate(from, 5000));
    }
    probe_file_expect_pattern("20", 1000000, 10);
    probe_file_expect_pattern("0", 1000000, 10);
    probe_file_expect_pattern("2", 5000, 10);
}

/* Holes of the source are zeros in the destination. */
static void copy_holes(void)
{
    int from = (int)CHECK_OK(open("from", O_RDWR | O_CREAT, 0600));
    probe_pwrite(from, "data", 4, 3000000);
    CHECK_OK(ftruncate(from, 5000000));
    probe_file_pattern("to", 5000000, 11);
    int to = (int)CHECK_OK(open("to", O_RDWR));
    copy_range(from, 0, to, 0, 5000000);
    probe_pread_expect_byte(to, 0, 3000000, 0);
    probe_pread_expect(to, "data", 4, 3000000);
    probe_pread_expect_byte(to, 0, 5000000 - 3000004, 3000004);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
}

/* FICLONE works or is refused as Linux refuses it, and `cp` falls back. */
static void copy_clone_ioctl(void)
{
    probe_file_pattern("from", 100000, 12);
    int from = (int)CHECK_OK(open("from", O_RDONLY));
    int to = (int)CHECK_OK(open("to", O_RDWR | O_CREAT, 0600));
    int result = ioctl(to, FICLONE, from);
    if (result < 0)
        CHECK(errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL);
    CHECK_EQUAL(probe_fstat(to).st_size, result < 0 ? 0 : 100000);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
}

const struct probe probes_copy[] = {
    {"copy-whole", copy_whole},
    {"copy-positions", copy_positions},
    {"copy-parts", copy_parts},
    {"copy-within", copy_within},
    {"copy-refusals", copy_refusals},
    {"copy-is-independent", copy_is_independent},
    {"copy-then-write-source", copy_then_write_source},
    {"copy-chain", copy_chain},
    {"copy-holes", copy_holes},
    {"copy-clone-ioctl", copy_clone_ioctl},
    {NULL, NULL},
};
