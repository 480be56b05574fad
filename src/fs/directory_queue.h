/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that a thread of low priority looks at when what was saved in them has come to rest: one place
 * for what all such threads have in common.
 *
 * A file that is touched brings its directory, and as many above it as the work wants, onto a list. Each
 * further file puts a directory off a little, but not for ever. A directory that cannot be looked at yet has
 * its turn again, later each time. Files that were not looked at before a stop or a crash are found again at
 * the next start by their inode numbers: up to which one all were is noted in the database.
 */
#ifndef CKPTFS_FS_DIRECTORY_QUEUE_H
#define CKPTFS_FS_DIRECTORY_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/ids.h"

struct filesystem;
struct directory_queue;

/* One turn of a directory. */
struct directory_turn {
    uint64_t directory;
    int64_t delay;    /* ns until the next turn, if this one asks for it; the work may change it */
    unsigned unready; /* turns in a row for which the work has counted something; 0 after each new file */
    int64_t rest;     /* set by the work: ns for which nothing is looked at after this turn */
};

/* What a work says at the end of a turn: done, or the ns after which the directory is due again. */
enum { DIRECTORY_DONE = -1 };

struct directory_work {
    const char *thread;  /* its name; at most 15 bytes */
    const char *setting; /* under which the database has the number */
    int64_t quiet;       /* ns without a new file before a directory's turn */
    int64_t latest;      /* ns after which it comes all the same */
    int64_t retry;       /* the first `delay` */
    unsigned levels;     /* directories above a file's own one that are to be looked at too */
    /* Called by the thread, with no lock held. */
    int64_t (*visit)(struct filesystem *fs, struct directory_turn *turn);
    /* More directories, with no hurry; 0: none. NULL where there are no such. */
    uint64_t (*next)(struct filesystem *fs);
    size_t (*left)(struct filesystem *fs); /* whether there are; thread-safe */
    /* Done now and then, be nothing to be looked at: clock_monotonic() of the next time. NULL: nothing is. */
    int64_t (*tick)(struct filesystem *fs);
    /* All is looked at. False: nothing is noted. NULL: true. */
    bool (*rested)(struct filesystem *fs);
};

/* The number is read, and the thread runs. `work` must outlive it; *queue is there before its first turn. */
errint directory_queue_start(struct filesystem *fs, const struct directory_work *work,
                             struct directory_queue **queue);
/* Ends a turn that is under way as soon as its work asks directory_queue_stops. NULL does nothing. */
void directory_queue_stop(struct directory_queue *queue);
bool directory_queue_stops(const struct directory_queue *queue);

/* The following are thread-safe, and take NULL for a queue that does nothing. */

/* The file was settled, or lies elsewhere now. */
void directory_queue_touch(struct directory_queue *queue, uint64_t ino);
/* A file that needs no look: the next start need not find it. */
void directory_queue_pass(struct directory_queue *queue, uint64_t ino);
/* The directory is to be looked at when it has come to rest; `hurry`: now, before all others. */
void directory_queue_add(struct directory_queue *queue, uint64_t directory, bool hurry);
/* All these were looked at, beginning at `since` (clock_monotonic()): those that were not touched since then
 * need no turn. Sorts the list. */
void directory_queue_settle(struct directory_queue *queue, struct ids *directories, int64_t since);
/* There are directories that `next` gives, or something for `tick`. */
void directory_queue_wake(struct directory_queue *queue);
/* Files and directories that wait. */
size_t directory_queue_waiting(struct directory_queue *queue);

#endif
