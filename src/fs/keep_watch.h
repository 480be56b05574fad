/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the policies of runs are applied: after each look at a run (fs/checkpoints.h), when a policy was
 * changed, and for ages and for what was open once a minute. The thread that looks at checkpoints does it, so
 * that a policy is always applied to what has just been found out; nothing here has a thread of its own.
 *
 * Where the mount is read-only, nothing does anything. While a policy is applied one lock is held, which is
 * taken before all others, and which only keep_watch_stop waits for.
 */
#ifndef CKPTFS_FS_KEEP_WATCH_H
#define CKPTFS_FS_KEEP_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct filesystem;

/* Before the thread that looks at checkpoints. */
errint keep_watch_start(struct filesystem *fs);
/* Nothing is removed any more when it returns; while requests are still served, as a removal may wait for
 * one. A second call does nothing. */
void keep_watch_stop(struct filesystem *fs);
/* Frees it, when nobody calls what is below any more. */
void keep_watch_release(struct filesystem *fs);

/* Thread-safe; these return at once. */

/* The thread (as fuse_req_ctx has it) has opened the file to read it. */
void keep_watch_opened(struct filesystem *fs, uint64_t ino, pid_t thread);
/* Whether some directory has a policy that may remove something. Takes no lock. */
bool keep_watch_is_used(struct filesystem *fs);
/* The policy of the directory, and of all below it, is another. */
void keep_watch_below(struct filesystem *fs, uint64_t directory);

/* For the thread that looks at checkpoints. */

/* A directory was looked at: the policy of the run that it is or lies in (0: there is none) is applied. True:
 * a checkpoint that is complete is not on stable storage yet, and it is to be looked at again soon. */
bool keep_watch_apply(struct filesystem *fs, uint64_t directory, uint64_t run);
/* What is to be done now and then, the first time what an earlier daemon had begun to remove is taken apart.
 * clock_monotonic() of the next time. */
int64_t keep_watch_tick(struct filesystem *fs);
/* A directory whose policy was changed; 0: it is not to be looked at. Whether there are more. */
uint64_t keep_watch_next(struct filesystem *fs);
size_t keep_watch_left(struct filesystem *fs);

#endif
