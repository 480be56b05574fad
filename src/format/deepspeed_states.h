/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What DeepSpeed's states files say of a model's parameters: their shapes in the order of the flat buffers
 * that an optimizer keeps, and the partition of each buffer that one rank saved (deepspeed/runtime/engine.py,
 * zero/stage_1_and_2.py, zero/stage3.py, bf16_optimizer.py, 0.19.8). Looks at nodes only; the files are read
 * by format/torch_file.h.
 *
 * Functions return 0; FORMAT_FOREIGN with `problem` filled; or -ENOMEM. What they give lives in the arena,
 * names in that of the nodes.
 */
#ifndef CKPTFS_FORMAT_DEEPSPEED_STATES_H
#define CKPTFS_FORMAT_DEEPSPEED_STATES_H

#include "format/pickle.h"
#include "format/tensor.h"
#include "format/torch_file.h"

/* A parameter in a flat buffer. */
struct deepspeed_parameter {
    const char *name;
    struct tensor_shape shape;
    int64_t count; /* elements */
};

/* The parameters of one flat buffer, in its order. */
struct deepspeed_group {
    struct deepspeed_parameter *parameters;
    size_t count;
};

/* A dict from a name to a torch.Size (`frozen_param_shapes`, one of `param_shapes`). */
int deepspeed_read_shapes(const struct pickle_node *dict, struct arena *arena, struct deepspeed_group *out,
                          struct format_problem *problem);
/* `param_shapes`: a list of such dicts, one a flat buffer; in old versions one dict. */
int deepspeed_read_groups(const struct pickle_node *list, struct arena *arena, struct deepspeed_group **out,
                          size_t *count, struct format_problem *problem);
/* What one rank's optimizer holds (`optimizer_state_dict` of *_optim_states.pt). */
struct deepspeed_optimizer {
    int64_t stage;      /* of ZeRO; -1: not said, as BF16_Optimizer does not */
    int64_t world_size; /* ranks that a buffer is divided between, the most of all buffers */
    bool uneven;        /* not all buffers are divided between so many */
    const struct pickle_node *partitions; /* of each buffer this rank's part: tensors of one dimension */
    const struct pickle_node *alignments; /* elements behind each parameter of each buffer; NULL: none */
    const struct pickle_node *slices;     /* of each buffer: name → fragment_address; NULL: not to be had */
};

int deepspeed_read_optimizer(const struct pickle_node *root, struct deepspeed_optimizer *out,
                             struct format_problem *problem);

/* Where the rank's partition of a buffer holds what of a parameter (`param_slice_mappings`). */
struct deepspeed_slice {
    const char *name;
    int64_t start, count;
};

/* The i-th of a buffer, in the order of the optimizer's parameters; false behind the last one. */
bool deepspeed_read_slice(const struct deepspeed_optimizer *optimizer, size_t group, size_t i,
                          struct deepspeed_slice *out);

/* A tensor of one dimension without gaps, that lies in the file. */
int deepspeed_read_flat(struct torch_file *file, const struct pickle_node *node, struct tensor *out,
                        int64_t *count, struct format_problem *problem);

/* An int, or an enumeration's member (a call with its value). */
bool deepspeed_integer(const struct pickle_node *node, int64_t *value);

#endif
