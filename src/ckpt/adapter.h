/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of PEFT: a model of nothing but low-rank weights, known by its tensors' names. */
#ifndef CKPTFS_CKPT_ADAPTER_H
#define CKPTFS_CKPT_ADAPTER_H

#include "ckpt/model.h"

/* Calls a model whose tensors are all an adapter's "adapter_model". */
void adapter_mark(struct model *model);

#endif
