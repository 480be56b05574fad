/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks in nanoseconds.
 */
#ifndef CKPTFS_BASE_CLOCK_H
#define CKPTFS_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_SECOND INT64_C(1000000000)

static inline int64_t clock_from_timespec(const struct timespec *time)
{
    return (int64_t)time->tv_sec * CLOCK_NS_PER_SECOND + time->tv_nsec;
}

/* Splits nanoseconds since the epoch; times before 1970 keep 0 <= tv_nsec < 1e9. */
static inline struct timespec clock_to_timespec(int64_t ns)
{
    int64_t seconds = ns / CLOCK_NS_PER_SECOND;
    int64_t rest = ns % CLOCK_NS_PER_SECOND;
    if (rest < 0) {
        rest += CLOCK_NS_PER_SECOND;
        seconds--;
    }
    return (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)rest};
}

static inline int64_t clock_read_ns(clockid_t id)
{
    struct timespec time;
    clock_gettime(id, &time);
    return clock_from_timespec(&time);
}

/*
 * The time that file timestamps get. The coarse clock is the one that the kernel's filesystems stamp with, so
 * that a time given by the daemon and one given by the object's own filesystem never seem out of order; where
 * that stamps more finely, as those of Linux 6.13 do with what somebody has looked at, it is not before any
 * time that was noted. Both are thread-safe.
 */
int64_t clock_file_time(void);
/* A time that an object has, and that somebody is told of. One that is not past counts for nothing. */
void clock_note_file_time(int64_t time);

/* For intervals; the same in every process since boot. */
static inline int64_t clock_monotonic(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/*
 * The time by which ages of checkpoints are told. A test sets it: CKPTFS_TEST_CLOCK names a file that holds a
 * number of seconds, which are added; it is read at each call. For nothing else.
 */
int64_t clock_wall(void);
/* Whether a test does: what is looked at once a minute is then looked at once a second. */
bool clock_is_test(void);

#endif
