/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unit tests' harness. A test is a function without arguments; main() runs each by check_run() and
 * returns check_done(). A failed CHECK is reported with its place and does not end the test. Output is TAP.
 * One thread; as many source files as a test likes.
 */
#ifndef CKPTFS_TESTS_UNIT_CHECK_H
#define CKPTFS_TESTS_UNIT_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Weak: each source file has them, and they are one. */
__attribute__((weak)) unsigned check_failures, check_tests;
__attribute__((weak)) const char *check_skipped;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            check_failures++;                                                                                \
            printf("# %s:%d: expected %s\n", __FILE__, __LINE__, #condition);                                \
        }                                                                                                    \
    } while (0)

/* Whole numbers of any type, and strings. */
#define CHECK_EQUAL(expected, found)                                                                         \
    check_equal(__FILE__, __LINE__, #found, (int64_t)(expected), (int64_t)(found))
#define CHECK_TEXT(expected, found) check_text(__FILE__, __LINE__, #found, expected, found)

static inline void check_equal(const char *file, int line, const char *what, int64_t expected, int64_t found)
{
    if (expected == found)
        return;
    check_failures++;
    printf("# %s:%d: expected %lld, found %lld: %s\n", file, line, (long long)expected, (long long)found,
           what);
}

static inline void check_text(const char *file, int line, const char *what, const char *expected,
                              const char *found)
{
    if (found && strcmp(expected, found) == 0)
        return;
    check_failures++;
    printf("# %s:%d: expected '%s', found '%s': %s\n", file, line, expected, found ? found : "(null)", what);
}

/* Said by a test that cannot be done here: why. */
static inline void check_skip(const char *why)
{
    check_skipped = why;
}

static inline void check_run(const char *what, void (*test)(void))
{
    unsigned before = check_failures;
    check_skipped = NULL;
    test();
    printf("%s %u - %s%s%s\n", check_failures == before ? "ok" : "not ok", ++check_tests, what,
           check_skipped ? " # SKIP " : "", check_skipped ? check_skipped : "");
    fflush(stdout);
}

/* The exit code of the program. */
static inline int check_done(void)
{
    printf("1..%u\n", check_tests);
    return check_failures == 0 ? 0 : 1;
}

#endif
