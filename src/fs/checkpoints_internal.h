/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of checkpoints_*.c share: the list of what is known (checkpoints_list.c), the look at a
 * run (checkpoints_look.c), what becomes of what it finds (checkpoints_take.c), and the files that were found
 * whole (checkpoints_memory.c).
 */
#ifndef CKPTFS_FS_CHECKPOINTS_INTERNAL_H
#define CKPTFS_FS_CHECKPOINTS_INTERNAL_H

#include <pthread.h>

#include "base/ids.h"
#include "ckpt/run.h"
#include "fs/checkpoints.h"
#include "fs/directory_queue.h"
#include "fs/event.h"
#include "fs/rewrite.h"
#include "fs/writers.h"

/* Of so many trainer_state.json it is known what they told, 5 KiB each. */
enum { CHECKPOINTS_PROGRESSES = 1024 };
struct checkpoints_progress;

/* Files that were found whole, or that told how far the Trainer was, by what says that they are the same
 * still. */
struct checkpoints_memory {
    pthread_mutex_t lock; /* nothing is called with it */
    uint64_t *slots;      /* hashes; 0: free */
    size_t capacity, count;
    struct checkpoints_progress *progresses[CHECKPOINTS_PROGRESSES]; /* NULL: free */
};

/* Who reads a run with the memory: `fs` and `run` are set. */
struct checkpoints_reader {
    struct filesystem *fs;
    uint64_t run;
    const char *checkpoint; /* path in the run, of what is asked about now */
    struct complete_memory asked;
};

/* For run_asked, with the reader as context. */
const struct complete_memory *checkpoints_memory_of(void *reader, const char *path);
void checkpoints_memory_prepare(struct checkpoints_memory *memory);
void checkpoints_memory_release(struct checkpoints_memory *memory);

/* Marks that only the rows of the list have, not those that are found and go to the database. */
enum {
    CHECKPOINT_BEGUN = 1 << 16, /* somebody has begun to change it since the look under way began */
    CHECKPOINT_UNSAVED =
        1 << 17, /* the database has another row; the look at its run brings this one there */
    CHECKPOINT_OF_LIST = CHECKPOINT_LATEST | CHECKPOINT_BEGUN | CHECKPOINT_UNSAVED,
};

struct checkpoints {
    struct directory_queue *queue; /* NULL: read-only */
    pthread_mutex_t lock;          /* the list; nothing is called with it */
    struct meta_checkpoint *at;    /* by directory */
    size_t count, capacity;
    struct ids
        taken; /* runs: their writers were noted in the database, and what was seen of them is not here */
    pthread_mutex_t looking; /* one looks at a time; taken before `lock` */
    struct checkpoints_memory memory;
};

/* What a look found of one checkpoint. */
struct checkpoints_found {
    struct meta_checkpoint row;    /* without the marks of the list */
    struct meta_checkpoint before; /* what was known of it then; zeros: nothing */
    bool adding;                   /* it is complete, and what is being added to it is not looked at yet */
    int64_t newest;                /* when one of its files was changed last, ns since the epoch */
    bool busy;                     /* it is to be looked at again: somebody can write it */
    bool awaits;                   /* likewise: a rank's last file is missing */
    struct rewrite_seen rewrite;   /* of it; kept.checkpoint 0: it is not being written over */
    bool edited;                   /* it is incomplete by that, and no save was at it */
};

/* What a look found of a run. */
struct checkpoints_seen {
    uint64_t run;  /* 0: there is none */
    int64_t begun; /* clock_file_time() */
    struct writers_seen writers;
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

/* What somebody begins to change from now on is not taken as it is found. While `looking` is held. */
void checkpoints_begin_look(struct checkpoints *checkpoints);
/* Before the writers of a run are gathered: who asks whether it may be torn is told so until what is seen of
 * it is in the list, and checkpoints_end_look says so. -ENOMEM. */
errint checkpoints_note_look(struct checkpoints *checkpoints, uint64_t run);
void checkpoints_end_look(struct checkpoints *checkpoints, uint64_t run);

/* The list; its lock is held. The row of a directory; NULL: there is none. */
struct meta_checkpoint *checkpoints_find(const struct checkpoints *checkpoints, uint64_t directory);
/* -ENOMEM. */
errint checkpoints_put(struct checkpoints *checkpoints, const struct meta_checkpoint *row);
void checkpoints_drop(struct checkpoints *checkpoints, uint64_t directory);
/* The mark is with that one of the run that is the latest by what the list says. */
void checkpoints_mark_latest(struct checkpoints *checkpoints, uint64_t run);

/* What was found of a run is so in the list and the database, and those who wait are told. While `looking` is
 * held. */
errint checkpoints_take(struct filesystem *fs, uint64_t run, const struct checkpoints_found *found,
                        size_t count);
/* `path` and `reason` may be NULL. */
void checkpoints_emit(struct filesystem *fs, enum event_kind kind, const struct meta_checkpoint *row,
                      const char *path, const char *reason);

/* Looks, and takes what was found to the list and the database; for any thread that holds no lock. */
errint checkpoints_look_now(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out);

/* Brings files of the checkpoints that are busy to stable storage. -EBUSY: some are not sealed yet. */
errint checkpoints_sync_busy(struct filesystem *fs, const struct checkpoints_seen *seen);

#define cleanup_seen __attribute__((cleanup(checkpoints_release_seen)))

#endif
