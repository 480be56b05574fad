/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkpoints that lie in the namespace. When the files of a directory have come to rest, the run that it
 * belongs to is looked at (ckpt/run.h), without being asked and with no configuration; a checkpoint that is
 * found complete is brought to stable storage, with the journal that a lost database is made from again.
 *
 * What was found is kept in the database: a start knows it at once. It is what was so when the files came to
 * rest; whoever acts on it looks again (checkpoints_look) before something is lost by it.
 *
 * Directories only: a checkpoint that is a single file (Lightning) is not followed.
 *
 * This is the one place that knows checkpoints. Its thread reads a run after a save, and only it; then it
 * applies the run's policy (fs/keep_watch.h). Whoever wants to know a checkpoint's state, step, size or marks
 * asks the list here; whoever must see a run as it is just now, before something is removed, reads it with
 * checkpoints_read_run, which opens only what nobody has found whole before.
 *
 * Locks, in this order: a look under way, a node's, the list's or that of the files found whole. Policies are
 * applied with none of them held.
 */
#ifndef CKPTFS_FS_CHECKPOINTS_H
#define CKPTFS_FS_CHECKPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meta/checkpoint.h"

struct filesystem;

/* In the database: never given another number. */
enum checkpoint_state {
    CHECKPOINT_UNKNOWN = 0,    /* structure does not tell */
    CHECKPOINT_WRITING = 1,    /* somebody can write one of its files, or has just done so */
    CHECKPOINT_INCOMPLETE = 2, /* something is missing, or cut */
    CHECKPOINT_WEIGHTS = 3,    /* a whole model, without what a resume needs; durable */
    CHECKPOINT_COMPLETE = 4,   /* complete, and durable */
};

enum checkpoint_mark {
    CHECKPOINT_LATEST = 1, /* the complete one of its run with the highest step; not in the database */
    CHECKPOINT_BEST = 2,   /* the newest trainer_state.json of its run names it, and it is complete */
    CHECKPOINT_WHOLE = 4,  /* it was complete, and nothing was written since: at most, files were removed */
    CHECKPOINT_SHED =
        16,              /* its optimizer's state was given up (fs/shed.h): its state is CHECKPOINT_WEIGHTS */
    CHECKPOINT_COPY = 8, /* it was not saved there, but copied (fs/writers.h) */
};

/* Told to people and scripts, never changed. */
const char *checkpoint_state_name(enum checkpoint_state state);

/* Nothing is known yet; before anything else of this. -ENOMEM. */
errint checkpoints_prepare(struct filesystem *fs);
/* Reads what is known; where the mount is not read-only, looks from now on. */
errint checkpoints_start(struct filesystem *fs);
/* Ends the looking. What is known can still be asked for, until checkpoints_release. */
void checkpoints_stop(struct filesystem *fs);
void checkpoints_release(struct filesystem *fs);

/* The following are thread-safe; none needs a lock held, and those that say so may be called with a node's.
 */

/* The file was sealed, or lies elsewhere now. With a node's lock. */
void checkpoints_touch(struct filesystem *fs, uint64_t ino);
/* The directory has other names than before. With a node's lock. */
void checkpoints_touch_directory(struct filesystem *fs, uint64_t directory);
/* A file of a checkpoint. */
struct checkpoints_file {
    const char *name;
    uint64_t ino;
    int64_t made; /* ns since the epoch */
};
/* The file's name went from the directory. With or without a node's lock. */
void checkpoints_after_removal(struct filesystem *fs, uint64_t directory,
                               const struct checkpoints_file *file);
/* The checkpoint is about to be written in: what goes from it is no removal. With `needed` a file that it is
 * complete with is: it is complete no more, and another one is its run's latest at once. */
void checkpoints_begin_rewrite(struct filesystem *fs, uint64_t checkpoint, bool needed);
/* Whether the file is none that the checkpoint was found complete with, or none that anybody needs: whoever
 * writes it leaves the checkpoint complete. `kept`: what has what it was (rewrite_kept), by whatever clock it
 * was made before. */
bool checkpoints_is_addition(const struct meta_checkpoint *checkpoint, uint64_t kept,
                             const struct checkpoints_file *file);
/* Files of it were shed (fs/shed.h): it is no resume's any more, at once and after a start, before the next
 * look tells the rest. Without a node's lock. */
void checkpoints_note_shed(struct filesystem *fs, uint64_t checkpoint);
/* A directory in it was removed, and with it its row in the database. */
void checkpoints_after_rmdir(struct filesystem *fs, uint64_t directory, const char *name, uint64_t removed);

/* Whether any is known. */
bool checkpoints_has_any(struct filesystem *fs);
/* The checkpoint that the directory is, or that it lies in, at most three levels below; 0: none is known.
 * Costs a look in memory where no checkpoint is known, else up to three look-ups. */
uint64_t checkpoints_root(struct filesystem *fs, uint64_t directory);
/* Whether the directory is, or lies in, one that is complete or has been, and since then only lost files. */
bool checkpoints_is_complete(struct filesystem *fs, uint64_t directory);
/* What is known of a checkpoint; -ENOENT. */
errint checkpoints_get(struct filesystem *fs, uint64_t directory, struct meta_checkpoint *out);
/* The checkpoints of a run, by step. The caller frees *out. -ENOMEM. */
errint checkpoints_of_run(struct filesystem *fs, uint64_t run, struct meta_checkpoint **out, size_t *count);
/* All runs, by inode number. The caller releases *out. -ENOMEM. */
struct ids;
errint checkpoints_runs(struct filesystem *fs, struct ids *out);
/* The run's checkpoint with the mark; 0: none. */
uint64_t checkpoints_marked(struct filesystem *fs, uint64_t run, enum checkpoint_mark mark);

/*
 * Whether a look may find a torn checkpoint in the run: one that is not complete, or that was written since
 * the last look, and another that is or may be complete; or one that was shed and has the highest step.
 */
bool checkpoints_may_be_torn(struct filesystem *fs, uint64_t run);

/* A run that is to be read as it is just now. */
struct checkpoints_asked {
    uint64_t run;
    const char *name; /* of its directory; "": not known */
    bool awaited;     /* the processes that write it live (ckpt/complete.h) */
    int64_t since;    /* with that: when they began (ckpt/run.h) */
    bool unsafe;      /* what is not on stable storage yet is read, too */
    /* Not NULL: files that are being added to complete checkpoints are passed over, and those checkpoints
     * are appended. */
    struct ids *added_to;
    bool (*stops)(struct filesystem *fs); /* asked at each read: true ends it with -ECANCELED */
};
/*
 * Reads it for whoever acts on what it is. What was found whole, by whomever, is not read again. A file that
 * somebody writes (or that is not safe), or that has lost bytes, keeps only its own checkpoint unjudged. As
 * run_read; not for a thread that answers the kernel. `out` is given to run_release in any case.
 */
struct run;
errint checkpoints_read_run(struct filesystem *fs, const struct checkpoints_asked *asked, struct run *out);

/* There is something for the thread that fs/keep_watch.h knows of. */
void checkpoints_wake(struct filesystem *fs);
/* Files and directories that wait to be looked at. */
size_t checkpoints_waiting(struct filesystem *fs);

#endif
