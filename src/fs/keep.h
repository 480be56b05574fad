/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the policy of a run means for its checkpoints, on the mount: which stay, which go, and why
 * (ckpt/keep.h). Who calls it at which time is another matter (fs/keep_watch.h).
 *
 * A directory's policy removes only what its owner could: where neither root nor the user who mounted owns
 * the directory that has it, only checkpoints of that owner, in runs of his.
 *
 * Thread-safe. Files are read: no lock is held, and no thread that answers the kernel may wait for it.
 */
#ifndef CKPTFS_FS_KEEP_H
#define CKPTFS_FS_KEEP_H

#include <sys/types.h>

#include "ckpt/keep.h"
#include "ckpt/run.h"

struct filesystem;

/* The question whether to end early, for who asks it with a context alone: keep_stops is given one of these.
 */
struct keep_work {
    struct filesystem *fs;
    bool (*stops)(struct filesystem *fs);
};
bool keep_stops(void *work);

/* A run's checkpoints as they are just now; those of one index belong together. */
struct keep_list {
    struct run run; /* owns the texts */
    struct keep_policy policy;
    bool trusted;     /* the policy holds for everybody's checkpoints */
    uint64_t *inodes; /* of directories, and of files that are checkpoints; 0: it is gone */
    struct keep_checkpoint *checkpoints; /* what is known of each */
    struct keep_verdict *verdicts;
    size_t count; /* 0: the directory is no run, or no policy may remove anything */
};

/* Whether the directory has a checkpoint that may go, by names alone: what is one itself, or a part of one,
 * is not read. -ENOENT; -ENOTDIR. */
errint keep_is_run(struct filesystem *fs, uint64_t directory, bool *out);

/* Gathers what there is and judges it by the directory's policy. `stops`: asked now and then; true ends it
 * with -ECANCELED. -ENOENT; -ENOTDIR; -EBUSY while what names a checkpoint for a resume is being written.
 * `out` is given to keep_list_release in any case. */
errint keep_gather(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                   struct keep_list *out);
void keep_list_release(struct keep_list *list);

#define cleanup_keep_list __attribute__((cleanup(keep_list_release)))

/*
 * Gathers, and removes what goes, in order. `removed` is called for each with the result of keep_remove; it
 * may be NULL. The list is as it was before. As keep_gather.
 */
errint keep_apply(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                  void (*removed)(void *context, const struct keep_list *list, size_t index, errint error),
                  void *context, struct keep_list *list);

/* What a mount knows of a checkpoint, as keep.h has it. */
struct keep_marks {
    bool open, pinned, loaded, exported, unsettled, torn, latest;
};

struct keep_asked {
    uint64_t ino;
    uint64_t handles;             /* of a file, so many are the asker's own */
    pid_t thread;                 /* of the asker, who does not count as a job; 0: none */
    bool (*stops)(void *context); /* true ends it with -ECANCELED */
    void *context;
};
/* -ENOENT. */
errint keep_find_marks(struct filesystem *fs, const struct keep_asked *asked, struct keep_marks *out);
/* Whether nothing of it may be given up now, whatever was judged before. */
bool keep_is_used(const struct keep_marks *marks);

#endif
