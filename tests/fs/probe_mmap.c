/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of mmap(2): coherent with read and write, alive after close, bounded by the end of the file. */
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

#define PAGE 4096

static const size_t lengths[] = {100, PAGE, 16384, 16385, 100000, 3000000};

#define LENGTH_COUNT (sizeof(lengths) / sizeof(lengths[0]))

static void mmap_read(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        probe_file_pattern("file", lengths[i], 1);
        int fd = (int)CHECK_OK(open("file", O_RDONLY));
        char *shared = probe_map(fd, lengths[i], PROT_READ, MAP_SHARED);
        char *private = probe_map(fd, lengths[i], PROT_READ, MAP_PRIVATE);
        CHECK_OK(close(fd));
        CHECK(probe_pattern_matches(shared, lengths[i], 0, 1));
        CHECK(probe_pattern_matches(private, lengths[i], 0, 1));
        size_t tail = (PAGE - lengths[i] % PAGE) % PAGE;
        for (size_t j = 0; j < tail; j++)
            CHECK_EQUAL(shared[lengths[i] + j], 0);
        CHECK_OK(munmap(shared, lengths[i]));
        CHECK_OK(munmap(private, lengths[i]));
    }
}

/* Stores are seen by read(2) of every descriptor at once, and are in the file after everything is closed. */
static void mmap_shared_write(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        size_t length = lengths[i];
        probe_file_pattern("file", length, 2);
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        char *map = probe_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        probe_pattern_fill(map, length, 0, 3);
        char *expected = probe_alloc(length);
        probe_pattern_fill(expected, length, 0, 3);
        probe_pread_expect(fd, expected, length, 0);
        probe_pread_expect(reader, expected, length, 0);
        memset(map, 'm', length / 2);
        memset(expected, 'm', length / 2);
        CHECK_OK(msync(map, length, MS_SYNC));
        CHECK_OK(close(reader));
        CHECK_OK(munmap(map, length));
        CHECK_OK(close(fd));
        probe_file_expect("file", expected, length);
        free(expected);
    }
}

/* write(2) is seen through a mapping that was there before. */
static void mmap_sees_writes(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        size_t length = lengths[i];
        probe_file_pattern("file", length, 4);
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        char *map = probe_map(reader, length, PROT_READ, MAP_SHARED);
        CHECK(probe_pattern_matches(map, length, 0, 4));
        static const int modes[] = {O_RDWR, O_WRONLY};
        for (size_t j = 0; j < 2; j++) {
            int writer = (int)CHECK_OK(open("file", modes[j]));
            char value[3] = {'a', 'b', (char)('c' + j)};
            probe_pwrite(writer, value, 3, (off_t)length - 3);
            CHECK(memcmp(map + length - 3, value, 3) == 0);
            CHECK_OK(close(writer));
            CHECK(memcmp(map + length - 3, value, 3) == 0);
        }
        CHECK_OK(close(reader));
        CHECK_OK(munmap(map, length));
    }
}

static void mmap_private_write(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        probe_file_pattern("file", lengths[i], 5);
        int fd = (int)CHECK_OK(open("file", O_RDONLY));
        char *map = probe_map(fd, lengths[i], PROT_READ | PROT_WRITE, MAP_PRIVATE);
        memset(map, 'p', lengths[i]);
        CHECK_OK(close(fd));
        probe_file_expect_pattern("file", lengths[i], 5);
        CHECK_EQUAL(map[lengths[i] - 1], 'p');
        CHECK_OK(munmap(map, lengths[i]));
    }
}

/* The mapping is all that is left of the file: it goes on, and what is stored arrives. */
static void mmap_after_close(void)
{
    for (size_t i = 0; i < LENGTH_COUNT; i++) {
        size_t length = lengths[i];
        probe_file_pattern("file", length, 6);
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        char *map = probe_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        CHECK_OK(close(fd));
        CHECK(probe_pattern_matches(map, length, 0, 6));
        map[0] = 'A';
        map[length - 1] = 'Z';
        char *expected = probe_alloc(length);
        probe_pattern_fill(expected, length, 0, 6);
        expected[0] = 'A';
        expected[length - 1] = 'Z';
        probe_file_expect("file", expected, length);
        map[length / 2] = expected[length / 2] = 'M';
        CHECK_OK(msync(map, length, MS_ASYNC));
        CHECK_OK(munmap(map, length));
        probe_file_expect("file", expected, length);
        free(expected);
    }
}

static void mmap_unlinked(void)
{
    probe_file_pattern("file", 100000, 7);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    char *map = probe_map(fd, 100000, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK_OK(unlink("file"));
    map[50000] = 'u';
    CHECK_OK(close(fd));
    CHECK_EQUAL(map[50000], 'u');
    map[50001] = 'v';
    CHECK(probe_pattern_matches(map, 50000, 0, 7));
    CHECK_OK(munmap(map, 100000));
    CHECK(!probe_exists("file"));
}

static sigjmp_buf bus_error;

static void handle_bus_error(int signal_number)
{
    siglongjmp(bus_error, signal_number);
}

/* Whether touching this byte gives SIGBUS. */
static bool touch_fails(volatile char *address)
{
    struct sigaction action = {.sa_handler = handle_bus_error}, previous;
    CHECK_OK(sigaction(SIGBUS, &action, &previous));
    bool failed = sigsetjmp(bus_error, 1) != 0;
    if (!failed)
        (void)*address;
    CHECK_OK(sigaction(SIGBUS, &previous, NULL));
    return failed;
}

static void mmap_end_of_file(void)
{
    probe_file_pattern("file", 2 * PAGE + 100, 8);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    char *map = probe_map(fd, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK(!touch_fails(map + 3 * PAGE - 1));
    CHECK(touch_fails(map + 3 * PAGE));
    CHECK_OK(ftruncate(fd, 20 * PAGE));
    CHECK(!touch_fails(map + 3 * PAGE));
    CHECK_EQUAL(map[20 * PAGE - 1], 0);
    map[10 * PAGE] = 'x';
    CHECK_OK(truncate("file", PAGE));
    CHECK(touch_fails(map + PAGE));
    CHECK(touch_fails(map + 10 * PAGE));
    CHECK(probe_pattern_matches(map, PAGE, 0, 8));
    CHECK_OK(ftruncate(fd, 20 * PAGE));
    CHECK_EQUAL(map[10 * PAGE], 0);
    CHECK_OK(munmap(map, 100 * PAGE));
    CHECK_OK(close(fd));
}

static void mmap_refusals(void)
{
    probe_file_pattern("file", PAGE, 9);
    int reader = (int)CHECK_OK(open("file", O_RDONLY));
    int writer = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED && errno == EACCES);
    CHECK(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, writer, 0) == MAP_FAILED && errno == EACCES);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0) == MAP_FAILED && errno == EACCES);
    CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 1) == MAP_FAILED && errno == EINVAL);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_SHARED, reader, 0) == MAP_FAILED && errno == EINVAL);
    CHECK_OK(close(reader));
    CHECK_OK(close(writer));
}

struct sharing {
    struct probe_gate stored;
    struct probe_gate seen;
};

/* Another process, with an open and a mapping of its own, sees stores as they come. */
static void sharing_child(void *argument)
{
    struct sharing *sharing = argument;
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    volatile unsigned *map = probe_map(fd, PAGE * 10, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK_OK(close(fd));
    for (unsigned i = 1; i <= 100; i++) {
        probe_gate_wait(&sharing->stored);
        CHECK_EQUAL(map[i * 100], i);
        map[i * 100 + 1] = i + 1000;
        probe_gate_open(&sharing->seen);
    }
}

static void mmap_two_processes(void)
{
    struct sharing sharing = {.stored = probe_gate_make(), .seen = probe_gate_make()};
    probe_file_pattern("file", PAGE * 10, 10);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    volatile unsigned *map = probe_map(fd, PAGE * 10, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK_OK(ftruncate(fd, PAGE * 12));
    pid_t child = probe_child_start(sharing_child, &sharing);
    for (unsigned i = 1; i <= 100; i++) {
        map[i * 100] = i;
        probe_gate_open(&sharing.stored);
        probe_gate_wait(&sharing.seen);
        CHECK_EQUAL(map[i * 100 + 1], i + 1000);
        unsigned found;
        CHECK_EQUAL(pread(fd, &found, sizeof(found), (i * 100 + 1) * sizeof(found)), sizeof(found));
        CHECK_EQUAL(found, i + 1000);
    }
    probe_child_join(child);
    CHECK_OK(close(fd));
}

/* numpy.memmap with mode "w+": a sparse file that is filled through the mapping. */
static void mmap_fill_sparse(void)
{
    enum { SIZE = 20 * 1000 * 1000 };
    int fd = (int)CHECK_OK(open("array", O_RDWR | O_CREAT, 0600));
    CHECK_OK(ftruncate(fd, SIZE));
    char *map = probe_map(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK_OK(close(fd));
    for (size_t i = 0; i < SIZE; i += 1000000)
        probe_pattern_fill(map + i, 500000, i, 11);
    CHECK_OK(msync(map, SIZE, MS_SYNC));
    CHECK_OK(munmap(map, SIZE));
    fd = (int)CHECK_OK(open("array", O_RDONLY));
    char *expected = probe_alloc(500000);
    for (size_t i = 0; i < SIZE; i += 1000000) {
        probe_pattern_fill(expected, 500000, i, 11);
        probe_pread_expect(fd, expected, 500000, (off_t)i);
        probe_pread_expect_byte(fd, 0, 500000, (off_t)i + 500000);
    }
    free(expected);
    CHECK_OK(close(fd));
}

/* A mapping for reading stays while the file is written, closed, appended to and opened again by others. */
static void mmap_while_reopened(void)
{
    probe_file_pattern("file", 50000, 12);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    char *map = probe_map(fd, 50000, PROT_READ, MAP_SHARED);
    CHECK_OK(close(fd));
    for (int i = 0; i < 20; i++) {
        char value = (char)('a' + i);
        fd = (int)CHECK_OK(open("file", i % 2 ? O_RDWR : O_WRONLY | O_APPEND));
        CHECK_EQUAL(write(fd, &value, 1), 1);
        CHECK_OK(close(fd));
        CHECK_EQUAL(map[0], i == 0 ? map[0] : 'a' + (i % 2 ? i : i - 1));
        CHECK(probe_pattern_matches(map + 1, 49999, 1, 12));
    }
    CHECK_EQUAL(probe_stat("file").st_size, 50010);
    CHECK_OK(munmap(map, 50000));
}

/* What may happen to a file of which only a mapping is left; the mapping follows, up to the end of the file.
 */
static void change_behind_mapping(int how, size_t length, bool settles)
{
    char *data = probe_alloc(length);
    memset(data, 'n', length);
    if (how == 1)
        CHECK_OK(truncate("file", 0));
    if (how == 2)
        CHECK_OK(truncate("file", 100));
    /* An empty file keeps its object as long as it is mapped: there is nothing to seal. */
    if (how == 2 && settles)
        probe_file_settle("file");
    int fd = (int)CHECK_OK(open("file", how == 0 ? O_WRONLY | O_CREAT | O_TRUNC : O_RDWR, 0644));
    probe_pwrite(fd, data, length, 0);
    CHECK_OK(close(fd));
    free(data);
}

/* The file is settled, mapped, closed, and then cut and written by others: all look at the same bytes. */
static void mmap_settled(void)
{
    static const size_t sizes[] = {3000, 200000};
    for (size_t i = 0; i < 6; i++) {
        size_t length = sizes[i % 2];
        probe_file_pattern("file", length, 13);
        probe_file_settle("file");
        int fd = (int)CHECK_OK(open("file", O_RDWR));
        char *map = probe_map(fd, length, PROT_READ | PROT_WRITE, MAP_SHARED);
        CHECK_OK(close(fd));
        CHECK(probe_pattern_matches(map, length, 0, 13));
        change_behind_mapping((int)i / 2, length, false);
        CHECK_EQUAL(map[0], 'n');
        CHECK_EQUAL(map[length - 1], 'n');
        map[length / 2] = 'M';
        fd = (int)CHECK_OK(open("file", O_RDONLY));
        probe_pread_expect(fd, "nMn", 3, (off_t)length / 2 - 1);
        CHECK_OK(close(fd));
        CHECK_OK(munmap(map, length));
        fd = (int)CHECK_OK(open("file", O_RDONLY));
        probe_pread_expect(fd, "nMn", 3, (off_t)length / 2 - 1);
        CHECK_OK(close(fd));
    }
}

/* The same with a mapping for reading only, which lets the file be sealed while it lives. */
static void mmap_settled_reader(void)
{
    static const size_t sizes[] = {3000, 200000};
    for (size_t i = 0; i < 6; i++) {
        size_t length = sizes[i % 2];
        probe_file_pattern("file", length, 14);
        probe_file_settle("file");
        int fd = (int)CHECK_OK(open("file", O_RDONLY));
        char *map = probe_map(fd, length, PROT_READ, MAP_SHARED);
        CHECK_OK(close(fd));
        CHECK(probe_pattern_matches(map, length, 0, 14));
        probe_file_settle("file");
        change_behind_mapping((int)i / 2, length, true);
        for (size_t j = 0; j < length; j++)
            CHECK_EQUAL(map[j], 'n');
        CHECK_OK(munmap(map, length));
    }
}

const struct probe probes_mmap[] = {
    {"mmap-read", mmap_read},
    {"mmap-shared-write", mmap_shared_write},
    {"mmap-sees-writes", mmap_sees_writes},
    {"mmap-private-write", mmap_private_write},
    {"mmap-after-close", mmap_after_close},
    {"mmap-unlinked", mmap_unlinked},
    {"mmap-end-of-file", mmap_end_of_file},
    {"mmap-refusals", mmap_refusals},
    {"mmap-two-processes", mmap_two_processes},
    {"mmap-fill-sparse", mmap_fill_sparse},
    {"mmap-while-reopened", mmap_while_reopened},
    {"mmap-settled", mmap_settled},
    {"mmap-settled-reader", mmap_settled_reader},
    {NULL, NULL},
};
