/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes, told apart for ever: a number is given again, but not with the same start. Linux's /proc is
 * asked (proc(5): /proc/PID/status, /proc/PID/stat).
 */
#ifndef CKPTFS_BASE_PROCESS_H
#define CKPTFS_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

enum { PROCESS_NAME_MAX = 16 };

struct process {
    pid_t pid;                   /* 0: one of another pid namespace, of which nothing is known */
    uint64_t started;            /* clock ticks since the machine started */
    char name[PROCESS_NAME_MAX]; /* its program's, as /proc/PID/comm has it */
};

/* The process that the thread belongs to. -ESRCH: there is no such thread. Thread-safe. */
errint process_of_thread(pid_t thread, struct process *out);

/* Whether it runs. A zombie does not. Thread-safe. */
bool process_is_alive(const struct process *process);

/* Which start of the machine this is, and how this process sees the others: "BOOT-ID pid:[NUMBER]". The same
 * text: numbers and starts mean the same processes. -errno of /proc. */
enum { PROCESS_WORLD_MAX = 64, PROCESS_BOOT_LENGTH = 36 };
errint process_world(char out[PROCESS_WORLD_MAX]);

/*
 * A descriptor by which the process's end is known, for the caller to close; -errno: it has ended, or nothing
 * is known of another pid namespace's. Thread-safe.
 */
int process_watch(const struct process *process);
/* Whether it has ended by itself with the status 0, and somebody has waited for it. False also where the
 * kernel does not tell (before Linux 6.15). Thread-safe. */
bool process_ended_well(int watch);

/* The end of the clock tick (10 ms) in which it started, in ns of CLOCK_REALTIME as that clock is now. */
int64_t process_start_time(const struct process *process);

#endif
