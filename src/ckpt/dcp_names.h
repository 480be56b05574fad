/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which items of a torch.distributed.checkpoint are the model, and what the assembled file calls them.
 *
 * A checkpoint holds nested dictionaries: {"model": ...} from accelerate, {"model": ..., "optimizer": ...}
 * from people, {"app": {"model": ..., "optim": ...}} from torch's own example, the model's keys beside an
 * "optimizer" from torchtitan. A level that has a single key is left away, as accelerate's merge_fsdp_weights
 * does (accelerate/utils/fsdp_utils.py, 1.15); of a level that has several, the model's is taken if there is
 * one, and what trainers keep beside a model is left out. Objects that are no tensors are left out.
 */
#ifndef CKPTFS_CKPT_DCP_NAMES_H
#define CKPTFS_CKPT_DCP_NAMES_H

#include "base/arena.h"
#include "format/dcp_metadata.h"

/*
 * *out: a name for each item of the metadata, in the arena; NULL: it is no part of the model. -ENOMEM.
 */
errint dcp_names_choose(const struct dcp_metadata *metadata, struct arena *arena, const char ***out);

#endif
