/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a torch.save file is an optimizer's state: what lies under "state" of a dict that has
 * "param_groups" beside it, as torch.optim.Optimizer.state_dict() makes it (PyTorch,
 * torch/optim/optimizer.py, 2.13), wherever in the file such a dict is. Copies of the weights that trainers
 * keep beside these dicts, as DeepSpeed does, are none of it, nor are those that an optimizer keeps in them.
 */
#ifndef CKPTFS_FORMAT_TORCH_OPTIMIZER_H
#define CKPTFS_FORMAT_TORCH_OPTIMIZER_H

#include <stdbool.h>

#include "format/torch_file.h"

struct torch_range {
    int64_t offset, length; /* in the source */
};

/*
 * Whether a tensor that an optimizer keeps of a parameter under this key is, or may be, the parameter itself
 * in another type or as an average: "master_param" of Apex and TransformerEngine, "ax" of torch.optim.ASGD,
 * "z" of schedule-free ones.
 */
bool torch_optimizer_is_copy(const char *key, size_t length);

/*
 * The storages that such state alone uses, by offset; one that anything else in the file refers to is left
 * out. 0; FORMAT_FOREIGN: the file is of the older form, or nested too deep, or has a reference that is not
 * understood; -ENOMEM. The caller frees *out.
 */
int torch_optimizer_find(const struct torch_file *file, struct torch_range **out, size_t *count);

#endif
