/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of processes that work against each other: what one of them sees is old or new, never something
 * else. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 200000 };

/* What a parent shares with its children: they run until told to end. */
struct shared {
    volatile int end;
    volatile int rounds;
};

static struct shared *shared_make(void)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    return shared;
}

/* Ends the children and looks whether they were at work at all. */
static void shared_finish(struct shared *shared, pid_t first, pid_t second)
{
    double deadline = probe_now() + 30;
    while (shared->rounds < 2)
        CHECK(probe_now() < deadline);
    shared->end = 1;
    probe_child_join(first);
    probe_child_join(second);
    CHECK_OK(munmap(shared, sizeof(*shared)));
}

/* Every byte is the pattern or zero: the file is cut and grown meanwhile. */
static void read_pattern_or_zero(void *argument)
{
    struct shared *shared = argument;
    unsigned char *found = probe_alloc(SIZE), *pattern = probe_alloc(SIZE);
    probe_pattern_fill(pattern, SIZE, 0, 1);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    while (!shared->end) {
        long count = CHECK_OK(pread(fd, found, SIZE, 0));
        for (long i = 0; i < count; i++)
            if (found[i] != 0 && found[i] != pattern[i])
                probe_fail(__FILE__, __LINE__, 0, "byte %ld of %ld is %02x: neither 0 nor %02x", i, count,
                           found[i], pattern[i]);
        CHECK_EQUAL(probe_fstat(fd).st_ino, probe_stat("file").st_ino);
        shared->rounds++;
    }
    free(found);
    free(pattern);
}

static void race_truncate_readers(void)
{
    struct shared *shared = shared_make();
    probe_file_pattern("file", SIZE, 1);
    pid_t first = probe_child_start(read_pattern_or_zero, shared);
    pid_t second = probe_child_start(read_pattern_or_zero, shared);
    char *pattern = probe_alloc(SIZE);
    probe_pattern_fill(pattern, SIZE, 0, 1);
    uint64_t state = 5;
    for (int i = 0; i < 300; i++) {
        CHECK_OK(truncate("file", probe_random(&state) % SIZE));
        CHECK_OK(truncate("file", SIZE));
        int fd = (int)CHECK_OK(open("file", O_WRONLY));
        probe_pwrite(fd, pattern, SIZE, 0);
        CHECK_OK(close(fd));
    }
    shared_finish(shared, first, second);
    probe_file_expect_pattern("file", SIZE, 1);
    free(pattern);
}

/* Whatever is read is one of the two versions as a whole: a rename replaces all at once. */
static void read_one_version(void *argument)
{
    struct shared *shared = argument;
    unsigned char *found = probe_alloc(SIZE), *pattern = probe_alloc(SIZE);
    while (!shared->end) {
        int fd = (int)CHECK_OK(open("file", O_RDONLY));
        CHECK_EQUAL(probe_fstat(fd).st_size, SIZE);
        CHECK_EQUAL(pread(fd, found, SIZE, 0), SIZE);
        probe_pattern_fill(pattern, 8, 0, 1);
        unsigned version = memcmp(found, pattern, 8) == 0 ? 1 : 2;
        CHECK(probe_pattern_matches(found, SIZE, 0, version));
        CHECK_OK(close(fd));
        shared->rounds++;
    }
    free(found);
    free(pattern);
}

static void race_rename_over(void)
{
    struct shared *shared = shared_make();
    probe_file_pattern("file", SIZE, 1);
    pid_t first = probe_child_start(read_one_version, shared);
    pid_t second = probe_child_start(read_one_version, shared);
    for (unsigned i = 0; i < 300; i++) {
        probe_file_pattern("temporary", SIZE, 1 + i % 2);
        CHECK_OK(rename("temporary", "file"));
    }
    shared_finish(shared, first, second);
}

static void open_and_read(void *argument)
{
    struct shared *shared = argument;
    char found[64];
    while (!shared->end) {
        int fd = open("file", O_RDONLY);
        shared->rounds++;
        if (fd < 0) {
            CHECK_EQUAL(errno, ENOENT);
            continue;
        }
        long count = CHECK_OK(read(fd, found, sizeof(found)));
        CHECK(count == 0 || (count == 5 && memcmp(found, "bytes", 5) == 0));
        CHECK(probe_fstat(fd).st_nlink <= 1);
        CHECK_OK(close(fd));
    }
}

static void race_unlink_open(void)
{
    struct shared *shared = shared_make();
    pid_t first = probe_child_start(open_and_read, shared);
    pid_t second = probe_child_start(open_and_read, shared);
    for (int i = 0; i < 1000; i++) {
        probe_file_write("file", "bytes", 5);
        CHECK_OK(unlink("file"));
    }
    shared_finish(shared, first, second);
}

static sigjmp_buf bus_error;

static void handle_bus_error(int signal_number)
{
    siglongjmp(bus_error, signal_number);
}

/* A mapped reader: old bytes, new bytes or zeros in a page, or SIGBUS while the file is short. */
static void watch_mapping(void *argument)
{
    struct shared *shared = argument;
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    const volatile char *map = probe_map(fd, SIZE, PROT_READ, MAP_SHARED);
    CHECK_OK(close(fd));
    struct sigaction action = {.sa_handler = handle_bus_error, .sa_flags = SA_NODEFER};
    CHECK_OK(sigaction(SIGBUS, &action, NULL));
    volatile size_t position = 0;
    while (!shared->end) {
        if (sigsetjmp(bus_error, 1) == 0) {
            for (; position < SIZE; position += 509) {
                char value = map[position];
                CHECK(value == 'a' || value == 'b' || value == 0);
            }
        }
        position = (position + 509) % SIZE;
        shared->rounds++;
    }
}

/* The file is rewritten in place, as torch.save does with an existing name, while two processes have it
 * mapped. */
static void race_rewrite_mapped(void)
{
    struct shared *shared = shared_make();
    char *data = probe_alloc(SIZE);
    memset(data, 'a', SIZE);
    probe_file_write("file", data, SIZE);
    pid_t first = probe_child_start(watch_mapping, shared);
    pid_t second = probe_child_start(watch_mapping, shared);
    for (int i = 0; i < 200; i++) {
        memset(data, i % 2 ? 'a' : 'b', SIZE);
        int fd = (int)CHECK_OK(open("file", i % 3 ? O_WRONLY | O_CREAT | O_TRUNC : O_RDWR, 0600));
        probe_pwrite(fd, data, SIZE, 0);
        CHECK_OK(close(fd));
    }
    shared_finish(shared, first, second);
    probe_file_expect("file", data, SIZE);
    free(data);
}

/* A mapping that was there before the rewrite shows the new bytes after it. No other file has these bytes:
 * what files share is not rewritten in place. */
static void race_rewrite_seen(void)
{
    probe_file_pattern("file", SIZE, 101);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    char *shared = probe_map(fd, SIZE, PROT_READ, MAP_SHARED);
    char *private = probe_map(fd, SIZE, PROT_READ, MAP_PRIVATE);
    CHECK_OK(close(fd));
    CHECK(probe_pattern_matches(shared, SIZE, 0, 101));
    probe_file_pattern("file", SIZE, 102);
    CHECK(probe_pattern_matches(shared, SIZE, 0, 102));
    CHECK(probe_pattern_matches(private, SIZE, 0, 102));
    CHECK_OK(munmap(shared, SIZE));
    CHECK_OK(munmap(private, SIZE));
}

static void list_directory(void *argument)
{
    struct shared *shared = argument;
    while (!shared->end) {
        int fd = (int)CHECK_OK(open("directory", O_RDONLY | O_DIRECTORY));
        CHECK(faccessat(fd, "always", F_OK, 0) == 0);
        CHECK_OK(close(fd));
        shared->rounds++;
    }
}

/* Renames around a file that stays: it is found all the time. */
static void race_rename_neighbours(void)
{
    struct shared *shared = shared_make();
    CHECK_OK(mkdir("directory", 0700));
    CHECK_OK(mkdir("other", 0700));
    probe_file_write("directory/always", "x", 1);
    probe_file_write("directory/a", "x", 1);
    pid_t first = probe_child_start(list_directory, shared);
    pid_t second = probe_child_start(list_directory, shared);
    for (int i = 0; i < 500; i++) {
        CHECK_OK(rename("directory/a", "other/b"));
        CHECK_OK(rename("other/b", "directory/c"));
        CHECK_OK(rename("directory/c", "directory/a"));
    }
    shared_finish(shared, first, second);
}

const struct probe probes_race[] = {
    {"race-truncate-readers", race_truncate_readers},
    {"race-rename-over", race_rename_over},
    {"race-unlink-open", race_unlink_open},
    {"race-rewrite-mapped", race_rewrite_mapped},
    {"race-rewrite-seen", race_rewrite_seen},
    {"race-rename-neighbours", race_rename_neighbours},
    {NULL, NULL},
};
