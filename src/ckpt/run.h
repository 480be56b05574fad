/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run: its checkpoints, each judged by what is in it and by what the others have, in the order of their
 * steps.
 */
#ifndef CKPTFS_CKPT_RUN_H
#define CKPTFS_CKPT_RUN_H

#include "ckpt/complete.h"
#include "ckpt/detect.h"

struct run_checkpoint {
    const char *path; /* in the run; "": the run's own directory */
    int64_t step;     /* -1: not known */
    bool file;        /* one file */
    bool latest;      /* of those that are complete the last */
    bool best;        /* the one that the newest trainer_state.json names */
    bool named;       /* a file of the run that is read at a resume names it */
    bool no_template; /* its weights are in shards, and no config.json is there to make them loadable */
    errint error; /* not 0: it could not be judged (run_asked's `separately`); only size and time are known */
    struct complete complete;
    bool measured; /* it has a metric: the one that the Trainer chooses by, or else a loss */
    struct trainer_metric metric;
};

struct run {
    struct arena arena;
    struct run_checkpoint *at; /* by step, then by time; those without a step are the last */
    size_t count;
};

struct run_asked {
    const char *name;          /* of the run's directory; "": not known */
    bool all_reasons, awaited; /* as complete_asked has them */
    /* With `awaited`: a checkpoint of which a file was changed after this (ns since the epoch) was saved by
     * the same processes as the one that is being saved: as many ranks are awaited there. INT64_MAX: none. */
    int64_t since;
    bool separately; /* a file that is refused (-EBUSY, -EIO) keeps only its own checkpoint unjudged */
    /* What is known of the files of the checkpoint at `path`, until the next is asked for. NULL: nothing. */
    const struct complete_memory *(*memory)(void *context, const char *path);
    void *context;
};

/*
 * Looks through a directory. The count is 0 when it holds no checkpoint. 0 or -errno; `out` is given to
 * run_release in any case. Thread-safe as far as the folder is.
 */
errint run_read(const struct folder *folder, const struct run_asked *asked, struct run *out);
void run_release(struct run *run);

/* The metric that the Trainer chooses the best by, where any checkpoint of the run tells it; NULL: none does.
 */
const char *run_metric_name(const struct run *run);

#define cleanup_run __attribute__((cleanup(run_release)))

#endif
