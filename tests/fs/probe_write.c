/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of the bytes of a file: writes anywhere, holes, truncation, seeking, syncing, limits of the size. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#define KIB 1024
#define MIB (1024 * 1024)

/* Random writes and reads through one descriptor against a copy in memory, then again after closing. */
static void write_random(void)
{
    enum { SPACE = 2 * MIB, ROUNDS = 2000 };
    uint64_t state = 11;
    unsigned char *model = probe_alloc(SPACE);
    unsigned char *data = probe_alloc(64 * KIB);
    memset(model, 0, SPACE);
    size_t size = 0;
    int fd = (int)CHECK_OK(open("random", O_RDWR | O_CREAT, 0600));
    for (int round = 0; round < ROUNDS; round++) {
        size_t length = probe_random(&state) % (round % 5 ? 5000 : 64 * KIB) + 1;
        size_t offset = probe_random(&state) % (SPACE - length);
        if (round % 3) {
            probe_pattern_fill(data, length, offset, (unsigned)round);
            memcpy(model + offset, data, length);
            probe_pwrite(fd, data, length, (off_t)offset);
            size = size > offset + length ? size : offset + length;
        } else if (offset + length <= size) {
            probe_pread_expect(fd, model + offset, length, (off_t)offset);
        }
        CHECK_EQUAL(probe_fstat(fd).st_size, size);
    }
    probe_pread_expect(fd, model, size, 0);
    CHECK_OK(close(fd));
    probe_file_expect("random", model, size);
    free(data);
    free(model);
}

static void write_holes(void)
{
    int fd = (int)CHECK_OK(open("holes", O_RDWR | O_CREAT, 0600));
    probe_pwrite(fd, "end", 3, 5 * MIB + 17);
    probe_pwrite(fd, "middle", 6, MIB - 3);
    for (int pass = 0; pass < 2; pass++) {
        CHECK_EQUAL(probe_fstat(fd).st_size, 5 * MIB + 20);
        probe_pread_expect_byte(fd, 0, MIB - 3, 0);
        probe_pread_expect(fd, "middle", 6, MIB - 3);
        probe_pread_expect_byte(fd, 0, 4 * MIB + 14, MIB + 3);
        probe_pread_expect(fd, "end", 3, 5 * MIB + 17);
        CHECK_OK(close(fd));
        fd = (int)CHECK_OK(open("holes", O_RDONLY));
    }
    CHECK_OK(close(fd));
}

static void write_vector(void)
{
    char first[] = "one", second[] = "", third[] = "three";
    struct iovec vector[] = {{first, 3}, {second, 0}, {third, 5}};
    int fd = (int)CHECK_OK(open("vector", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(writev(fd, vector, 3), 8);
    CHECK_EQUAL(pwritev(fd, vector, 3, 20), 8);
    CHECK_EQUAL(pwritev2(fd, vector, 3, -1, 0), 8);
    CHECK_EQUAL(lseek(fd, 0, SEEK_CUR), 16);
    CHECK_EQUAL(pwritev2(fd, vector, 3, 0, RWF_APPEND), 8);
    probe_pread_expect(fd, "onethreeonethree\0\0\0\0onethreeonethree", 36, 0);
    char left[10], right[40];
    struct iovec into[] = {{left, 10}, {right, 40}};
    CHECK_EQUAL(preadv(fd, into, 2, 8), 28);
    CHECK(memcmp(left, "onethree\0\0", 10) == 0);
    CHECK(memcmp(right, "\0\0onethreeonethree", 18) == 0);
    CHECK_OK(close(fd));
}

static void write_nothing(void)
{
    int fd = (int)CHECK_OK(open("nothing", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(pwrite(fd, "", 0, 12345), 0);
    CHECK_EQUAL(probe_fstat(fd).st_size, 0);
    char byte;
    CHECK_EQUAL(read(fd, &byte, 1), 0);
    CHECK_EQUAL(pread(fd, &byte, 1, MIB), 0);
    CHECK_ERRNO(pread(fd, &byte, 1, -1), EINVAL);
    CHECK_ERRNO(pwrite(fd, "x", 1, -1), EINVAL);
    const void *nowhere = mmap(NULL, KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_ERRNO(write(fd, nowhere, 1), EFAULT);
    CHECK_EQUAL(probe_fstat(fd).st_size, 0);
    CHECK_OK(close(fd));
}

static void write_sendfile(void)
{
    probe_file_pattern("from", 300000, 12);
    int from = (int)CHECK_OK(open("from", O_RDONLY));
    int to = (int)CHECK_OK(open("to", O_RDWR | O_CREAT, 0600));
    off_t offset = 0;
    while (offset < 300000)
        CHECK(CHECK_OK(sendfile(to, from, &offset, (size_t)(300000 - offset))) > 0);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
    probe_file_expect_pattern("to", 300000, 12);
}

/* Shrinks and grows a file of this length through a descriptor and through the path: what comes back is
 * zeros. */
static void truncate_both_ways(size_t length, size_t cut)
{
    probe_file_pattern("file", length, 13);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    int other = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_OK(ftruncate(fd, (off_t)cut));
    CHECK_EQUAL(probe_fstat(other).st_size, cut);
    CHECK_OK(truncate("file", (off_t)length));
    CHECK_EQUAL(probe_fstat(fd).st_size, length);
    unsigned char *model = probe_alloc(length);
    memset(model, 0, length);
    probe_pattern_fill(model, cut, 0, 13);
    probe_pread_expect(other, model, length, 0);
    CHECK_OK(close(fd));
    CHECK_OK(close(other));
    probe_file_expect("file", model, length);
    CHECK_OK(truncate("file", (off_t)(cut / 2)));
    CHECK_OK(truncate("file", (off_t)(cut / 2)));
    CHECK_OK(truncate("file", (off_t)(length + 5000)));
    free(model);
    fd = (int)CHECK_OK(open("file", O_RDONLY));
    probe_pread_expect_byte(fd, 0, length + 5000 - cut / 2, (off_t)(cut / 2));
    CHECK_OK(close(fd));
}

static void truncate_sizes(void)
{
    static const size_t lengths[] = {10, 4096, 4097, 16384, 16385, 65536, 262144, 262145, MIB, 3 * MIB + 1};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        truncate_both_ways(lengths[i], 0);
        truncate_both_ways(lengths[i], lengths[i] / 2);
        truncate_both_ways(lengths[i], lengths[i] / 2 + 1);
        truncate_both_ways(lengths[i], lengths[i] - 1);
    }
}

/* truncate(2) of closed files, and back under and over the inline limit. */
static void truncate_closed(void)
{
    probe_file_pattern("file", 40000, 14);
    CHECK_OK(truncate("file", 16000));
    probe_file_expect_pattern("file", 16000, 14);
    CHECK_OK(truncate("file", 0));
    probe_file_expect("file", "", 0);
    CHECK_OK(truncate("file", 20000));
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    probe_pread_expect_byte(fd, 0, 20000, 0);
    CHECK_OK(close(fd));
}

static void truncate_errors(void)
{
    probe_file_write("file", "0123456789", 10);
    CHECK_OK(mkdir("directory", 0700));
    CHECK_ERRNO(truncate("directory", 0), EISDIR);
    CHECK_ERRNO(truncate("missing", 0), ENOENT);
    CHECK_ERRNO(truncate("file/below", 0), ENOTDIR);
    CHECK_ERRNO(truncate("file", -1), EINVAL);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_ERRNO(ftruncate(fd, 5), EINVAL);
    CHECK_OK(close(fd));
    probe_file_expect("file", "0123456789", 10);
}

/* A writer that goes on at its offset after somebody else cut the file leaves a hole. */
static void truncate_under_writer(void)
{
    int fd = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(write(fd, "0123456789", 10), 10);
    CHECK_OK(truncate("file", 2));
    CHECK_EQUAL(write(fd, "ab", 2), 2);
    probe_pread_expect(fd, "01\0\0\0\0\0\0\0\0ab", 12, 0);
    CHECK_OK(close(fd));
    probe_file_expect("file", "01\0\0\0\0\0\0\0\0ab", 12);
}

/*
 * What must hold for every filesystem: no data in what it calls a hole, and the end of the file is a hole.
 * Between two looks the kernel may let a writer go that was closed before, whose file was called all data
 * until then.
 */
static void seek_check_consistent(int fd, off_t size)
{
    off_t position = 0;
    bool released = false;
    while (position < size) {
        off_t data = lseek(fd, position, SEEK_DATA);
        if (data < 0) {
            CHECK_EQUAL(errno, ENXIO);
            data = size;
        }
        CHECK(data >= position && data <= size);
        if (data > position)
            probe_pread_expect_byte(fd, 0, (size_t)(data - position), position);
        if (data == size)
            return;
        off_t hole = CHECK_OK(lseek(fd, data, SEEK_HOLE));
        CHECK(hole >= data && hole <= size);
        CHECK(hole > data || !released);
        released |= hole == data;
        position = hole;
    }
}

/* Data at 0 and at 4 MiB of 8 MiB, and nothing else. */
static void seek_check_exact(int fd)
{
    CHECK_EQUAL(lseek(fd, 0, SEEK_DATA), 0);
    CHECK_EQUAL(lseek(fd, 0, SEEK_HOLE), MIB);
    CHECK_EQUAL(lseek(fd, MIB, SEEK_DATA), 4 * MIB);
    CHECK_EQUAL(lseek(fd, 2 * MIB + 5, SEEK_HOLE), 2 * MIB + 5);
    CHECK_EQUAL(lseek(fd, 4 * MIB + 5, SEEK_DATA), 4 * MIB + 5);
    CHECK_EQUAL(lseek(fd, 4 * MIB, SEEK_HOLE), 5 * MIB);
    CHECK_ERRNO(lseek(fd, 5 * MIB, SEEK_DATA), ENXIO);
}

/*
 * The holes of a file are found when it is opened again. While somebody may store into it through a mapping,
 * a filesystem may call all of it data: the stores are not seen before they are written back.
 */
static void seek_data_hole(void)
{
    unsigned char *data = probe_alloc(MIB);
    probe_pattern_fill(data, MIB, 0, 15);
    int fd = (int)CHECK_OK(open("sparse", O_RDWR | O_CREAT, 0600));
    probe_pwrite(fd, data, MIB, 0);
    probe_pwrite(fd, data, MIB, 4 * MIB);
    CHECK_OK(ftruncate(fd, 8 * MIB));
    CHECK_OK(fsync(fd));
    for (int pass = 0; pass < 2; pass++) {
        seek_check_consistent(fd, 8 * MIB);
        if (pass == 1)
            probe_await_hole(fd, 8 * MIB);
        if (pass == 1 || lseek(fd, 0, SEEK_HOLE) != 8 * MIB)
            seek_check_exact(fd);
        CHECK_ERRNO(lseek(fd, 8 * MIB, SEEK_DATA), ENXIO);
        CHECK_ERRNO(lseek(fd, 8 * MIB, SEEK_HOLE), ENXIO);
        CHECK_OK(close(fd));
        fd = (int)CHECK_OK(open("sparse", O_RDONLY));
    }
    CHECK_OK(close(fd));
    free(data);
}

/* What was stored through a mapping and not yet written back is no hole. */
static void seek_mapped(void)
{
    enum { SIZE = 4 * MIB };
    int fd = (int)CHECK_OK(open("sparse", O_RDWR | O_CREAT, 0600));
    CHECK_OK(ftruncate(fd, SIZE));
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    CHECK_OK(close(fd));
    memset(map + MIB, 'm', 10000);
    fd = (int)CHECK_OK(open("sparse", O_RDONLY));
    CHECK(CHECK_OK(lseek(fd, 0, SEEK_DATA)) <= MIB);
    CHECK(CHECK_OK(lseek(fd, MIB, SEEK_HOLE)) >= MIB + 10000);
    seek_check_consistent(fd, SIZE);
    CHECK_OK(munmap(map, SIZE));
    seek_check_consistent(fd, SIZE);
    CHECK_OK(close(fd));
}

/* Small files live elsewhere: seeking in them keeps the same promises. */
static void seek_small(void)
{
    for (int length = 1; length < 20000; length += 4999) {
        probe_file_pattern("small", (size_t)length, 16);
        int fd = (int)CHECK_OK(open("small", O_RDWR));
        seek_check_consistent(fd, length);
        CHECK_EQUAL(lseek(fd, 0, SEEK_DATA), 0);
        CHECK_EQUAL(lseek(fd, 0, SEEK_HOLE), length);
        CHECK_ERRNO(lseek(fd, length, SEEK_DATA), ENXIO);
        CHECK_EQUAL(lseek(fd, -1, SEEK_END), length - 1);
        CHECK_EQUAL(lseek(fd, 5, SEEK_END), length + 5);
        CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
        CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
        CHECK_OK(close(fd));
    }
}

static void sync_everything(void)
{
    probe_file_pattern("file", 100000, 17);
    CHECK_OK(mkdir("directory", 0700));
    static const char *const names[] = {"file", "directory", "."};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int fd = (int)CHECK_OK(open(names[i], O_RDONLY));
        CHECK_OK(fsync(fd));
        CHECK_OK(fdatasync(fd));
        CHECK_OK(syncfs(fd));
        CHECK_OK(close(fd));
    }
    int fd = (int)CHECK_OK(open("file", O_WRONLY));
    for (int i = 0; i < 20; i++) {
        probe_pwrite(fd, "sync", 4, i * 5000);
        CHECK_OK(i % 2 ? fdatasync(fd) : fsync(fd));
    }
    CHECK_OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
    CHECK_OK(unlink("file"));
    CHECK_OK(fsync(fd));
    CHECK_OK(close(fd));
}

/* The limit of the process: a write is cut at it, the next one fails with EFBIG, and so does growing. */
static void limit_of_process(void)
{
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    struct rlimit limit = {.rlim_cur = 100000, .rlim_max = 100000};
    CHECK_OK(setrlimit(RLIMIT_FSIZE, &limit));
    char *data = probe_alloc(60000);
    memset(data, 'l', 60000);
    int fd = (int)CHECK_OK(open("limited", O_RDWR | O_CREAT, 0600));
    CHECK_EQUAL(pwrite(fd, data, 60000, 0), 60000);
    CHECK_EQUAL(pwrite(fd, data, 60000, 60000), 40000);
    CHECK_ERRNO(pwrite(fd, data, 1, 100000), EFBIG);
    CHECK_ERRNO(pwrite(fd, data, 1, 500000), EFBIG);
    CHECK_ERRNO(ftruncate(fd, 100001), EFBIG);
    CHECK_ERRNO(truncate("limited", 100001), EFBIG);
    CHECK_ERRNO(fallocate(fd, 0, 99999, 2), EFBIG);
    CHECK_EQUAL(probe_fstat(fd).st_size, 100000);
    probe_pread_expect_byte(fd, 'l', 100000, 0);
    CHECK_OK(close(fd));
    free(data);
}

/* A call that reaches for a size that few disks have: it works, or fails with EFBIG or ENOSPC. */
static void limit_check(long result)
{
    if (result < 0)
        CHECK(errno == EFBIG || errno == ENOSPC);
}

/* Sizes beyond the disk's limit are refused and change nothing; what the disk can do is done. */
static void limit_of_disk(void)
{
    probe_file_write("file", "small", 5);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    limit_check(ftruncate(fd, LLONG_MAX));
    limit_check(truncate("file", LLONG_MAX));
    CHECK_OK(ftruncate(fd, 5));
    limit_check(pwrite(fd, "x", 1, 1LL << 62));
    CHECK_OK(ftruncate(fd, 5));
    limit_check(fallocate(fd, 0, 1LL << 62, 4096));
    CHECK_OK(ftruncate(fd, 5));
    CHECK_OK(close(fd));
    probe_file_expect("file", "small", 5);
}

/* 300 MiB in the 1 MiB writes of a trainer, read back by read, by mmap and after opening again. */
static void write_big(void)
{
    enum { CHUNKS = 300 };
    char *data = probe_alloc(MIB);
    int fd = (int)CHECK_OK(open("big", O_RDWR | O_CREAT, 0600));
    CHECK_OK(ftruncate(fd, (off_t)CHUNKS * MIB));
    for (int i = 0; i < CHUNKS; i++) {
        off_t offset = (off_t)(i * 7 % CHUNKS) * MIB;
        probe_pattern_fill(data, MIB, (uint64_t)offset, 18);
        probe_pwrite(fd, data, MIB, offset);
    }
    for (int pass = 0; pass < 2; pass++) {
        for (off_t offset = 0; offset < (off_t)CHUNKS * MIB; offset += MIB) {
            CHECK_EQUAL(pread(fd, data, MIB, offset), MIB);
            CHECK(probe_pattern_matches(data, MIB, (uint64_t)offset, 18));
        }
        CHECK_OK(close(fd));
        fd = (int)CHECK_OK(open("big", O_RDONLY));
    }
    CHECK_EQUAL(probe_fstat(fd).st_size, (off_t)CHUNKS * MIB);
    CHECK_OK(close(fd));
    free(data);
}

const struct probe probes_write[] = {
    {"write-random", write_random},
    {"write-holes", write_holes},
    {"write-vector", write_vector},
    {"write-nothing", write_nothing},
    {"write-sendfile", write_sendfile},
    {"write-big", write_big},
    {"truncate-sizes", truncate_sizes},
    {"truncate-closed", truncate_closed},
    {"truncate-errors", truncate_errors},
    {"truncate-under-writer", truncate_under_writer},
    {"seek-data-hole", seek_data_hole},
    {"seek-mapped", seek_mapped},
    {"seek-small", seek_small},
    {"sync-everything", sync_everything},
    {"limit-of-process", limit_of_process},
    {"limit-of-disk", limit_of_disk},
    {NULL, NULL},
};
