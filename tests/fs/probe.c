/* SPDX-License-Identifier: Apache-2.0 */
/* What all probes use: checks that explain themselves, patterns, whole-file helpers, child processes. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP        77
#define GATE_TIMEOUT_MS  60000
#define SETTLE_TIMEOUT_S 30

void probe_fail(const char *file, int line, int errno_value, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    if (errno_value != 0)
        fprintf(stderr, ": %s", strerror(errno_value));
    fputc('\n', stderr);
    va_end(arguments);
    _exit(EXIT_FAILURE);
}

void probe_skip(const char *reason)
{
    fprintf(stderr, "skip: %s\n", reason);
    _exit(EXIT_SKIP);
}

bool probe_is_plain(void)
{
    const char *value = getenv("CKPTFS_TEST_PLAIN");
    return value != NULL && strcmp(value, "1") == 0;
}

long probe_check_ok(long result, const char *file, int line, const char *call)
{
    if (result < 0)
        probe_fail(file, line, errno, "%s returned %ld", call, result);
    return result;
}

void probe_check_errno(long result, int expected, const char *file, int line, const char *call)
{
    int found = errno;
    if (result >= 0)
        probe_fail(file, line, 0, "%s returned %ld instead of %s", call, result, strerrorname_np(expected));
    if (found != expected)
        probe_fail(file, line, found, "%s failed, but not with %s", call, strerrorname_np(expected));
}

void probe_check_equal(long long actual, long long expected, const char *file, int line, const char *text)
{
    if (actual != expected)
        probe_fail(file, line, 0, "%s is %lld (0x%llx), expected %lld (0x%llx)", text, actual, actual,
                   expected, expected);
}

/* One step of a mixing function: neighbouring words differ in all their bytes. */
static uint64_t pattern_word(uint64_t index, unsigned seed)
{
    uint64_t value = (index + 1) * 0x9e3779b97f4a7c15ULL + (uint64_t)seed * 0xd1342543de82ef95ULL;
    value ^= value >> 29;
    value *= 0xbf58476d1ce4e5b9ULL;
    return value ^ (value >> 32);
}

void probe_pattern_fill(void *buffer, size_t length, uint64_t offset, unsigned seed)
{
    unsigned char *bytes = buffer;
    for (size_t i = 0; i < length; i++) {
        uint64_t position = offset + i;
        bytes[i] = (unsigned char)(pattern_word(position / 8, seed) >> (position % 8 * 8));
    }
}

bool probe_pattern_matches(const void *buffer, size_t length, uint64_t offset, unsigned seed)
{
    const unsigned char *bytes = buffer;
    for (size_t i = 0; i < length; i++) {
        uint64_t position = offset + i;
        unsigned char expected = (unsigned char)(pattern_word(position / 8, seed) >> (position % 8 * 8));
        if (bytes[i] != expected) {
            fprintf(stderr, "byte %llu is %02x, expected %02x\n", (unsigned long long)position, bytes[i],
                    expected);
            return false;
        }
    }
    return true;
}

void probe_file_settle(const char *name)
{
    static const char settled[] = "durable";
    char state[32];
    if (probe_is_plain())
        return;
    double deadline = probe_now() + SETTLE_TIMEOUT_S;
    for (;;) {
        int fd = (int)CHECK_OK(open(name, O_RDONLY | O_CLOEXEC));
        CHECK_OK(fsync(fd));
        long length = CHECK_OK(fgetxattr(fd, "user.ckptfs.state", state, sizeof(state)));
        CHECK_OK(close(fd));
        if (length == sizeof(settled) - 1 && memcmp(state, settled, (size_t)length) == 0)
            return;
        if (probe_now() > deadline)
            probe_fail(__FILE__, __LINE__, 0, "%s is still %.*s", name, (int)length, state);
    }
}

static bool settles_always(void)
{
    const char *value = getenv("FSPROBE_SETTLE");
    return value != NULL && strcmp(value, "1") == 0;
}

void probe_file_write(const char *name, const void *data, size_t length)
{
    int fd = (int)CHECK_OK(open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    probe_pwrite(fd, data, length, 0);
    CHECK_OK(close(fd));
    if (settles_always())
        probe_file_settle(name);
}

void probe_file_pattern(const char *name, size_t length, unsigned seed)
{
    char *data = probe_alloc(length);
    probe_pattern_fill(data, length, 0, seed);
    probe_file_write(name, data, length);
    free(data);
}

void probe_file_expect(const char *name, const void *data, size_t length)
{
    int fd = (int)CHECK_OK(open(name, O_RDONLY | O_CLOEXEC));
    CHECK_EQUAL(probe_fstat(fd).st_size, length);
    probe_pread_expect(fd, data, length, 0);
    char beyond;
    CHECK_EQUAL(pread(fd, &beyond, 1, (off_t)length), 0);
    CHECK_OK(close(fd));
}

void probe_file_expect_pattern(const char *name, size_t length, unsigned seed)
{
    char *data = probe_alloc(length);
    probe_pattern_fill(data, length, 0, seed);
    probe_file_expect(name, data, length);
    free(data);
}

void probe_pwrite(int fd, const void *data, size_t length, off_t offset)
{
    size_t done = 0;
    while (done < length) {
        ssize_t count = pwrite(fd, (const char *)data + done, length - done, offset + (off_t)done);
        if (count <= 0)
            probe_fail(__FILE__, __LINE__, errno, "pwrite of %zu at %lld returned %zd", length - done,
                       (long long)offset + (long long)done, count);
        done += (size_t)count;
    }
}

/* Reads exactly length bytes into a new buffer. */
static unsigned char *pread_whole(int fd, size_t length, off_t offset)
{
    unsigned char *found = probe_alloc(length);
    size_t done = 0;
    while (done < length) {
        ssize_t count = pread(fd, found + done, length - done, offset + (off_t)done);
        if (count <= 0)
            probe_fail(__FILE__, __LINE__, count < 0 ? errno : 0, "pread of %zu at %lld returned %zd",
                       length - done, (long long)offset + (long long)done, count);
        done += (size_t)count;
    }
    return found;
}

void probe_pread_expect(int fd, const void *expected, size_t length, off_t offset)
{
    const unsigned char *wanted = expected;
    unsigned char *found = pread_whole(fd, length, offset);
    for (size_t i = 0; i < length; i++)
        if (found[i] != wanted[i])
            probe_fail(__FILE__, __LINE__, 0, "byte %lld is %02x, expected %02x",
                       (long long)offset + (long long)i, found[i], wanted[i]);
    free(found);
}

void probe_pread_expect_byte(int fd, unsigned char byte, size_t length, off_t offset)
{
    unsigned char *found = pread_whole(fd, length, offset);
    for (size_t i = 0; i < length; i++)
        if (found[i] != byte)
            probe_fail(__FILE__, __LINE__, 0, "byte %lld is %02x, expected %02x",
                       (long long)offset + (long long)i, found[i], byte);
    free(found);
}

struct stat probe_stat(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        probe_fail(__FILE__, __LINE__, errno, "stat %s", path);
    return status;
}

struct stat probe_lstat(const char *path)
{
    struct stat status;
    if (lstat(path, &status) < 0)
        probe_fail(__FILE__, __LINE__, errno, "lstat %s", path);
    return status;
}

struct stat probe_fstat(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        probe_fail(__FILE__, __LINE__, errno, "fstat");
    return status;
}

void probe_await_hole(int fd, off_t size)
{
    const struct timespec step = {.tv_nsec = 5000000};
    for (int i = 0; i < 4000 && lseek(fd, 0, SEEK_HOLE) == size; i++)
        nanosleep(&step, NULL);
}

bool probe_exists(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0)
        return true;
    if (errno != ENOENT)
        probe_fail(__FILE__, __LINE__, errno, "lstat %s", path);
    return false;
}

void *probe_map(int fd, size_t length, int protection, int flags)
{
    void *address = mmap(NULL, length, protection, flags, fd, 0);
    if (address == MAP_FAILED)
        probe_fail(__FILE__, __LINE__, errno, "mmap of %zu bytes, protection %d, flags %d", length,
                   protection, flags);
    return address;
}

void *probe_alloc(size_t length)
{
    void *memory = malloc(length > 0 ? length : 1);
    if (memory == NULL)
        probe_fail(__FILE__, __LINE__, ENOMEM, "%zu bytes", length);
    return memory;
}

void *probe_alloc_aligned(size_t alignment, size_t length)
{
    void *memory = NULL;
    int error = posix_memalign(&memory, alignment, length);
    if (error != 0)
        probe_fail(__FILE__, __LINE__, error, "%zu bytes aligned to %zu", length, alignment);
    return memory;
}

pid_t probe_child_start(void (*function)(void *argument), void *argument)
{
    fflush(NULL);
    pid_t child = (pid_t)CHECK_OK(fork());
    if (child == 0) {
        /* A child that loops must not outlive a probe that failed. */
        CHECK_OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
        function(argument);
        _exit(EXIT_SUCCESS);
    }
    return child;
}

void probe_child_join(pid_t child)
{
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        probe_fail(__FILE__, __LINE__, 0, "a child process died by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == EXIT_SKIP)
        _exit(EXIT_SKIP);
    if (WEXITSTATUS(status) != EXIT_SUCCESS)
        probe_fail(__FILE__, __LINE__, 0, "a child process ended with status %d", WEXITSTATUS(status));
}

struct probe_gate probe_gate_make(void)
{
    int ends[2];
    CHECK_OK(pipe(ends));
    return (struct probe_gate){.read_fd = ends[0], .write_fd = ends[1]};
}

void probe_gate_open(const struct probe_gate *gate)
{
    CHECK_EQUAL(write(gate->write_fd, "g", 1), 1);
}

void probe_gate_wait(const struct probe_gate *gate)
{
    struct pollfd waiting = {.fd = gate->read_fd, .events = POLLIN};
    int ready = poll(&waiting, 1, GATE_TIMEOUT_MS);
    if (ready != 1)
        probe_fail(__FILE__, __LINE__, ready < 0 ? errno : ETIMEDOUT, "waiting for another process");
    char byte;
    CHECK_EQUAL(read(gate->read_fd, &byte, 1), 1);
}

void probe_require_root(void)
{
    if (geteuid() != 0)
        probe_skip("needs root");
}

uint32_t probe_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33);
}

double probe_now(void)
{
    struct timespec now;
    CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &now));
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}
