/* SPDX-License-Identifier: Apache-2.0 */
/* The module of a states file: the model as ZeRO-0 to 2 save it, and what else is in it beside partitions. */
#include "ckpt/deepspeed.h"

#include <errno.h>

/* Names, to find them again. */

static errint module_add_name(struct name_table *table, const char *name)
{
    errint error = name ? name_table_add(table, name, 0) : 0;
    return error == -EEXIST ? 0 : error;
}

static errint module_collect_buffers(const struct saved_file *states, struct name_table *table)
{
    const struct pickle_node *names = pickle_get(states->torch.root, "buffer_names");
    for (size_t i = 0; i < pickle_count(names); i++) {
        errint error = module_add_name(table, node_text(pickle_item(names, i)));
        if (error)
            return error;
    }
    return 0;
}

/* -- one entry --------------------------------------------------------------------------------------------
 */

struct module_walk {
    struct deepspeed_tag *tag;
    struct saved_file *states;
    const struct pickle_node *module;
    struct name_table buffers;
    struct name_table known; /* names that are made from other bytes */
};

/* What is no tensor (a module's extra state) is told and left out. */
static int module_read_entry(struct module_walk *walk, size_t i, const char **name, struct tensor *tensor)
{
    const struct pickle_node *value = pickle_dict_value(walk->module, i);
    *name = node_text(pickle_dict_key(walk->module, i));
    if (*name && torch_file_is_tensor(value))
        return saved_file_told(
            walk->tag->model, walk->states,
            torch_file_tensor(&walk->states->torch, value, tensor, &walk->states->problem));
    errint error = model_add_note(walk->tag->model, false, "%s: module: %s is no tensor; left out",
                                  walk->states->path, *name ? *name : "a key");
    *name = NULL;
    return error;
}

/* Adds the tensor; as FP32 where it has a floating-point type and `master` is wanted. */
static errint module_add_tensor(struct module_walk *walk, const struct tensor *tensor, const char *name,
                                bool buffer, bool master)
{
    errint error = model_add_whole(walk->tag->model, tensor, name, walk->states->index);
    struct model_tensor *added = error ? NULL : model_find_tensor(walk->tag->model, name);
    if (!added)
        return error;
    added->buffer = buffer;
    if (master && deepspeed_is_float(added->stored))
        added->type = TENSOR_F32;
    return 0;
}

static int module_begin(struct deepspeed_tag *tag, struct saved_file *states, struct module_walk *walk)
{
    *walk = (struct module_walk){
        .tag = tag, .states = states, .module = pickle_get(states->torch.root, "module")};
    if (!pickle_is_dict(walk->module))
        return saved_file_told(
            tag->model, states,
            format_problem_set(&states->problem, -1, "expected a dict module, found none"));
    return module_collect_buffers(states, &walk->buffers);
}

static void module_end(struct module_walk *walk)
{
    name_table_release(&walk->buffers);
    name_table_release(&walk->known);
}

/* -- the model as it was saved ----------------------------------------------------------------------------
 */

int deepspeed_load_module(struct deepspeed_tag *tag, struct saved_file *states)
{
    __attribute__((cleanup(module_end))) struct module_walk walk;
    int error = module_begin(tag, states, &walk);
    for (size_t i = 0; !error && i < pickle_dict_count(walk.module); i++) {
        const char *name;
        struct tensor tensor;
        error = module_read_entry(&walk, i, &name, &tensor);
        if (!error && name)
            error =
                module_add_tensor(&walk, &tensor, name, name_table_find(&walk.buffers, name, NULL), false);
    }
    return error;
}

/* -- parts of the FP32 model ------------------------------------------------------------------------------
 */

bool deepspeed_is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16 || type == TENSOR_F64;
}

int deepspeed_add_buffers(struct deepspeed_tag *tag, struct saved_file *states)
{
    __attribute__((cleanup(module_end))) struct module_walk walk;
    int error = module_begin(tag, states, &walk);
    for (size_t i = 0; !error && i < pickle_dict_count(walk.module); i++) {
        const char *name = node_text(pickle_dict_key(walk.module, i));
        struct tensor tensor;
        if (!name || !name_table_find(&walk.buffers, name, NULL))
            continue;
        error = module_read_entry(&walk, i, &name, &tensor);
        if (!error && name)
            error = module_add_tensor(&walk, &tensor, name, true, true);
    }
    return error;
}

static errint module_collect_groups(const struct deepspeed_group *groups, size_t count,
                                    struct name_table *table)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < groups[i].count; k++) {
            errint error = module_add_name(table, groups[i].parameters[k].name);
            if (error)
                return error;
        }
    }
    return 0;
}

static errint module_collect_keys(const struct pickle_node *dict, struct name_table *table)
{
    for (size_t i = 0; i < pickle_dict_count(dict); i++) {
        errint error = module_add_name(table, node_text(pickle_dict_key(dict, i)));
        if (error)
            return error;
    }
    return 0;
}

int deepspeed_add_left(struct deepspeed_tag *tag, struct saved_file *states,
                       const struct deepspeed_group *groups, size_t group_count)
{
    __attribute__((cleanup(module_end))) struct module_walk walk;
    int error = module_begin(tag, states, &walk);
    if (!error)
        error = module_collect_groups(groups, group_count, &walk.known);
    if (!error)
        error = module_collect_keys(pickle_get(states->torch.root, "shared_params"), &walk.known);
    for (size_t i = 0; !error && i < pickle_dict_count(walk.module); i++) {
        const char *name = node_text(pickle_dict_key(walk.module, i));
        struct tensor tensor;
        if (!name || name_table_find(&walk.known, name, NULL) || model_find_tensor(tag->model, name))
            continue;
        error = module_read_entry(&walk, i, &name, &tensor);
        if (!error && name)
            error = module_add_tensor(&walk, &tensor, name, false, true);
    }
    return error;
}

int deepspeed_add_master(struct deepspeed_tag *tag, const struct deepspeed_parameter *parameter,
                         enum tensor_type stored, struct model_tensor **out)
{
    errint error = model_add_tensor(tag->model, parameter->name,
                                    deepspeed_is_float(stored) ? TENSOR_F32 : stored, &parameter->shape, out);
    if (!error && *out)
        (*out)->stored = stored;
    return error;
}

int deepspeed_add_shared(struct deepspeed_tag *tag, const struct saved_file *states)
{
    const struct pickle_node *shared = pickle_get(states->torch.root, "shared_params");
    for (size_t i = 0; i < pickle_dict_count(shared); i++) {
        const char *name = node_text(pickle_dict_key(shared, i));
        const char *stored_as = node_text(pickle_dict_value(shared, i));
        const struct model_tensor *stored = stored_as ? model_find_tensor(tag->model, stored_as) : NULL;
        /* What the parameter was stored as may be frozen and left out of the checkpoint. */
        if (!name || !stored || model_find_tensor(tag->model, name))
            continue;
        const char *kept = stored->tied ? stored->tied : stored->name;
        struct model_tensor *added, from = *stored;
        errint error = model_add_tensor(tag->model, name, from.type, &from.shape, &added);
        if (error)
            return error;
        added->stored = from.stored;
        added->tied = kept;
    }
    return 0;
}
