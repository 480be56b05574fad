/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line on the terminal that tells how far a copy is, and the signals that end one: what was begun is
 * undone or kept, and the caller learns of the signal as of any other program.
 */
#ifndef CKPTFS_CMD_PROGRESS_H
#define CKPTFS_CMD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Starts as {0}; `wanted`: standard error is a terminal, and nobody asked for quiet. */
struct progress {
    bool wanted;
    int64_t started, shown; /* clock_monotonic(); `started` is the caller's */
};

/* Writes the line, a few times a second. False: a signal has come (`progress_catch_signals`). */
bool progress_show(struct progress *progress, int64_t done, int64_t total);
/* Removes the line. */
void progress_end(const struct progress *progress);

/* From now on SIGINT, SIGTERM and SIGHUP are noted, once each, instead of ending the process. */
void progress_catch_signals(void);
/* The signal that was noted; 0: none. */
int progress_signal(void);

#endif
