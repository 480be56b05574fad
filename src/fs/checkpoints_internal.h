/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of checkpoints_*.c share: the list of what is known (checkpoints.c), the look at a run
 * (checkpoints_look.c), and the files that were found whole (checkpoints_memory.c).
 */
#ifndef CKPTFS_FS_CHECKPOINTS_INTERNAL_H
#define CKPTFS_FS_CHECKPOINTS_INTERNAL_H

#include <pthread.h>

#include "ckpt/run.h"
#include "fs/checkpoints.h"
#include "fs/directory_queue.h"

/* Files that were found whole, by what tells that they are the same still. Of the thread that looks. */
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
    struct checkpoints_memory memory; /* the thread's own */
};

/* What a look found of one checkpoint. */
struct checkpoints_found {
    struct meta_checkpoint row;
    bool busy; /* it is to be looked at again */
};

/*
 * Looks at the run that the directory is, or lies in: 0 and *run is 0 where there is none. Else what its
 * checkpoints are, those that are complete being durable then. The caller frees *out. -ECANCELED when the
 * daemon ends; else -errno of the disk or the database.
 */
errint checkpoints_look(struct filesystem *fs, uint64_t directory, uint64_t *run,
                        struct checkpoints_found **out, size_t *count);

#endif
