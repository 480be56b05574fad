/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a checkpoint is that is being written over in its place (fs/rewrite.h), where its own structure says
 * that it is complete: it may have files of two saves.
 */
#ifndef CKPTFS_FS_REWRITE_JUDGE_H
#define CKPTFS_FS_REWRITE_JUDGE_H

#include "fs/checkpoints_internal.h"
#include "fs/rewrite.h"

/*
 * The state of a checkpoint that was found to be `state`, as files and processes are. Not finished is what
 * has files of two saves (ckpt/rewritten.h), or lacks what it had for a resume, unless all who changed
 * something have ended well: such a one is being written while one of them lives, else incomplete; and
 * unknown where it is not known whether one lives. Reads what both directories have; no lock is held.
 */
errint rewrite_judge(struct filesystem *fs, const struct rewrite_seen *seen, enum writers_state writers,
                     enum checkpoint_state *state);

#endif
