/* SPDX-License-Identifier: Apache-2.0 */
/* A states file that is open. */
#include "ckpt/deepspeed.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int deepspeed_file_told(const struct deepspeed_tag *tag, struct deepspeed_file *file, int result)
{
    if (result != FORMAT_FOREIGN)
        return result;
    errint error = model_add_problem(tag->model, file->path, &file->problem);
    return error ? error : FORMAT_FOREIGN;
}

int deepspeed_file_open(const struct deepspeed_tag *tag, const char *name, struct deepspeed_file *out)
{
    *out = (struct deepspeed_file){.folder = tag->folder, .problem.offset = -1};
    if (asprintf(&out->path, "%s%s%s", tag->path, *tag->path ? "/" : "", name) < 0) {
        out->path = NULL;
        return -ENOMEM;
    }
    errint error = folder_open(tag->folder, out->path, &out->source);
    if (error) {
        errint noted = model_add_note(tag->model, true, "%s: %s", out->path, strerror(-error));
        return error == -ENOENT || error == -EISDIR ? (noted ? noted : FORMAT_FOREIGN) : error;
    }
    out->open = true;
    error = model_add_file(tag->model, out->path, out->source.size, &out->index);
    if (error)
        return error;
    int result = torch_file_read(&out->source, 0, out->source.size, &out->torch, &out->problem);
    if (result == 0 && !pickle_is_dict(out->torch.root))
        result = format_problem_set(&out->problem, -1, "expected a dict of states, found something else");
    return deepspeed_file_told(tag, out, result);
}

void deepspeed_file_close(struct deepspeed_file *file)
{
    torch_file_release(&file->torch);
    if (file->open)
        folder_close(file->folder, &file->source);
    free(file->path);
    *file = (struct deepspeed_file){0};
}

void deepspeed_note_progress(struct deepspeed_tag *tag, const struct deepspeed_file *states)
{
    const struct pickle_node *root = states->torch.root;
    int64_t step, ranks, slices = 1;
    if (pickle_integer(pickle_get(root, "global_steps"), &step) && step >= 0)
        tag->model->step = step;
    pickle_integer(pickle_get(root, "mp_world_size"), &slices);
    if (pickle_integer(pickle_get(root, "dp_world_size"), &ranks) && ranks > 0 && slices > 0 &&
        !__builtin_mul_overflow(ranks, slices, &ranks))
        tag->model->world_size = ranks;
}

int deepspeed_note_no_master(struct deepspeed_tag *tag)
{
    return model_add_note(tag->model, false,
                          "the optimizer's FP32 copy is not assembled from such a checkpoint: "
                          "this is the model as it was saved");
}
