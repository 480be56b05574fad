/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipelines: a file a layer, with the layer's own names; in the whole model they stand behind the layer's
 * number, as PipelineModule has them. What has no parameters has no file, and a layer that is tied to an
 * earlier one is saved once (deepspeed/runtime/pipe/module.py, save_state_dict). The stages' states say which
 * parameters there are.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/deepspeed.h"

enum { PIPELINE_NAME_MAX = 4096 };

static int pipeline_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

/* -- layers -----------------------------------------------------------------------------------------------
 */

static int pipeline_add_layer(struct deepspeed_tag *tag, const struct deepspeed_name *layer)
{
    cleanup_saved_file struct saved_file file = {0};
    int error = deepspeed_file_open(tag, layer->file, &file);
    for (size_t i = 0; !error && i < pickle_dict_count(file.torch.root); i++) {
        const char *name = node_text(pickle_dict_key(file.torch.root, i));
        const struct pickle_node *value = pickle_dict_value(file.torch.root, i);
        char whole[PIPELINE_NAME_MAX];
        struct tensor tensor;
        if (!name || !torch_file_is_tensor(value))
            continue;
        if (snprintf(whole, sizeof whole, "%" PRId64 ".%s", layer->layer, name) >= (int)sizeof whole)
            return saved_file_told(
                tag->model, &file,
                format_problem_set(&file.problem, -1, "a name of over %d bytes", PIPELINE_NAME_MAX));
        error =
            saved_file_told(tag->model, &file, torch_file_tensor(&file.torch, value, &tensor, &file.problem));
        if (!error)
            error = model_add_whole(tag->model, &tensor, whole, file.index);
    }
    return error;
}

/* -- what the stages say ----------------------------------------------------------------------------------
 */

/* Of a layer's name, "3.weight": its number; -1: it starts with none, as a tied module's does. */
static int64_t pipeline_layer_of(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return digits > 0 && digits < 10 && name[digits] == '.' ? strtoll(name, NULL, 10) : -1;
}

/* Whether the layers hold what the stage's optimizer has parameters of. */
static int pipeline_check_stage(struct deepspeed_tag *tag, struct saved_file *stage)
{
    struct deepspeed_group *groups;
    size_t count;
    const struct pickle_node *shapes = pickle_get(stage->torch.root, "param_shapes");
    if (!shapes || shapes->kind == PICKLE_NONE)
        return 0;
    int error =
        saved_file_told(tag->model, stage,
                        deepspeed_read_groups(shapes, &stage->torch.arena, &groups, &count, &stage->problem));
    for (size_t i = 0; !error && i < count; i++) {
        for (size_t k = 0; k < groups[i].count; k++) {
            const struct deepspeed_parameter *parameter = &groups[i].parameters[k];
            int64_t layer = pipeline_layer_of(parameter->name);
            const struct model_tensor *tensor = model_find_tensor(tag->model, parameter->name);
            if (layer >= 0 && !tensor)
                return pipeline_told(model_add_note(tag->model, true,
                                                    "%s has %s, but layer %" PRId64
                                                    " has no file with it here (layer_%02" PRId64
                                                    "-model_states.pt)",
                                                    stage->path, parameter->name, layer, layer));
            if (tensor && !tensor_shape_equal(&tensor->shape, &parameter->shape))
                return pipeline_told(model_add_note(tag->model, true,
                                                    "%s has %s with another shape than its layer's file",
                                                    stage->path, parameter->name));
        }
    }
    return error;
}

static int pipeline_check_stages(struct deepspeed_tag *tag)
{
    size_t count;
    int64_t stages = 0;
    const struct deepspeed_name *names = deepspeed_tag_find(tag, DEEPSPEED_MODEL, &count);
    int error = 0;
    for (size_t i = 0; !error && i < count; i++) {
        cleanup_saved_file struct saved_file stage = {0};
        error = deepspeed_file_open(tag, names[i].file, &stage);
        if (error)
            break;
        if (i == 0) {
            deepspeed_note_progress(tag, &stage);
            pickle_integer(pickle_get(stage.torch.root, "mp_world_size"), &stages);
        }
        error = pipeline_check_stage(tag, &stage);
    }
    if (!error && stages > 0 && (uint64_t)stages != count)
        error = pipeline_told(model_add_note(
            tag->model, true,
            "the pipeline had %" PRId64 " stages and %zu mp_rank_*_model_states.pt are here", stages, count));
    return error;
}

/* -- all of it --------------------------------------------------------------------------------------------
 */

int deepspeed_load_pipeline(struct deepspeed_tag *tag, bool master)
{
    size_t count;
    const struct deepspeed_name *layers = deepspeed_tag_find(tag, DEEPSPEED_LAYER, &count);
    int error = 0;
    tag->model->framework = "deepspeed-pipeline";
    tag->model->summary = "DeepSpeed pipeline";
    if (layers[count - 1].mp > 0)
        return pipeline_told(
            model_add_note(tag->model, true,
                           "%s: layers of a pipeline that tensor-parallel ranks share are not "
                           "put together: nothing in them says how",
                           layers[count - 1].file));
    for (size_t i = 0; !error && i < count; i++)
        error = pipeline_add_layer(tag, &layers[i]);
    if (!error)
        error = pipeline_check_stages(tag);
    if (!error)
        error = model_add_note(tag->model, false, "names begin with the pipeline's layer numbers");
    return error || !master ? error : deepspeed_note_no_master(tag);
}
