/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a checkpoint that hold an optimizer's state and nothing of the model, by their names: what a
 * Trainer, accelerate and FSDP write. And files in which both may be (ckpt/optimizer_parts.h): DeepSpeed's
 * *_optim_states.pt have the fp32 weights, and .distcp files whatever was saved by one call.
 */
#ifndef CKPTFS_CKPT_OPTIMIZER_FILES_H
#define CKPTFS_CKPT_OPTIMIZER_FILES_H

#include <stdbool.h>

/* The path in the checkpoint: "optimizer.pt", "optimizer_0/__0_0.distcp". */
bool optimizer_file_is(const char *path);
/* Likewise: "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt", "__0_0.distcp". */
bool optimizer_file_may_be_mixed(const char *path);
/* A directory of the checkpoint that has such files: "optimizer_0". */
bool optimizer_directory_is(const char *name);

#endif
