/* SPDX-License-Identifier: Apache-2.0 */
/* Files of very many tensors: their segments are found in reasonable time and within the memory bound. */
#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "format/segments.h"
#include "test_format_files.h"

#if defined(__SANITIZE_ADDRESS__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_SANITIZED 1
#endif
#endif

static double test_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static long test_peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* In a child of its own, whose peak of memory is the parser's. Sanitizers need their own memory and time. */
static void test_large(const struct bytes *file, enum format_kind kind, size_t count)
{
    fflush(stdout);
    /* What this process has freed would not count when the child takes it again. */
    malloc_trim(0);
    pid_t child = fork();
    if (child == 0) {
        check_failures = 0;
        struct counted_source counted;
        struct format_segments segments;
        counted_source_open(&counted, file);
        long before = test_peak_kib();
        double started = test_seconds();
        errint error = format_segments_find(&counted.source, &segments);
        double seconds = test_seconds() - started;
        long peak = test_peak_kib() - before;
        printf("# %zu bytes, %zu segments: %.2f s, %ld KiB, %u reads of %llu bytes\n", file->count,
               segments.count, seconds, peak, counted.reads, (unsigned long long)counted.read_bytes);
        CHECK_EQUAL(0, error);
        CHECK_EQUAL(kind, segments.kind);
        CHECK_EQUAL(count, segments.count);
        CHECK_EQUAL(0, counted.outside);
        CHECK(counted.read_bytes <= 2 * file->count);
#ifndef TEST_SANITIZED
        CHECK(seconds < 10);
        CHECK(peak < FORMAT_SEGMENTS_MEMORY / 1024);
#endif
        fflush(stdout);
        _exit(check_failures > 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_million_tensors(void)
{
    enum { TENSORS = 1000000 };
    cleanup_bytes struct bytes file = {0};
    bytes_put_number(&file, 0, 8);
    for (unsigned i = 0; i < TENSORS; i++)
        bytes_print(&file, "%c\"model.%u.w\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[%u,%u]}",
                    i ? ',' : '{', i, 2 * i, 2 * i + 2);
    bytes_print(&file, "}");
    bytes_set_number(&file, 0, file.count - 8, 8);
    bytes_fill(&file, 7, 2 * TENSORS);
    test_large(&file, FORMAT_SAFETENSORS, TENSORS + 1);
}

/* As many tensors as a header has room for, in the worst order, with a gap behind each. */
static void test_most_tensors(void)
{
    enum { TENSORS = 1500000 };
    cleanup_bytes struct bytes file = {0};
    bytes_put_number(&file, 0, 8);
    for (unsigned i = 0; i < TENSORS; i++) {
        unsigned at = 2 * (unsigned)((uint64_t)i * 7919 % TENSORS);
        bytes_print(&file, "%c\"%x\":{\"dtype\":\"\",\"shape\":[],\"data_offsets\":[%u,%u]}", i ? ',' : '{',
                    i, at, at + 1);
    }
    bytes_print(&file, "}");
    bytes_set_number(&file, 0, file.count - 8, 8);
    bytes_fill(&file, 7, 2 * TENSORS);
    test_large(&file, FORMAT_SAFETENSORS, 2 * TENSORS + 1);
}

/* More than the classic record can count, in a directory of many windows. */
static void test_many_entries(void)
{
    enum { ENTRIES = 200000, NAME = 24 };
    cleanup_bytes struct bytes file = {0};
    cleanup_free struct archive_entry *entries = calloc(ENTRIES, sizeof *entries);
    cleanup_free char *names = calloc(ENTRIES, NAME);
    CHECK(entries && names);
    for (unsigned i = 0; entries && names && i < ENTRIES; i++) {
        snprintf(names + (size_t)i * NAME, NAME, "optimizer/data/%u", i);
        entries[i] = (struct archive_entry){.name = names + (size_t)i * NAME, .size = 1 + i % 100};
    }
    struct archive archive = {.entries = entries, .count = ENTRIES};
    archive_build(&file, &archive);
    test_large(&file, FORMAT_TORCH_ZIP, 2 * ENTRIES + 1);
}

static void test_many_archives(void)
{
    enum { ARCHIVES = 20000 };
    cleanup_bytes struct bytes file = {0};
    struct archive archive;
    for (unsigned i = 0; i < ARCHIVES; i++)
        archive_build_tensor(&file, &archive, 128);
    test_large(&file, FORMAT_DISTCP, ARCHIVES * 9);
}

int main(void)
{
    check_run("a million tensors", test_million_tensors);
    check_run("as many tensors as a header holds, in the worst order", test_most_tensors);
    check_run("two hundred thousand entries of one archive", test_many_entries);
    check_run("twenty thousand archives", test_many_archives);
    return check_done();
}
