/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of open(2): what each flag means. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define BLOCK 4096

static void open_create(void)
{
    umask(027);
    int first = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0666));
    struct stat status = probe_fstat(first);
    CHECK_EQUAL(status.st_mode, S_IFREG | 0640);
    CHECK_EQUAL(status.st_size, 0);
    CHECK_EQUAL(status.st_nlink, 1);
    CHECK_EQUAL(status.st_uid, geteuid());
    int second = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(probe_fstat(second).st_ino, status.st_ino);
    CHECK_EQUAL(probe_fstat(second).st_mode, S_IFREG | 0640);
    CHECK_ERRNO(open("missing", O_RDWR), ENOENT);
    CHECK_ERRNO(open("missing/file", O_RDWR | O_CREAT, 0600), ENOENT);
    CHECK_ERRNO(open("file/below", O_RDWR | O_CREAT, 0600), ENOTDIR);
    CHECK_ERRNO(open("file/", O_RDONLY), ENOTDIR);
    CHECK_OK(close(first));
    CHECK_OK(close(second));
}

/* The mode of a new file does not bind the descriptor that created it. */
static void open_create_readonly_mode(void)
{
    int fd = (int)CHECK_OK(open("file", O_RDWR | O_CREAT | O_EXCL, 0400));
    probe_pwrite(fd, "bytes", 5, 0);
    probe_pread_expect(fd, "bytes", 5, 0);
    CHECK_OK(close(fd));
    probe_file_expect("file", "bytes", 5);
    fd = (int)CHECK_OK(open("other", O_WRONLY | O_CREAT, 0));
    probe_pwrite(fd, "bytes", 5, 0);
    CHECK_OK(close(fd));
    CHECK_EQUAL(probe_stat("other").st_mode, S_IFREG);
}

static void open_exclusive(void)
{
    CHECK_OK(close((int)CHECK_OK(open("file", O_RDWR | O_CREAT | O_EXCL, 0600))));
    CHECK_ERRNO(open("file", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    CHECK_OK(symlink("nowhere", "dangling"));
    CHECK_ERRNO(open("dangling", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    CHECK(!probe_exists("nowhere"));
    CHECK_OK(close((int)CHECK_OK(open("dangling", O_RDWR | O_CREAT, 0600))));
    CHECK(probe_exists("nowhere"));
    CHECK_OK(mkdir("directory", 0700));
    CHECK_ERRNO(open("directory", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    CHECK_ERRNO(open("directory", O_RDWR | O_CREAT, 0600), EISDIR);
}

static void open_truncate(void)
{
    static const size_t lengths[] = {1, 100, 16384, 70000, 3000000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        probe_file_pattern("file", lengths[i], 1);
        ino_t number = probe_stat("file").st_ino;
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        int writer = (int)CHECK_OK(open("file", i % 2 ? O_WRONLY | O_TRUNC : O_RDWR | O_TRUNC));
        CHECK_EQUAL(probe_fstat(writer).st_size, 0);
        CHECK_EQUAL(probe_fstat(reader).st_size, 0);
        CHECK_EQUAL(probe_fstat(writer).st_ino, number);
        char byte;
        CHECK_EQUAL(pread(reader, &byte, 1, 0), 0);
        probe_pwrite(writer, "new", 3, 0);
        probe_pread_expect(reader, "new", 3, 0);
        CHECK_OK(close(writer));
        CHECK_OK(close(reader));
        probe_file_expect("file", "new", 3);
    }
}

/* O_CREAT | O_TRUNC on a file that is there, while it is also open for writing elsewhere. */
static void open_truncate_while_written(void)
{
    probe_file_pattern("file", 100000, 2);
    int first = (int)CHECK_OK(open("file", O_RDWR));
    int second = (int)CHECK_OK(open("file", O_WRONLY | O_CREAT | O_TRUNC, 0600));
    CHECK_EQUAL(probe_fstat(first).st_size, 0);
    probe_pwrite(first, "first", 5, 0);
    probe_pwrite(second, "second", 6, 5);
    probe_pread_expect(first, "firstsecond", 11, 0);
    CHECK_OK(close(first));
    CHECK_OK(close(second));
    probe_file_expect("file", "firstsecond", 11);
}

static void open_append(void)
{
    int first = (int)CHECK_OK(open("log", O_WRONLY | O_CREAT | O_APPEND, 0600));
    int second = (int)CHECK_OK(open("log", O_RDWR | O_APPEND));
    CHECK_EQUAL(write(first, "one ", 4), 4);
    CHECK_EQUAL(write(second, "two ", 4), 4);
    CHECK_EQUAL(lseek(first, 0, SEEK_SET), 0);
    CHECK_EQUAL(write(first, "three ", 6), 6);
    CHECK_EQUAL(lseek(first, 0, SEEK_CUR), 14);
    /* Linux appends here too, whatever the offset (see the bugs section of pwrite(2)). */
    CHECK_EQUAL(pwrite(second, "four", 4, 0), 4);
    probe_pread_expect(second, "one two three four", 18, 0);
    CHECK_OK(ftruncate(first, 4));
    CHECK_EQUAL(write(second, "two", 3), 3);
    CHECK_EQUAL(probe_fstat(first).st_size, 7);
    CHECK_OK(close(first));
    CHECK_OK(close(second));
    probe_file_expect("log", "one two", 7);
}

static void open_append_switched(void)
{
    probe_file_write("log", "0123456789", 10);
    int fd = (int)CHECK_OK(open("log", O_RDWR));
    CHECK_OK(fcntl(fd, F_SETFL, O_APPEND));
    CHECK_EQUAL(write(fd, "ab", 2), 2);
    CHECK_OK(fcntl(fd, F_SETFL, 0));
    CHECK_EQUAL(pwrite(fd, "cd", 2, 0), 2);
    CHECK_OK(close(fd));
    probe_file_expect("log", "cd23456789ab", 12);
}

/* Aligned direct transfers work and agree with the page cache; the file is longer and shorter than the inline
 * limit. */
static void open_direct_aligned(void)
{
    static const size_t lengths[] = {BLOCK, 4 * BLOCK, 8 * BLOCK, 1024 * BLOCK};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t length = lengths[i];
        char *data = probe_alloc_aligned(BLOCK, length);
        probe_pattern_fill(data, length, 0, 3);
        int fd = (int)CHECK_OK(open("direct", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600));
        CHECK_EQUAL(pwrite(fd, data, length, 0), length);
        memset(data, 0, length);
        CHECK_EQUAL(pread(fd, data, length, 0), length);
        CHECK(probe_pattern_matches(data, length, 0, 3));
        CHECK_OK(close(fd));
        probe_file_expect_pattern("direct", length, 3);
        fd = (int)CHECK_OK(open("direct", O_RDONLY | O_DIRECT));
        memset(data, 0, length);
        CHECK_EQUAL(pread(fd, data, length, 0), length);
        CHECK(probe_pattern_matches(data, length, 0, 3));
        CHECK_EQUAL(pread(fd, data, BLOCK, (off_t)length), 0);
        CHECK_OK(close(fd));
        free(data);
    }
}

/* A direct read near the end of a file is short, not wrong. */
static void open_direct_tail(void)
{
    static const size_t lengths[] = {100, BLOCK + 100, 16384 + 1, 100 * BLOCK + 512};
    char *data = probe_alloc_aligned(BLOCK, 2 * BLOCK);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t length = lengths[i];
        probe_file_pattern("tail", length, 4);
        int fd = (int)CHECK_OK(open("tail", O_RDONLY | O_DIRECT));
        size_t start = length / BLOCK * BLOCK;
        CHECK_EQUAL(pread(fd, data, 2 * BLOCK, (off_t)start), length - start);
        CHECK(probe_pattern_matches(data, length - start, start, 4));
        CHECK_OK(close(fd));
    }
    free(data);
}

/* An unaligned direct transfer either works or is refused with EINVAL, and never does something else. */
static void open_direct_unaligned(void)
{
    char *data = probe_alloc_aligned(BLOCK, 3 * BLOCK);
    char *model = probe_alloc(3 * BLOCK);
    probe_pattern_fill(model, 3 * BLOCK, 0, 5);
    probe_file_write("direct", model, 3 * BLOCK);
    int fd = (int)CHECK_OK(open("direct", O_RDWR | O_DIRECT));
    static const struct {
        size_t memory, length;
        off_t offset;
    } cases[] = {{0, 100, 0}, {1, BLOCK, 0}, {0, BLOCK, 100}, {7, 333, 777}, {0, 512, 512}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(data, (int)i + 1, 3 * BLOCK);
        ssize_t count = pwrite(fd, data + cases[i].memory, cases[i].length, cases[i].offset);
        if (count < 0)
            CHECK_EQUAL(errno, EINVAL);
        else
            memset(model + cases[i].offset, (int)i + 1, (size_t)count);
        count = pread(fd, data + cases[i].memory, cases[i].length, cases[i].offset);
        if (count < 0)
            CHECK_EQUAL(errno, EINVAL);
        else
            CHECK(memcmp(data + cases[i].memory, model + cases[i].offset, (size_t)count) == 0);
    }
    CHECK_OK(close(fd));
    probe_file_expect("direct", model, 3 * BLOCK);
    free(data);
    free(model);
}

/* Buffered and direct handles of one file at the same time. */
static void open_direct_mixed(void)
{
    char *data = probe_alloc_aligned(BLOCK, 64 * BLOCK);
    probe_file_pattern("mixed", 64 * BLOCK, 6);
    int buffered = (int)CHECK_OK(open("mixed", O_RDWR));
    int direct = (int)CHECK_OK(open("mixed", O_RDWR | O_DIRECT));
    for (int i = 0; i < 64; i += 2) {
        memset(data, 'a' + i % 26, BLOCK);
        CHECK_EQUAL(pwrite(i % 4 ? direct : buffered, data, BLOCK, (off_t)i * BLOCK), BLOCK);
        memset(data, 0, BLOCK);
        CHECK_EQUAL(pread(i % 4 ? buffered : direct, data, BLOCK, (off_t)i * BLOCK), BLOCK);
        CHECK_EQUAL(data[17], 'a' + i % 26);
    }
    CHECK_OK(close(direct));
    CHECK_OK(close(buffered));
    free(data);
}

static void open_sync(void)
{
    static const int flags[] = {O_SYNC, O_DSYNC, O_SYNC | O_APPEND};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int fd = (int)CHECK_OK(open("sync", O_RDWR | O_CREAT | O_TRUNC | flags[i], 0600));
        CHECK_EQUAL(write(fd, "synchronous", 11), 11);
        CHECK_EQUAL(write(fd, " bytes", 6), 6);
        CHECK_EQUAL(probe_stat("sync").st_size, 17);
        CHECK_OK(close(fd));
        probe_file_expect("sync", "synchronous bytes", 17);
    }
}

static void open_tmpfile(void)
{
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP && !probe_is_plain())
        probe_skip("no O_TMPFILE here (before libfuse 3.17)");
    CHECK_OK(fd);
    CHECK_EQUAL(probe_fstat(fd).st_nlink, 0);
    CHECK_EQUAL(probe_fstat(fd).st_mode & S_IFMT, S_IFREG);
    probe_pwrite(fd, "nameless", 8, 0);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK_OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    CHECK_EQUAL(probe_fstat(fd).st_nlink, 1);
    probe_pwrite(fd, " no more", 8, 8);
    CHECK_OK(close(fd));
    probe_file_expect("named", "nameless no more", 16);
    fd = (int)CHECK_OK(open(".", O_TMPFILE | O_WRONLY | O_EXCL, 0640));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK_ERRNO(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT);
    CHECK_OK(close(fd));
}

static void open_kinds(void)
{
    probe_file_write("file", "x", 1);
    CHECK_OK(mkdir("directory", 0755));
    CHECK_OK(symlink("file", "link"));
    CHECK_OK(symlink("loop", "loop"));
    CHECK_ERRNO(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERRNO(open("directory", O_WRONLY), EISDIR);
    CHECK_ERRNO(open("directory", O_RDONLY | O_TRUNC), EISDIR);
    CHECK_ERRNO(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK_ERRNO(open("loop", O_RDONLY), ELOOP);
    int fd = (int)CHECK_OK(open("directory", O_RDONLY | O_DIRECTORY));
    char byte;
    CHECK_ERRNO(read(fd, &byte, 1), EISDIR);
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("link", O_PATH | O_NOFOLLOW));
    CHECK(S_ISLNK(probe_fstat(fd).st_mode));
    CHECK_ERRNO(read(fd, &byte, 1), EBADF);
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_ERRNO(write(fd, "y", 1), EBADF);
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK_ERRNO(read(fd, &byte, 1), EBADF);
    CHECK_OK(close(fd));
}

/* Two thousand files open at once, each written and read through its own descriptor. */
static void open_many(void)
{
    enum { COUNT = 2000 };
    struct rlimit limit;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
    if (limit.rlim_max < COUNT + 100)
        probe_skip("the hard limit of open files is too low");
    limit.rlim_cur = limit.rlim_max;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
    int *files = probe_alloc(COUNT * sizeof(*files));
    char name[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "file-%04d", i);
        files[i] = (int)CHECK_OK(open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
        probe_pwrite(files[i], name, strlen(name), i);
    }
    for (int i = COUNT - 1; i >= 0; i--) {
        snprintf(name, sizeof(name), "file-%04d", i);
        probe_pread_expect(files[i], name, strlen(name), i);
        if (i > 0)
            probe_pread_expect_byte(files[i], 0, (size_t)i, 0);
        CHECK_OK(close(files[i]));
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "file-%04d", i);
        CHECK_EQUAL(probe_stat(name).st_size, i + (int)strlen(name));
    }
    free(files);
}

/* The same file open a few hundred times in different modes; every handle sees the same bytes. */
static void open_one_file_often(void)
{
    enum { COUNT = 300 };
    static const int modes[] = {O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_APPEND};
    int files[COUNT];
    probe_file_pattern("file", 50000, 7);
    for (int i = 0; i < COUNT; i++)
        files[i] = (int)CHECK_OK(open("file", modes[i % 4]));
    for (int i = 0; i < COUNT; i++) {
        unsigned char value = (unsigned char)i;
        if (i % 4 == 1 || i % 4 == 2)
            probe_pwrite(files[i], &value, 1, 777);
        int reader = files[i % 2 ? (i + 40) % COUNT / 4 * 4 : 1];
        if (i % 4 == 1 || i % 4 == 2)
            probe_pread_expect(reader, &value, 1, 777);
    }
    for (int i = 0; i < COUNT; i++)
        CHECK_OK(close(files[i]));
    CHECK_EQUAL(probe_stat("file").st_size, 50000);
}

const struct probe probes_open[] = {
    {"open-create", open_create},
    {"open-create-readonly-mode", open_create_readonly_mode},
    {"open-exclusive", open_exclusive},
    {"open-truncate", open_truncate},
    {"open-truncate-while-written", open_truncate_while_written},
    {"open-append", open_append},
    {"open-append-switched", open_append_switched},
    {"open-direct-aligned", open_direct_aligned},
    {"open-direct-tail", open_direct_tail},
    {"open-direct-unaligned", open_direct_unaligned},
    {"open-direct-mixed", open_direct_mixed},
    {"open-sync", open_sync},
    {"open-tmpfile", open_tmpfile},
    {"open-kinds", open_kinds},
    {"open-many", open_many},
    {"open-one-file-often", open_one_file_often},
    {NULL, NULL},
};
