/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run's checkpoints as keep.h takes them, with all that their files tell.
 */
#ifndef CKPTFS_CKPT_KEEP_RUN_H
#define CKPTFS_CKPT_KEEP_RUN_H

#include "ckpt/keep.h"
#include "ckpt/run.h"

/* Fills `out`, one for each checkpoint of the run, which it refers to; what only a mount knows is false. */
void keep_run_take(const struct run *run, struct keep_checkpoint *out);

/* The metric of keep-best, where the policy names none: the one that the Trainer chooses by. */
void keep_run_choose_metric(const struct run *run, struct keep_policy *policy);

#endif
