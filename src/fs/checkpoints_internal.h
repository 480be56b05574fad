/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of checkpoints_*.c share: the list of what is known (checkpoints.c), the look at a run
 * (checkpoints_look.c), and the files that were found whole (checkpoints_memory.c).
 */
#ifndef CKPTFS_FS_CHECKPOINTS_INTERNAL_H
#define CKPTFS_FS_CHECKPOINTS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "ckpt/run.h"
#include "fs/checkpoints.h"
#include "fs/directory_queue.h"
#include "fs/writers.h"

/* Files that were found whole, by what tells that they are the same still. */
struct checkpoints_memory {
    struct filesystem *fs;
    uint64_t run;
    const char *checkpoint; /* path in the run, of what is asked about now */
    uint64_t *slots;        /* hashes; 0: free */
    size_t capacity, count;
    struct complete_memory asked;
};

/* For run_asked, with the memory as context, whose `fs` and `run` are set. */
const struct complete_memory *checkpoints_memory_of(void *context, const char *path);
void checkpoints_memory_release(struct checkpoints_memory *memory);

struct checkpoints {
    struct directory_queue *queue; /* NULL: read-only */
    pthread_mutex_t lock;          /* the list; nothing is called with it */
    struct meta_checkpoint *at;    /* by directory */
    size_t count, capacity;
    pthread_mutex_t looking; /* one looks at a time; taken before `lock` */
    struct checkpoints_memory memory;
    atomic_bool torn; /* some may lie out of the way (fs/torn_room.h) */
};

/* What a look found of one checkpoint. */
struct checkpoints_found {
    struct meta_checkpoint row;
    int64_t newest; /* when one of its files was changed last, ns since the epoch */
    bool busy;      /* it is to be looked at again */
};

/* What a look found of a run. */
struct checkpoints_seen {
    uint64_t run; /* 0: there is none */
    enum writers_state writers;
    struct checkpoints_found *at;
    size_t count;
};

/*
 * Looks at the run that the directory is, or lies in: what its checkpoints are, those that are complete being
 * durable then. The caller gives *out to checkpoints_release_seen in any case. -ECANCELED when the daemon
 * ends; else -errno of the disk or the database. One thread at a time (checkpoints_look_now).
 */
errint checkpoints_look(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out);
void checkpoints_release_seen(struct checkpoints_seen *seen);

/* Looks, and takes what was found to the list and the database; for any thread that holds no lock. */
errint checkpoints_look_now(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out);

/* Brings files of the checkpoints that are busy to stable storage. -EBUSY: some are not sealed yet. */
errint checkpoints_sync_busy(struct filesystem *fs, const struct checkpoints_seen *seen);

#define cleanup_seen __attribute__((cleanup(checkpoints_release_seen)))

#endif
