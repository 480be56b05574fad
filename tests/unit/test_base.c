/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every room uses: clocks, growing arrays, lists of ids, armed faults, threads, the pool of workers,
 * what the page cache has.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/grow.h"
#include "base/ids.h"
#include "base/page_cache.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/thread.h"
#include "base/workers.h"
#include "check.h"

static void test_file_time(void)
{
    int64_t now = clock_read_ns(CLOCK_REALTIME);
    /* The coarse clock is behind this time, as a rule. */
    clock_note_file_time(now);
    int64_t first = clock_file_time();
    CHECK(first >= now);
    clock_note_file_time(now - CLOCK_NS_PER_SECOND);
    CHECK(clock_file_time() >= first);
    clock_note_file_time(now + 1000 * CLOCK_NS_PER_SECOND);
    CHECK(clock_file_time() <= clock_read_ns(CLOCK_REALTIME));
}

static void test_clock(void)
{
    const struct {
        int64_t ns;
        time_t seconds;
        long rest;
    } cases[] = {{0, 0, 0}, {1, 0, 1}, {1500000000, 1, 500000000}, {-1, -1, 999999999}, {-1000000000, -1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct timespec time = clock_to_timespec(cases[i].ns);
        CHECK_EQUAL(cases[i].seconds, time.tv_sec);
        CHECK_EQUAL(cases[i].rest, time.tv_nsec);
        CHECK_EQUAL(cases[i].ns, clock_from_timespec(&time));
    }
    int64_t before = clock_monotonic();
    CHECK(clock_monotonic() >= before);
}

static void test_ids(void)
{
    cleanup_ids struct ids ids = {0};
    for (uint64_t i = 0; i < 1000; i++)
        CHECK_EQUAL(0, ids_append(&ids, i * i));
    CHECK_EQUAL(1000, ids.count);
    CHECK_EQUAL(999 * 999, ids.at[999]);
    ids_release(&ids);
    CHECK_EQUAL(0, ids.count);
    CHECK(ids.at == NULL);
}

/* Items keep their values when the array moves; one that cannot grow stays as it was. */
static void test_grow(void)
{
    cleanup_free uint32_t *items = NULL;
    size_t capacity = 0, count = 0, moves = 0;
    while (count < 100000) {
        size_t before = capacity;
        CHECK(grow_reserve(items, capacity, count + 1));
        moves += capacity != before;
        items[count] = (uint32_t)count;
        count++;
    }
    CHECK(capacity >= count && capacity < 2 * count);
    CHECK(moves < 30);
    for (size_t i = 0; i < count; i++)
        CHECK_EQUAL(i, items[i]);
    uint32_t *at = items;
    size_t full = capacity;
    CHECK(grow_reserve(items, capacity, full));
    CHECK(!grow_reserve(items, capacity, SIZE_MAX / sizeof *items + 1));
    CHECK(!grow_reserve(items, capacity, SIZE_MAX));
    CHECK(items == at);
    CHECK_EQUAL(full, capacity);
    CHECK(grow_reserve(items, capacity, 2 * full));
    CHECK_EQUAL(2 * full, capacity);
}

static void test_faults(void)
{
    CHECK_EQUAL(0, fault_hit("one"));
    setenv("CKPTFS_FAULT", "one:EIO:2,two:ENOSPC,three:ENOMEM:2+", 1);
    CHECK_EQUAL(0, fault_configure());
    CHECK_EQUAL(0, fault_hit("one"));
    CHECK_EQUAL(-EIO, fault_hit("one"));
    CHECK_EQUAL(0, fault_hit("one"));
    CHECK_EQUAL(-ENOSPC, fault_hit("two"));
    CHECK_EQUAL(0, fault_hit("two"));
    CHECK_EQUAL(0, fault_hit("three"));
    CHECK_EQUAL(-ENOMEM, fault_hit("three"));
    CHECK_EQUAL(-ENOMEM, fault_hit("three"));
    CHECK_EQUAL(0, fault_hit("another"));
}

static void test_fault_words(void)
{
    static const char *const wrong[] = {"one",       "one:",      ":EIO",      "one:EWHAT",
                                        "one:EIO:0", "one:EIO:x", "one:EIO:1x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("CKPTFS_FAULT", wrong[i], 1);
        CHECK_EQUAL(-EINVAL, fault_configure());
    }
    unsetenv("CKPTFS_FAULT");
    CHECK_EQUAL(0, fault_configure());
}

static atomic_int jobs_done;
static atomic_uint workers_seen;

static void count_job(void *context, unsigned worker)
{
    atomic_fetch_add(&jobs_done, *(int *)context);
    atomic_fetch_or(&workers_seen, 1u << worker);
}

static void test_workers(void)
{
    struct workers *workers;
    int one = 1;
    CHECK_EQUAL(0, workers_start(3, "test", &workers));
    for (int i = 0; i < 500; i++)
        CHECK_EQUAL(0, workers_submit(workers, count_job, &one));
    /* What was submitted runs before the end. */
    workers_stop(workers);
    CHECK_EQUAL(500, atomic_load(&jobs_done));
    CHECK(atomic_load(&workers_seen) != 0 && (atomic_load(&workers_seen) & ~7u) == 0);
    workers_stop(NULL);
}

struct errand {
    struct thread thread;
    unsigned asked, done;
    bool slept_through, hears, named;
};

/* Does what it is asked to; at the end it says how it was started. */
static void *errand_run(void *context)
{
    struct errand *errand = context;
    char name[16] = "";
    sigset_t blocked;
    thread_lock(&errand->thread);
    errand->slept_through = !thread_sleep_until(&errand->thread, clock_monotonic() - 1);
    while (!thread_is_stopping(&errand->thread)) {
        if (errand->done < errand->asked)
            errand->done++;
        else
            thread_sleep_until(&errand->thread, INT64_MAX);
    }
    thread_unlock(&errand->thread);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    errand->hears = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGUSR2);
    errand->named = pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "errand") == 0;
    return NULL;
}

static unsigned errand_done(struct errand *errand)
{
    thread_lock(&errand->thread);
    unsigned done = errand->done;
    thread_unlock(&errand->thread);
    return done;
}

static void test_thread(void)
{
    struct errand errand = {0};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    thread_init(&errand.thread);
    errand.asked = 1; /* before it runs */
    CHECK_EQUAL(0, thread_start(&errand.thread, "errand", errand_run, &errand));
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_EQUAL(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
    for (unsigned i = 1; i <= 100; i++) {
        int64_t deadline = clock_monotonic() + 20 * CLOCK_NS_PER_SECOND;
        while (errand_done(&errand) < i && clock_monotonic() < deadline)
            sched_yield();
        CHECK_EQUAL(i, errand_done(&errand));
        thread_lock(&errand.thread);
        errand.asked++;
        thread_wake(&errand.thread);
        thread_unlock(&errand.thread);
    }
    thread_ask_to_stop(&errand.thread);
    thread_stop(&errand.thread);
    CHECK(errand.slept_through && errand.named && !errand.hears);
    thread_stop(&errand.thread); /* has ended */
    thread_release(&errand.thread);
}

/* What could not be started is stopped and released like the others. */
static void test_thread_unstarted(void)
{
    struct thread thread;
    thread_init(&thread);
    CHECK(!thread_is_stopping(&thread));
    thread_stop(&thread);
    CHECK(thread_is_stopping(&thread));
    thread_release(&thread);
}

static void test_sha256(void)
{
    static const uint8_t expected[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
                                       0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
                                       0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    cleanup_sha256 struct sha256 *sum = NULL;
    uint8_t found[SHA256_BYTES];
    CHECK_EQUAL(0, sha256_begin(&sum));
    sha256_add(sum, "a", 1);
    sha256_add(sum, "", 0);
    sha256_add(sum, "bc", 2);
    CHECK_EQUAL(0, sha256_end(sum, found));
    CHECK(memcmp(found, expected, sizeof found) == 0);
}

/* A file without a name in TMPDIR, of `length` bytes that are on the disk; -1 when it cannot be made. */
static int make_file(size_t length)
{
    const char *base = getenv("TMPDIR");
    int fd = open(base ? base : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char bytes[1000];
    memset(bytes, 'x', sizeof bytes);
    for (size_t done = 0; fd >= 0 && done < length; done += sizeof bytes)
        CHECK_EQUAL(sizeof bytes, pwrite(fd, bytes, sizeof bytes, (off_t)done));
    if (fd >= 0)
        CHECK_EQUAL(0, fsync(fd));
    return fd;
}

static void test_page_cache(void)
{
    enum { LENGTH = 2000 * 1000 };
    char byte;
    cleanup_fd int fd = make_file(LENGTH);
    if (fd < 0) {
        check_skip("the disk of TMPDIR has no O_TMPFILE");
        return;
    }
    CHECK(page_cache_has(fd, 0, LENGTH));
    CHECK(page_cache_has(fd, 4095, 2));
    CHECK(page_cache_has(fd, LENGTH - 1, 1));
    CHECK(page_cache_has(fd, 0, 0));
    CHECK(!page_cache_has(fd, LENGTH - 1, 1 << 20));
    CHECK(!page_cache_has(-1, 0, 1));
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (page_cache_has(fd, 0, 1)) {
        check_skip("the disk of TMPDIR is memory");
        return;
    }
    /* One page in the middle is read, and asking reads none. */
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    CHECK_EQUAL(1, pread(fd, &byte, 1, LENGTH / 2));
    CHECK(page_cache_has(fd, LENGTH / 2, 1));
    for (int time = 0; time < 2; time++) {
        CHECK(!page_cache_has(fd, 0, LENGTH));
        CHECK(!page_cache_has(fd, LENGTH / 2, LENGTH / 2));
        CHECK(!page_cache_has(fd, LENGTH - 1, 1));
    }
}

/* Whether a process that ends in that way, by the signal or with the status, has ended well. */
static bool ends_well(int signal, int status)
{
    int wait[2];
    char byte;
    struct process process;
    CHECK_EQUAL(0, pipe(wait));
    pid_t pid = fork();
    if (pid == 0) {
        close(wait[1]);
        if (read(wait[0], &byte, 1) == 0 && signal)
            raise(signal);
        _exit(status);
    }
    close(wait[0]);
    CHECK_EQUAL(0, process_of_thread(pid, &process));
    CHECK_EQUAL(pid, process.pid);
    int watch = process_watch(&process);
    CHECK(watch >= 0);
    CHECK(!process_ended_well(watch));
    close(wait[1]);
    CHECK_EQUAL(pid, waitpid(pid, NULL, 0));
    bool well = process_ended_well(watch);
    close(watch);
    CHECK_EQUAL(-ESRCH, process_watch(&process));
    return well;
}

static void test_process_ends(void)
{
    struct utsname kernel;
    int major = 0, minor = 0;
    CHECK(!ends_well(0, 3));
    CHECK(!ends_well(SIGKILL, 0));
    CHECK(!ends_well(SIGTERM, 0));
    CHECK_EQUAL(0, uname(&kernel));
    CHECK_EQUAL(2, sscanf(kernel.release, "%d.%d", &major, &minor));
    CHECK_EQUAL(major > 6 || (major == 6 && minor >= 15), ends_well(0, 0));
}

int main(void)
{
    check_run("SHA-256 of bytes that come in pieces", test_sha256);
    check_run("nanoseconds and timespecs, before 1970 too", test_clock);
    check_run("no file's time is before one that was told", test_file_time);
    check_run("a list of ids grows and is released", test_ids);
    check_run("an array grows, or stays as it was", test_grow);
    check_run("armed faults hit when they should", test_faults);
    check_run("a fault that cannot be understood is refused", test_fault_words);
    check_run("workers run every job once", test_workers);
    check_run("a thread works when it is told to, until it is stopped", test_thread);
    check_run("a thread that was never started can be stopped", test_thread_unstarted);
    check_run("how a process has ended is known", test_process_ends);
    check_run("what the page cache has is known without reading", test_page_cache);
    return check_done();
}
