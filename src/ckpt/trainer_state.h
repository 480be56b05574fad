/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a HuggingFace Trainer's files beside the weights tell of a checkpoint.
 */
#ifndef CKPTFS_CKPT_TRAINER_STATE_H
#define CKPTFS_CKPT_TRAINER_STATE_H

#include "ckpt/folder.h"

/*
 * The step at which the checkpoint was saved: "global_step" of trainer_state.json, which need not be strict
 * JSON (Python writes NaN and Infinity into it); -1: it is not there, or does not say. 0 or -errno of
 * reading.
 */
errint trainer_state_step(const struct folder *folder, const struct folder_listing *listing, int64_t *step);

/* How many processes left a file with the states of their random generators, as each does; 0: none did, or
 * not all of them from 0 on. */
int64_t trainer_state_world_size(const struct folder_listing *listing);

#endif
