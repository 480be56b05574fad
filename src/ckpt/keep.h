/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which checkpoints of a run stay, which go, and why: a pure function of what they are, of the policy and of
 * the time.
 *
 * Three things decide, in this order:
 * - What is protected stays, whatever the policy says: a checkpoint that is not known to be complete, that is
 *   being written, open, pinned, wanted for an export or loaded by a running job; another user's; the latest
 *   ones; the one that trainer_state.json names as the best. Of files in the run's own directory nothing
 * goes.
 * - max-age and max-bytes remove what is not protected, the oldest first, even where a rule wants it. To
 *   max-bytes the sizes of all the run's checkpoints count; what no rule wants goes before the rest.
 * - With "shed", what has an optimizer's state and is neither protected nor one of the two newest complete
 * ones gives that up for space before any checkpoint goes.
 * - Where there is a keep rule, what no rule wants goes. The rules count only checkpoints that are complete
 * (or whole models without what a resume needs), each for itself. Without a policy nothing goes.
 *
 * Neither the order of steps nor that of times can be trusted alone: a run may go back to an earlier step,
 * and a clock to an earlier time. So the last ones are those with the highest steps and those that were saved
 * last; as long as neither went back these are the same. Times that are equal are told apart by steps, then
 * by names.
 */
#ifndef CKPTFS_CKPT_KEEP_H
#define CKPTFS_CKPT_KEEP_H

#include "base/cleanup.h"
#include "ckpt/complete.h"
#include "ckpt/keep_policy.h"

struct keep_checkpoint {
    const char *path; /* in the run; "": the run's own directory */
    int64_t step;     /* -1: not known */
    int64_t time;     /* when it was completed: ns since the epoch; 0: not known */
    int64_t bytes;    /* logical */
    enum complete_state state;
    bool numbered; /* its name is one of those that trainers give in turn: "checkpoint-500" */
    const struct trainer_progress *progress; /* its metrics; NULL: none */
    bool best;                               /* trainer_state.json names it */
    bool named;                              /* a file that is read at a resume names it */
    bool latest;                             /* a mount's link to the latest one does (fs/checkpoints.h) */
    bool unsettled;                          /* files of it are being written, or not on stable storage yet */
    bool torn;                               /* files of it lost bytes in a crash */
    bool open;                               /* somebody has a file of it open */
    bool pinned;
    bool loaded;   /* a running job began with it */
    bool exported; /* is to be exported, and was not yet */
    bool foreign;  /* another user's than who set the policy */
};

enum { KEEP_REASON_MAX = 256 };

struct keep_verdict {
    bool goes;
    bool expendable; /* nothing protects it: it may be given up when the disk is full */
    bool sheds;      /* its optimizer's state may: nothing protects it, and it is none of the two newest */
    /* Of what goes and of what is expendable: 1 goes first. What goes comes first, then what stays, in each
     * what no rule wants first, then by age. 0: it is neither. */
    size_t order;
    char reason[KEEP_REASON_MAX]; /* "latest, keep-last 2"; "no rule wants it" */
};

/*
 * A verdict for each. `now`: ns since the epoch. -ENOMEM. Takes the time of a few sorts. Thread-safe.
 */
errint keep_judge(const struct keep_policy *policy, const struct keep_checkpoint *at, size_t count,
                  int64_t now, struct keep_verdict *out);

#endif
