/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which checkpoints a directory holds, as trainers name and write them, with no configuration. Only names are
 * looked at; what is in a checkpoint is complete.h's.
 */
#ifndef CKPTFS_CKPT_DETECT_H
#define CKPTFS_CKPT_DETECT_H

#include "base/arena.h"
#include "ckpt/folder.h"

struct detected {
    const char *path; /* in the folder; "": the folder itself */
    int64_t step;     /* as its name tells; -1: it does not */
    bool file;        /* one file that is a checkpoint (Lightning) */
    bool own_level;   /* others lie below it: a model saved into the run's own directory */
};

struct detect {
    struct arena arena;
    struct detected *at; /* in the order of listings */
    size_t count, capacity;
};

/* The step in a name that a trainer gives to a checkpoint's directory: checkpoint-500, global_step500, ...;
 * -1: it is no such name. */
int64_t detect_step_of_name(const char *name);

/*
 * Looks through a directory: a run with its checkpoints, or one checkpoint, or neither (count is 0). `name`
 * is the directory's own, "": not known. 0 or -errno of listing; `out` is given to detect_release in any
 * case.
 */
errint detect_checkpoints(const struct folder *folder, const char *name, struct detect *out);
void detect_release(struct detect *detect);

#define cleanup_detect __attribute__((cleanup(detect_release)))

#endif
