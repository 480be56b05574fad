/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of fsprobe, the program behind the filesystem tests: a probe is one named function that makes
 * system calls in the current directory (fresh and empty when it starts) and stops at the first answer that
 * Linux would not give. A probe that returns has passed; a failed check prints where and why and ends the
 * process with status 1; probe_skip() ends it with status 77.
 */
#ifndef CKPTFS_TESTS_FS_PROBE_H
#define CKPTFS_TESTS_FS_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct probe {
    const char *name;
    void (*run)(void);
};

/* The probes of each file; a table ends with a NULL name. */
extern const struct probe probes_attribute[];
extern const struct probe probes_concurrent[];
extern const struct probe probes_copy[];
extern const struct probe probes_directory[];
extern const struct probe probes_fallocate[];
extern const struct probe probes_inline[];
extern const struct probe probes_link[];
extern const struct probe probes_lock[];
extern const struct probe probes_mmap[];
extern const struct probe probes_open[];
extern const struct probe probes_race[];
extern const struct probe probes_rename[];
extern const struct probe probes_special[];
extern const struct probe probes_time[];
extern const struct probe probes_user[];
extern const struct probe probes_write[];
extern const struct probe probes_xattr[];

/* Prints the place, the message and errno's text when errno_value is not 0, and exits with status 1. */
_Noreturn void probe_fail(const char *file, int line, int errno_value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Says why this probe cannot run here and exits with status 77. */
_Noreturn void probe_skip(const char *reason);

/* True when the directory under test is a plain one (CKPTFS_TEST_PLAIN=1), not a ckptfs mount. */
bool probe_is_plain(void);

/* The functions behind the macros below: they return the value that they checked. */
long probe_check_ok(long result, const char *file, int line, const char *call);
void probe_check_errno(long result, int expected, const char *file, int line, const char *call);
void probe_check_equal(long long actual, long long expected, const char *file, int line, const char *text);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            probe_fail(__FILE__, __LINE__, 0, "not true: %s", #condition);                                   \
    } while (0)
/* The call must not return a negative value; the macro is its value. */
#define CHECK_OK(call) probe_check_ok((long)(call), __FILE__, __LINE__, #call)
/* The call must return -1 with this errno. */
#define CHECK_ERRNO(call, expected) probe_check_errno((long)(call), (expected), __FILE__, __LINE__, #call)
#define CHECK_EQUAL(actual, expected)                                                                        \
    probe_check_equal((long long)(actual), (long long)(expected), __FILE__, __LINE__, #actual)

/* Bytes that depend on their offset and a seed, so that bytes in the wrong place are seen. */
void probe_pattern_fill(void *buffer, size_t length, uint64_t offset, unsigned seed);

/* Whether length bytes at buffer are the pattern; tells the first wrong byte on stderr. */
bool probe_pattern_matches(const void *buffer, size_t length, uint64_t offset, unsigned seed);

/*
 * On a ckptfs mount: waits until the file is sealed and on stable storage, so that what follows meets it in
 * that state. With FSPROBE_SETTLE=1 probe_file_write and probe_file_pattern do it for every file that they
 * make.
 */
void probe_file_settle(const char *name);

/* Whole-file helpers; all of them fail the probe on any error or short transfer. */
void probe_file_write(const char *name, const void *data, size_t length);
void probe_file_pattern(const char *name, size_t length, unsigned seed);
void probe_file_expect(const char *name, const void *data, size_t length);
void probe_file_expect_pattern(const char *name, size_t length, unsigned seed);

/* Transfers on a descriptor that must be complete. */
void probe_pwrite(int fd, const void *data, size_t length, off_t offset);
void probe_pread_expect(int fd, const void *expected, size_t length, off_t offset);
void probe_pread_expect_byte(int fd, unsigned char byte, size_t length, off_t offset);

/* stat and lstat that must succeed. */
struct stat probe_stat(const char *path);
struct stat probe_lstat(const char *path);
struct stat probe_fstat(int fd);
bool probe_exists(const char *path);
/*
 * Waits until the file, of `size` bytes, is not called data as a whole: that it is while somebody has it open
 * for writing, and close() does not wait for the filesystem to hear of it.
 */
void probe_await_hole(int fd, off_t size);

/* Shared or private mapping of a whole range that must succeed. */
void *probe_map(int fd, size_t length, int protection, int flags);

/* Memory that must be there; the caller frees it. */
void *probe_alloc(size_t length);
void *probe_alloc_aligned(size_t alignment, size_t length);

/* Runs function(argument) in a child process; a child that returns has status 0. */
pid_t probe_child_start(void (*function)(void *argument), void *argument);

/* Waits for the child and fails the probe unless it ended with status 0. */
void probe_child_join(pid_t child);

/* A gate between processes: each wait takes one opening, and fails when none comes for a minute. */
struct probe_gate {
    int read_fd;
    int write_fd;
};
struct probe_gate probe_gate_make(void);
void probe_gate_open(const struct probe_gate *gate);
void probe_gate_wait(const struct probe_gate *gate);

/* Ends the program unless it runs as root. */
void probe_require_root(void);

/* A small generator with a seed of its own. */
uint32_t probe_random(uint64_t *state);

/* Seconds of the monotonic clock. */
double probe_now(void);

#endif
