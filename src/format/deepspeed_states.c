/* SPDX-License-Identifier: Apache-2.0 */
/* Looking for what DeepSpeed's states files say of parameters. */
#include "format/deepspeed_states.h"

#include <errno.h>
#include <inttypes.h>

#include "format/nodes.h"

/* -- values -----------------------------------------------------------------------------------------------
 */

bool deepspeed_integer(const struct pickle_node *node, int64_t *value)
{
    if (node && node->kind == PICKLE_CALL &&
        pickle_is_global(node->function, "deepspeed.runtime.zero.config "
                                         "ZeroStageEnum"))
        node = node->count == 1 ? node->items[0] : NULL;
    return pickle_integer(node, value);
}

/* -- shapes -----------------------------------------------------------------------------------------------
 */

int deepspeed_read_shapes(const struct pickle_node *dict, struct arena *arena, struct deepspeed_group *out,
                          struct format_problem *problem)
{
    if (!pickle_is_dict(dict))
        return format_problem_set(problem, -1, "expected a dict of parameters' shapes, found something else");
    out->count = pickle_dict_count(dict);
    out->parameters = arena_take_array(arena, out->count, sizeof *out->parameters);
    if (!out->parameters)
        return -ENOMEM;
    for (size_t i = 0; i < out->count; i++) {
        struct deepspeed_parameter *parameter = &out->parameters[i];
        parameter->name = node_text(pickle_dict_key(dict, i));
        if (!parameter->name)
            return format_problem_set(problem, -1, "a parameter's name is no text");
        int error = node_shape(pickle_dict_value(dict, i), arena, &parameter->shape, problem);
        if (error)
            return error;
        if (!tensor_count(&parameter->shape, &parameter->count))
            return format_problem_set(problem, -1, "the shape of %s does not fit", parameter->name);
    }
    return 0;
}

int deepspeed_read_groups(const struct pickle_node *list, struct arena *arena, struct deepspeed_group **out,
                          size_t *count, struct format_problem *problem)
{
    bool single = pickle_is_dict(list);
    if (!single && !node_is_sequence(list))
        return format_problem_set(problem, -1, "param_shapes: expected a list, found something else");
    *count = single ? 1 : list->count;
    *out = arena_take_array(arena, *count, sizeof **out);
    if (!*out)
        return -ENOMEM;
    for (size_t i = 0; i < *count; i++) {
        int error = deepspeed_read_shapes(single ? list : list->items[i], arena, &(*out)[i], problem);
        if (error)
            return error;
    }
    return 0;
}

/* -- the optimizer ----------------------------------------------------------------------------------------
 */

static int deepspeed_read_world_size(const struct pickle_node *node, struct deepspeed_optimizer *out,
                                     struct format_problem *problem)
{
    bool several = node_is_sequence(node);
    size_t count = several ? node->count : 1;
    for (size_t i = 0; i < count; i++) {
        int64_t ranks;
        if (!pickle_integer(several ? node->items[i] : node, &ranks) || ranks < 1)
            return format_problem_set(problem, -1, "partition_count: expected numbers from 1 on");
        out->uneven |= i > 0 && ranks != out->world_size;
        if (ranks > out->world_size)
            out->world_size = ranks;
    }
    return count > 0 ? 0 : format_problem_set(problem, -1, "partition_count is empty");
}

int deepspeed_read_optimizer(const struct pickle_node *root, struct deepspeed_optimizer *out,
                             struct format_problem *problem)
{
    *out = (struct deepspeed_optimizer){.stage = -1};
    const struct pickle_node *state = pickle_get(root, "optimizer_state_dict");
    if (!pickle_is_dict(state))
        return format_problem_set(problem, -1, "expected an optimizer_state_dict, found none");
    const struct pickle_node *stage = pickle_get(state, "zero_stage");
    if (stage && (!deepspeed_integer(stage, &out->stage) || out->stage < 0 || out->stage > 3))
        return format_problem_set(problem, -1, "zero_stage: expected a number from 0 to 3");
    int error = deepspeed_read_world_size(pickle_get(state, "partition_count"), out, problem);
    if (error)
        return error;
    const char *key = out->stage == 3 ? "fp32_flat_groups" : "single_partition_of_fp32_groups";
    out->partitions = pickle_get(state, key);
    if (!node_is_sequence(out->partitions))
        return format_problem_set(problem, -1, "expected a list %s, found none", key);
    out->alignments = pickle_get(state, "param_alignment_paddings");
    /* They are counted as if the parameters were not dealt out in turns, which `param_shapes` knows. */
    const struct pickle_node *config = pickle_get(pickle_get(root, "ds_config"), "zero_optimization");
    const struct pickle_node *dealt = pickle_get(config, "round_robin_gradients");
    if (config && (!dealt || (dealt->kind == PICKLE_BOOL && dealt->integer == 0)))
        out->slices = pickle_get(state, "param_slice_mappings");
    return 0;
}

bool deepspeed_read_slice(const struct deepspeed_optimizer *optimizer, size_t group, size_t i,
                          struct deepspeed_slice *out)
{
    const struct pickle_node *slices = pickle_item(optimizer->slices, group);
    const struct pickle_node *address = pickle_dict_value(slices, i);
    out->name = node_text(pickle_dict_key(slices, i));
    return out->name && pickle_integer(pickle_attribute(address, "start"), &out->start) &&
           pickle_integer(pickle_attribute(address, "numel"), &out->count);
}

int deepspeed_read_flat(struct torch_file *file, const struct pickle_node *node, struct tensor *out,
                        int64_t *count, struct format_problem *problem)
{
    int error = torch_file_tensor(file, node, out, problem);
    if (error)
        return error;
    if (out->shape.rank != 1 || (out->strides && out->strides[0] != 1 && out->shape.sizes[0] > 1))
        return format_problem_set(problem, out->offset,
                                  "expected a flat partition, found a tensor of %" PRIu32 " dimensions",
                                  out->shape.rank);
    *count = out->shape.sizes[0];
    return 0;
}
