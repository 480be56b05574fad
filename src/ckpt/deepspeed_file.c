/* SPDX-License-Identifier: Apache-2.0 */
/* The states files of a tag, and what one of them says about the save. */
#include "ckpt/deepspeed.h"

#include <errno.h>
#include <stdio.h>

int deepspeed_file_open(const struct deepspeed_tag *tag, const char *name, struct saved_file *out)
{
    cleanup_free char *path = NULL;
    *out = (struct saved_file){0};
    if (asprintf(&path, "%s%s%s", tag->path, *tag->path ? "/" : "", name) < 0) {
        path = NULL;
        return -ENOMEM;
    }
    return saved_file_open(tag->folder, tag->model, path, out);
}

void deepspeed_note_progress(struct deepspeed_tag *tag, const struct saved_file *states)
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
