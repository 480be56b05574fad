/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which directories running processes have read files of: so that the checkpoint that a job began with is not
 * removed under it. Of each process the first and the last one of a run count; others that it looked through
 * do not. What it has read is forgotten with the process.
 *
 * Noting an open costs three small system calls. A successor of the daemon knows what was kept for it
 * (loads_keep). Processes that the daemon cannot see, in another container, are not known, and of checkpoints
 * that are one file nothing is. Thread-safe.
 */
#ifndef CKPTFS_FS_LOADS_H
#define CKPTFS_FS_LOADS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct filesystem;
struct loads;

/* Knows those of an earlier daemon that still run. */
errint loads_start(struct filesystem *fs);
void loads_release(struct filesystem *fs);

/* The thread has opened the file to read it. `thread`: as fuse_req_ctx has it; 0: unknown. True: loads_settle
 * has something to do, and had nothing before. Does not wait for the namespace. */
bool loads_note(struct filesystem *fs, uint64_t ino, pid_t thread);
/* Looks at what was noted. */
void loads_settle(struct filesystem *fs);
/* Writes down what processes have read, for a successor, where that is not done. */
errint loads_keep(struct filesystem *fs);

/* Whether a process other than `except` (a thread of it; 0: none) runs that began with the checkpoint, or has
 * read it last, of those in the directory `run`. */
bool loads_has(struct filesystem *fs, uint64_t run, uint64_t checkpoint, pid_t except);

#endif
