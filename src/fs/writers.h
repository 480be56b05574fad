/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes wrote the checkpoints of a run, and whether they live still. A process is noted with the
 * directory that it makes, or in which it makes a file or opens one for writing; when a run is looked at
 * (fs/checkpoints.h), those that wrote below the run's own directory are added to the run's in the database.
 * (In the run's own directory others write as well: logs.)
 *
 * A directory is a copy when a program that copies wrote in it, or when times of its files were set: what is
 * in it was not saved there.
 */
#ifndef CKPTFS_FS_WRITERS_H
#define CKPTFS_FS_WRITERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/ids.h"
#include "base/process.h"

struct filesystem;

/* -ENOMEM. Before the first request. */
errint writers_start(struct filesystem *fs);
void writers_release(struct filesystem *fs);

/* The thread (of fuse_req_ctx; 0: not known) writes in the directory. Thread-safe; a node's lock may be held.
 * Reads /proc when the thread was not noted there within the last minute. */
void writers_note(struct filesystem *fs, uint64_t directory, pid_t thread);
/* The thread opens the file for writing: the same for the directory that it lies in. */
void writers_note_file(struct filesystem *fs, uint64_t ino, pid_t thread);
/* The thread's process is one of those that wrote the run's checkpoints; it is so in the database at once. */
void writers_note_now(struct filesystem *fs, uint64_t run, pid_t thread);
/* Somebody has set the times of the file. */
void writers_note_times(struct filesystem *fs, uint64_t ino);

/* Whether somebody wrote below the run, not in its own directory, since it was gathered last. */
bool writers_wrote_below(struct filesystem *fs, uint64_t run);

enum writers_state {
    WRITERS_GONE,    /* there were some, and none of them lives */
    WRITERS_ALIVE,   /* one lives, at least */
    WRITERS_UNKNOWN, /* none is known, or one of another pid namespace */
};

struct writers_seen {
    enum writers_state state;
    int64_t since; /* when the last one of those that live began, ns since the epoch; INT64_MAX: none lives */
};

/*
 * What was noted below the run goes to the run's processes in the database; directories (of the namespace)
 * that are copies are appended to `copies`. Then: whether any of the run's processes lives.
 */
errint writers_gather(struct filesystem *fs, uint64_t run, struct ids *copies, struct writers_seen *out);

/* The same, and nothing is noted: for whoever only asks. */
errint writers_ask(struct filesystem *fs, uint64_t run, struct writers_seen *out);

#endif
