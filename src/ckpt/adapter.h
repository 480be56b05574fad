/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of PEFT: a model of nothing but low-rank weights, known by its tensors' names. */
#ifndef CKPTFS_CKPT_ADAPTER_H
#define CKPTFS_CKPT_ADAPTER_H

#include "ckpt/model.h"

/*
 * Calls a model whose tensors are all an adapter's "adapter_model". Where their names hold that of the
 * adapter
 * ("default"), as in the model in memory, it is taken out, as PEFT does when it saves one. 0 or -ENOMEM.
 */
errint adapter_mark(struct model *model);

#endif
