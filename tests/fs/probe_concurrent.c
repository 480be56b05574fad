/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of several processes that work on the same file, each on its own part. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROCESSES = 4, RECORD = 100, RECORDS = 2000 };

struct task {
    int number;
};

static void run_all(void (*function)(void *argument))
{
    pid_t children[PROCESSES];
    struct task tasks[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        tasks[i].number = i;
        children[i] = probe_child_start(function, &tasks[i]);
    }
    for (int i = 0; i < PROCESSES; i++)
        probe_child_join(children[i]);
}

static void record_make(char *record, int process, int number)
{
    memset(record, 'a' + process, RECORD);
    snprintf(record, RECORD, "%d %08d ", process, number);
    record[11] = ' ';
    record[RECORD - 1] = '\n';
}

/* All records of all processes are in the file, whole, and those of one process in their order. */
static void records_verify(const char *name, int records)
{
    int next[PROCESSES] = {0};
    char record[RECORD], expected[RECORD];
    CHECK_EQUAL(probe_stat(name).st_size, (long long)PROCESSES * records * RECORD);
    int fd = (int)CHECK_OK(open(name, O_RDONLY));
    for (int i = 0; i < PROCESSES * records; i++) {
        CHECK_EQUAL(read(fd, record, RECORD), RECORD);
        int process = record[0] - '0';
        CHECK(process >= 0 && process < PROCESSES);
        record_make(expected, process, next[process]++);
        CHECK(memcmp(record, expected, RECORD) == 0);
    }
    CHECK_OK(close(fd));
}

static void append_records(void *argument)
{
    const struct task *task = argument;
    char record[RECORD];
    int fd = (int)CHECK_OK(open("log", O_WRONLY | O_APPEND | O_CREAT, 0600));
    for (int i = 0; i < RECORDS; i++) {
        record_make(record, task->number, i);
        CHECK_EQUAL(write(fd, record, RECORD), RECORD);
    }
    CHECK_OK(close(fd));
}

static void concurrent_append(void)
{
    run_all(append_records);
    records_verify("log", RECORDS);
}

static void append_reopening(void *argument)
{
    const struct task *task = argument;
    char record[RECORD];
    for (int i = 0; i < RECORDS / 10; i++) {
        int fd = (int)CHECK_OK(open("log", O_WRONLY | O_APPEND | O_CREAT, 0600));
        record_make(record, task->number, i);
        CHECK_EQUAL(write(fd, record, RECORD), RECORD);
        CHECK_OK(close(fd));
    }
}

static void concurrent_append_reopening(void)
{
    run_all(append_reopening);
    records_verify("log", RECORDS / 10);
}

enum { STRIPE = 40961, STRIPES = 25 };

static void write_stripes(void *argument)
{
    const struct task *task = argument;
    char *data = probe_alloc(STRIPE);
    int fd = (int)CHECK_OK(open("striped", O_RDWR));
    for (int i = STRIPES - 1; i >= 0; i--) {
        off_t offset = (off_t)(i * PROCESSES + task->number) * STRIPE;
        probe_pattern_fill(data, STRIPE, (uint64_t)offset, 1);
        probe_pwrite(fd, data, STRIPE, offset);
        probe_pread_expect(fd, data, STRIPE, offset);
    }
    CHECK_OK(close(fd));
    free(data);
}

/* Each process writes every fourth stripe; borders lie inside of pages. */
static void concurrent_writers(void)
{
    probe_file_write("striped", "", 0);
    run_all(write_stripes);
    probe_file_expect_pattern("striped", (size_t)PROCESSES * STRIPES * STRIPE, 1);
}

static void create_exclusively(void *argument)
{
    const struct task *task = argument;
    char name[32];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "name-%d", i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0) {
            CHECK_EQUAL(errno, EEXIST);
            continue;
        }
        char winner = (char)('0' + task->number);
        CHECK_EQUAL(write(fd, &winner, 1), 1);
        CHECK_OK(close(fd));
    }
}

/* O_EXCL has one winner: a file with two winners would have been written twice. */
static void concurrent_exclusive(void)
{
    run_all(create_exclusively);
    char name[32];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "name-%d", i);
        CHECK_EQUAL(probe_stat(name).st_size, 1);
    }
}

static void make_and_remove_directories(void *argument)
{
    (void)argument;
    for (int i = 0; i < 500; i++) {
        int made = mkdir("contested", 0700);
        CHECK(made == 0 || errno == EEXIST);
        int removed = rmdir("contested");
        CHECK(removed == 0 || errno == ENOENT);
    }
}

static void concurrent_directories(void)
{
    run_all(make_and_remove_directories);
    CHECK(!probe_exists("contested"));
    CHECK_EQUAL(probe_stat(".").st_nlink, 2);
}

static void make_own_tree(void *argument)
{
    const struct task *task = argument;
    char name[64];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "process-%d-%d", task->number, i);
        probe_file_write(name, name, strlen(name));
        snprintf(name, sizeof(name), "directory-%d-%d", task->number, i);
        CHECK_OK(mkdir(name, 0700));
    }
}

static void concurrent_create(void)
{
    run_all(make_own_tree);
    CHECK_EQUAL(probe_stat(".").st_nlink, 2 + PROCESSES * 200);
    char name[64];
    for (int process = 0; process < PROCESSES; process++)
        for (int i = 0; i < 200; i++) {
            snprintf(name, sizeof(name), "process-%d-%d", process, i);
            probe_file_expect(name, name, strlen(name));
        }
}

/* One process, thousands of times: open to append, a line, close. What is there already is not paid for
 * again. */
static void concurrent_append_often(void)
{
    enum { TIMES = 3000, BASE = 64 * 1024 * 1024 };
    probe_file_pattern("log", BASE, 2);
    double start = probe_now();
    char line[32];
    for (int i = 0; i < TIMES; i++) {
        snprintf(line, sizeof(line), "line %09d\n", i);
        int fd = (int)CHECK_OK(open("log", O_WRONLY | O_APPEND));
        CHECK_EQUAL(write(fd, line, 15), 15);
        CHECK_OK(close(fd));
    }
    /* Copying the file each time would move 192 GiB. */
    CHECK(probe_now() - start < 60);
    CHECK_EQUAL(probe_stat("log").st_size, BASE + TIMES * 15);
    int fd = (int)CHECK_OK(open("log", O_RDONLY));
    for (int i = 0; i < TIMES; i++) {
        snprintf(line, sizeof(line), "line %09d\n", i);
        probe_pread_expect(fd, line, 15, BASE + i * 15);
    }
    char *whole = probe_alloc(BASE);
    CHECK_EQUAL(pread(fd, whole, BASE, 0), BASE);
    CHECK(probe_pattern_matches(whole, BASE, 0, 2));
    free(whole);
    CHECK_OK(close(fd));
}

/* A small log that grows over the inline limit, a line at a time, with a reader that follows it. */
static void concurrent_append_small(void)
{
    enum { TIMES = 2000 };
    char line[32], found[32];
    probe_file_write("log", "", 0);
    int reader = (int)CHECK_OK(open("log", O_RDONLY));
    for (int i = 0; i < TIMES; i++) {
        snprintf(line, sizeof(line), "line %09d\n", i);
        int fd = (int)CHECK_OK(open("log", O_WRONLY | O_APPEND));
        CHECK_EQUAL(write(fd, line, 15), 15);
        CHECK_OK(close(fd));
        CHECK_EQUAL(read(reader, found, sizeof(found)), 15);
        CHECK(memcmp(line, found, 15) == 0);
    }
    CHECK_OK(close(reader));
}

const struct probe probes_concurrent[] = {
    {"concurrent-append", concurrent_append},
    {"concurrent-append-reopening", concurrent_append_reopening},
    {"concurrent-append-often", concurrent_append_often},
    {"concurrent-append-small", concurrent_append_small},
    {"concurrent-writers", concurrent_writers},
    {"concurrent-exclusive", concurrent_exclusive},
    {"concurrent-directories", concurrent_directories},
    {"concurrent-create", concurrent_create},
    {NULL, NULL},
};
