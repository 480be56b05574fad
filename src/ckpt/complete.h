/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a checkpoint is complete: decided by the structure of what is written, never by a timer.
 *
 * Names are looked at first: markers (complete_markers.h), shards that an index names, ranks that are
 * missing. Files are opened only when nothing is missing by name, or when all reasons are asked for; of each
 * only headers and directories are read. Whoever asks again and again, at each seal, gives a memory of the
 * files that were found whole: then only new ones are read.
 *
 * Where structure cannot tell, the state is COMPLETE_UNKNOWN, and nothing may be hidden or removed because of
 * it.
 */
#ifndef CKPTFS_CKPT_COMPLETE_H
#define CKPTFS_CKPT_COMPLETE_H

#include "ckpt/file_check.h"
#include "ckpt/trainer_progress.h"
#include "ckpt/tree.h"

enum complete_state {
    COMPLETE_UNKNOWN,
    COMPLETE_NOT,     /* something is missing: the notes say what */
    COMPLETE_WEIGHTS, /* a whole model, without what a resume needs */
    COMPLETE_YES,
};

/* "unknown", "incomplete", "weights-only", "complete": told to people and scripts, never changed. */
const char *complete_state_name(enum complete_state state);

enum { COMPLETE_NOTES_MAX = 50, COMPLETE_NOTE_LENGTH = 400 };

struct complete_note {
    bool missing; /* it keeps the checkpoint from being complete */
    const char *text;
};

/* Which files were found whole, and what trainer_state.json told: kept by the caller between questions. */
struct complete_memory {
    void *context;
    /* Whether the file was found whole when it was as it is now. */
    bool (*is_whole)(void *context, const struct tree_entry *file);
    void (*keep_whole)(void *context, const struct tree_entry *file);
    /* Whether it is known what the file told when it was as it is now; `out` has that then. */
    bool (*recall_progress)(void *context, const struct tree_entry *file, struct trainer_progress *out);
    void (*keep_progress)(void *context, const struct tree_entry *file,
                          const struct trainer_progress *progress);
};

/* The files that the other checkpoints of the run have in common (complete_expect.h). */
struct complete_names {
    const char **at; /* sorted as strcmp; with '#' for each number */
    size_t count;
};

struct complete_asked {
    const char *name;  /* of the checkpoint's directory; "": not known */
    bool own_level;    /* other checkpoints lie below it: only its own files are its */
    bool all_reasons;  /* files are read also when something is missing already */
    bool awaited;      /* the processes that write the run live: ranks' last files are waited for */
    const char *proof; /* what outside the checkpoint says that it is complete; NULL: nothing */
    const struct complete_names *expected; /* NULL: nothing is known of the others */
    const struct complete_memory *memory;  /* NULL: none */
};

struct complete {
    struct arena arena; /* owns the texts */
    enum complete_state state;
    struct complete_note notes[COMPLETE_NOTES_MAX]; /* those with `missing` are no fewer than said here */
    size_t note_count, notes_left_out;
    const char *framework; /* "transformers", "deepspeed-zero3", "dcp", ...; "unknown" */
    int64_t world_size;    /* 0: not known */
    int64_t step;          /* as the files tell; -1: they do not */
    int64_t random_states; /* files of a Trainer's random generators, one a rank; 0: none, or one for all */
    unsigned missing;      /* things that keep it from being complete, those left out of the notes too */
    unsigned awaits;       /* of these: ranks' last files, which a process that lives may write still */
    unsigned others;       /* of these: files that the run's other checkpoints have */
    bool sharded;          /* its weights are in shards that no loader takes as they are */
    bool shed;             /* the optimizer's state was given up for its space: no resume can begin with it */
    bool config;           /* a config.json or adapter_config.json lies somewhere in it */
    uint64_t config_hash;  /* of the text of that in its own directory; 0: there is none */
    int64_t bytes, time;   /* of all files; of the newest, 0: not known */
    size_t files;
    struct complete_names names;  /* of its files, of those that are compared */
    struct complete_names shared; /* of these: those that others of the run are expected to have too */
    struct trainer_progress progress;
};

/*
 * Judges the checkpoint that the folder is. 0; or a negative errno that has nothing to do with the bytes:
 * -ENOMEM, -EIO; -EBUSY where the folder refuses a file that is being written. `out` is given to
 * complete_release in any case. Memory: what the largest header takes, as the parsers have it. Thread-safe as
 * far as the folder is.
 */
errint complete_judge(const struct folder *folder, const struct complete_asked *asked, struct complete *out);
void complete_release(struct complete *complete);

/*
 * Judges again what was judged with nothing expected, now that the other checkpoints are known: files that
 * all of them have are missing here. Only names are compared. -ENOMEM.
 */
errint complete_expect(struct complete *complete, const struct complete_names *expected);

/*
 * Judges again by how many processes saved the checkpoint before, where no file of this one tells of more:
 * with `awaited` their last files are waited for, else it is noted that they never came. -ENOMEM.
 */
errint complete_expect_ranks(struct complete *complete, int64_t ranks, bool awaited);

#define cleanup_complete __attribute__((cleanup(complete_release)))

#endif
