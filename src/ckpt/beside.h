/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an assembled file may lie beside the shards that it was made from: in the checkpoint's own directory.
 * Trainers look into that to resume, and many take a model.safetensors for something, so a kind of checkpoint
 * is in the table only when its loaders are known not to.
 */
#ifndef CKPTFS_CKPT_BESIDE_H
#define CKPTFS_CKPT_BESIDE_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

/* Whether the model's file may be added to the directory that it was read from, which holds `listing`. */
bool beside_is_harmless(const struct folder_listing *listing, const struct model *model);
/* Whether the directory has weights of its own: what would be added might be taken for them, or instead of
 * them. */
bool beside_has_weights(const struct folder_listing *listing);

#endif
