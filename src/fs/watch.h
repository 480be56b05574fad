/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's judgement on a daemon's heartbeat: does a request wait while nothing moves? A daemon that
 * waits for its disk (a thread in uninterruptible sleep) is not hung: killing it would help nobody.
 *
 * Time is counted in the watcher's own steps, so that a machine that was stopped for a while kills no one.
 */
#ifndef CKPTFS_FS_WATCH_H
#define CKPTFS_FS_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/state.h"

struct watch {
    int64_t timeout;   /* ns without progress that make a hang */
    int64_t last_look; /* clock_monotonic(); 0: not yet */
    int64_t token;     /* what did not move at the last look */
    int64_t stuck;     /* ns that it has not moved */
    unsigned awake;    /* looks in a row, past the timeout, at which no thread waited for the disk */
};

/* Begins anew, for a new daemon. */
void watch_start(struct watch *watch, unsigned timeout_s);
/* Milliseconds until the next look. */
int watch_interval(const struct watch *watch);
/* One look: true when the daemon `pid` hangs. */
bool watch_look(struct watch *watch, const struct state *state, int fuse_fd, pid_t pid);

#endif
