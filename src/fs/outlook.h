/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mount can say about its runs and its space: the last completed checkpoint of each run, what the next
 * one will take, and what waits to be given back. A thread of its own works it out, only when somebody asks,
 * anew only when the namespace has changed since, and at most for a small part of the time; of a run in which
 * nothing changed nothing is read again, and of the others no file that fs/checkpoints.h knows to be whole.
 * So a question costs little, and an answer may be a few seconds old.
 *
 * At a mount the thread also looks, by names and sizes alone, how large the largest checkpoint is, and warns
 * in the log when the disk has less room than that.
 */
#ifndef CKPTFS_FS_OUTLOOK_H
#define CKPTFS_FS_OUTLOOK_H

#include "fs/filesystem.h"
#include "fs/keep_room.h"
#include "fs/reclaim.h"

/* More runs are counted, not described. */
enum { OUTLOOK_RUNS_MAX = 1000 };

struct outlook_run {
    uint64_t ino; /* of its directory */
    char *path;   /* as on the mount: "/run1"; "/" is the root's */
    uint64_t print;
    size_t checkpoints;
    /* The last completed one: of those that can be resumed from the one with the highest step; where there is
     * none, the newest whole model. */
    char *last; /* its path as on the mount; NULL: there is none, and the rest is 0 */
    uint64_t last_ino;
    const char *state;    /* "durable", "complete" or "weights-only": as `ckptfs ls` says */
    int64_t step;         /* -1: not known */
    int64_t time;         /* of its newest file, ns since the epoch */
    int64_t bytes;        /* the sum of its files' sizes */
    int64_t fresh;        /* bytes of it that no other file has; -1: not known */
    int64_t steps, apart; /* from the completed one before it, in steps and ns; 0: not known */
    struct ids completed; /* the directories of all that are */
};

/* Never changed once it can be taken. */
struct outlook {
    struct outlook_run *runs; /* in the order of their paths */
    size_t count, left_out;
    bool reclaim_known;
    struct reclaim_survey reclaim;
    struct keep_room_survey gives; /* what policies have to give up */
    unsigned references;           /* outlook.c's */
};

errint outlook_start(struct filesystem *fs, bool takeover);
/* Ends the thread, in the middle of its work when it is at it. */
void outlook_stop(struct filesystem *fs);

/*
 * What is known, looked after first; waits for that for a few seconds at most. NULL: nothing is known yet.
 * `stops` is asked every few milliseconds, and ends the waiting. The caller gives it back. Thread-safe; not
 * for a thread that answers the kernel.
 */
const struct outlook *outlook_take(struct filesystem *fs, bool (*stops)(void *context), void *context);
void outlook_give(struct filesystem *fs, const struct outlook *outlook);

/* The run that lies in this directory; NULL. */
const struct outlook_run *outlook_find_run(const struct outlook *outlook, uint64_t ino);

struct outlook_largest {
    int64_t bytes; /* of the largest checkpoint, complete or not; 0: there is none */
    uint64_t ino;
};
/* Waits as outlook_take does, but for a second at most. False: not known. */
bool outlook_largest(struct filesystem *fs, bool (*stops)(void *context), void *context,
                     struct outlook_largest *out);

/* outlook_runs.c: looks for runs and judges them. What `former` (NULL: none) has of a run that is as it was
 * then is taken from there. `judges`: else only `largest` is found out. -ECANCELED when the thread ends. */
errint outlook_look_at_runs(struct filesystem *fs, const struct outlook *former, bool judges,
                            struct outlook *out, struct outlook_largest *largest);
/* Whether the thread is to end. */
bool outlook_stops(struct filesystem *fs);

#endif
