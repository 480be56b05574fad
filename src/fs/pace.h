/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast something grows, from what was seen of it at some moments, and when it will be done. Pure: times
 * are clock_monotonic(), given by the caller. One thread's at a time.
 */
#ifndef CKPTFS_FS_PACE_H
#define CKPTFS_FS_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* Looks that are closer together say nothing: the later one is as if it had not been. */
#define PACE_APART_NS INT64_C(250000000)

/* Starts as {0}. */
struct pace {
    bool begun;
    int64_t bytes, time; /* at the last look that counted */
    double rate;         /* bytes a second, the last looks weigh most; negative: not known yet */
};

/* It has `bytes` now. Fewer than before: it was begun anew, and the rate is not known. */
void pace_note(struct pace *pace, int64_t bytes, int64_t now);

/* Of what was begun at `since` and has `bytes` now; negative: it has just begun. */
double pace_average(int64_t bytes, int64_t since, int64_t now);

/* Seconds, rounded up, until `bytes` have become `expected`; 0 when they have, negative: not known (the rate
 * is not above 0, or it takes longer than ten years). */
int64_t pace_left(int64_t bytes, int64_t expected, double rate);

#endif
