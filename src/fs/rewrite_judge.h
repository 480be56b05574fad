/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a checkpoint is that is being written over in its place (fs/rewrite.h), where its own structure says
 * that it is complete: it may have files of two saves.
 */
#ifndef CKPTFS_FS_REWRITE_JUDGE_H
#define CKPTFS_FS_REWRITE_JUDGE_H

#include "fs/checkpoints_internal.h"
#include "fs/rewrite.h"

/* A checkpoint that is being written over, and what is known of those who do it. */
struct rewrite_case {
    const struct rewrite_seen *seen;
    enum writers_state writers; /* of the run */
    uint64_t run;
    int64_t newest; /* when a file of it was changed last, ns since the epoch */
};

/*
 * The state of a checkpoint that was found to be `state`, as files and processes are. Not finished is what
 * has files of two saves (ckpt/rewritten.h), or lacks what it had for a resume. But it is finished when all
 * who changed something have ended well, or when one of them lives and another checkpoint of the run was
 * completed since: then it was to be so. What is not finished is being written while a process of the run
 * lives, else incomplete; and unknown where it is not known whether one lives. Reads what both directories
 * have; no lock is held.
 */
errint rewrite_judge(struct filesystem *fs, const struct rewrite_case *rewrite, enum checkpoint_state *state);

/* Whether nothing that a save writes is another than what was kept: whoever changed something meant that. */
errint rewrite_is_edit(struct filesystem *fs, const struct rewrite_seen *seen, bool *edit);

/* Whether all files that are needed of what was kept are there as they were: things were only added. */
errint rewrite_only_adds(struct filesystem *fs, const struct rewrite_seen *seen, bool *adds);

#endif
