/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a torch.save file is an optimizer's state: what lies under "state" of a dict that has
 * "param_groups" beside it, as torch.optim.Optimizer.state_dict() makes it (PyTorch,
 * torch/optim/optimizer.py, 2.13), wherever in the file such a dict is. Copies of the weights that trainers
 * keep beside these dicts, as DeepSpeed does, are none of it.
 */
#ifndef CKPTFS_FORMAT_TORCH_OPTIMIZER_H
#define CKPTFS_FORMAT_TORCH_OPTIMIZER_H

#include "format/torch_file.h"

struct torch_range {
    int64_t offset, length; /* in the source */
};

/*
 * The storages that such state alone uses, by offset; one that anything else in the file refers to is left
 * out. 0; FORMAT_FOREIGN: the file is of the older form, or nested too deep; -ENOMEM. The caller frees *out.
 */
int torch_optimizer_find(const struct torch_file *file, struct torch_range **out, size_t *count);

#endif
