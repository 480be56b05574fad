/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixture of experts (deepspeed.moe): what all ranks share is the module of mp_rank_00_model_states.pt, and
 * each expert of each layer is a file, whose names of tensors have the expert's number in the whole model
 * (DeepSpeedEngine._save_moe_checkpoint). So the whole model is all of them together, as a run has it that is
 * not expert-parallel.
 */
#include <inttypes.h>
#include <string.h>

#include "ckpt/deepspeed.h"

static int experts_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

static int experts_add(struct deepspeed_tag *tag, const struct deepspeed_name *expert)
{
    cleanup_saved_file struct saved_file file = {0};
    int error = deepspeed_file_open(tag, expert->file, &file);
    if (!error && !pickle_is_dict(file.torch.root))
        return saved_file_told(tag->model, &file,
                               format_problem_set(&file.problem, -1, "expected a dict of tensors"));
    for (size_t i = 0; !error && i < pickle_dict_count(file.torch.root); i++) {
        const char *name = node_text(pickle_dict_key(file.torch.root, i));
        const struct pickle_node *value = pickle_dict_value(file.torch.root, i);
        struct tensor tensor;
        if (!name || !torch_file_is_tensor(value))
            continue;
        error =
            saved_file_told(tag->model, &file, torch_file_tensor(&file.torch, value, &tensor, &file.problem));
        if (!error)
            error = model_add_whole(tag->model, &tensor, name, file.index);
    }
    return error;
}

/* Those of one layer: `expected` of them, with numbers from 0 on. */
static int experts_check_layer(struct deepspeed_tag *tag, const struct deepspeed_name *names, size_t count,
                               int64_t layer, int64_t expected)
{
    int64_t found = 0, missing = -1;
    for (size_t i = 0; i < count; i++) {
        if (names[i].layer != layer)
            continue;
        if (missing < 0 && names[i].dp != found)
            missing = found;
        found++;
    }
    if (found == expected && missing < 0)
        return 0;
    if (missing < 0 && found < expected)
        missing = found;
    if (missing >= 0 && missing < expected)
        return experts_told(model_add_note(tag->model, true,
                                           "layer_%" PRId64 "_expert_%" PRId64
                                           "_mp_rank_00_model_states.pt is missing: the layer has %" PRId64
                                           " experts",
                                           layer, missing, expected));
    return experts_told(model_add_note(
        tag->model, true, "layer %" PRId64 " has %" PRId64 " experts, and files of %" PRId64 " are here",
        layer, expected, found));
}

/* `num_experts` has the number of each layer of experts. */
static int experts_check(struct deepspeed_tag *tag, const struct saved_file *states,
                         const struct deepspeed_name *names, size_t count)
{
    const struct pickle_node *layers = pickle_get(states->torch.root, "num_experts");
    size_t layer_count = pickle_count(layers);
    if (layer_count == 0)
        return experts_told(model_add_note(
            tag->model, true, "%s: num_experts does not say how many experts there are", states->path));
    for (size_t i = 0; i < layer_count; i++) {
        int64_t expected;
        if (!pickle_integer(pickle_item(layers, i), &expected) || expected < 0)
            return experts_told(
                model_add_note(tag->model, true, "%s: num_experts holds no number", states->path));
        int error = experts_check_layer(tag, names, count, (int64_t)i, expected);
        if (error)
            return error;
    }
    if (names[count - 1].layer >= (int64_t)layer_count)
        return experts_told(model_add_note(tag->model, true,
                                           "%s is here, and the model has %zu layer%s of "
                                           "experts",
                                           names[count - 1].file, layer_count, layer_count == 1 ? "" : "s"));
    return 0;
}

/* What is laid out in another way: AutoEP cuts one tensor of all experts. */
static bool experts_are_cut(const struct saved_file *states)
{
    return pickle_count(pickle_get(states->torch.root, "ds_autoep_layers")) > 0;
}

int deepspeed_load_experts(struct deepspeed_tag *tag, const struct deepspeed_name *whole, bool master)
{
    size_t count;
    const struct deepspeed_name *names = deepspeed_tag_find(tag, DEEPSPEED_EXPERT, &count);
    cleanup_saved_file struct saved_file states = {0};
    int error = deepspeed_file_open(tag, whole->file, &states);
    if (error)
        return error;
    int64_t stage;
    deepspeed_note_progress(tag, &states);
    if (pickle_integer(
            pickle_get(pickle_get(pickle_get(states.torch.root, "ds_config"), "zero_optimization"), "stage"),
            &stage))
        deepspeed_name_stage(tag->model, stage);
    if (experts_are_cut(&states))
        return experts_told(model_add_note(tag->model, true,
                                           "%s: experts that AutoEP has cut are not assembled; "
                                           "ds_to_universal.py converts them",
                                           states.path));
    error = experts_check(tag, &states, names, count);
    if (!error && master)
        error = deepspeed_note_no_master(tag);
    if (!error)
        error = deepspeed_load_module(tag, &states);
    for (size_t i = 0; i < count && !error; i++)
        error = experts_add(tag, &names[i]);
    return error;
}
