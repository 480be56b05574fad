/* SPDX-License-Identifier: Apache-2.0 */
/* The frameworks: which one a folder is of, and reading it. */
#include "ckpt/framework.h"

#include <errno.h>

#include "ckpt/trainer_state.h"

/* In the order in which a folder is tried: the more telling the names, the earlier. */
static const struct framework *const frameworks[] = {
    &framework_deepspeed, /* global_stepN/ */
    &framework_dcp,       /* .metadata, *.distcp, pytorch_model_fsdp_N/ */
    &framework_fsdp_file, /* pytorch_model_fsdp*.bin */
    &framework_verl,      /* model_world_size_W_rank_R.pt */
    &framework_dcp_hf,    /* shard-R-model-N-of-M.safetensors */
    &framework_xla_fsdp,  /* rankR-of-W-pytorch_model.bin */
    &framework_sagemaker, /* user_content.pt, optimizer.pt_P_T */
    &framework_lightning, /* *.ckpt, without other weights */
    &framework_sharded,   /* model-I-of-N.* */
    &framework_single,    /* model.safetensors, or the only file */
};

enum { FRAMEWORK_COUNT = sizeof frameworks / sizeof *frameworks };

/* The row that recognises the folder; NULL in *out: none. */
static errint framework_recognise(const struct folder *folder, const struct folder_listing *listing,
                                  const struct framework **out)
{
    *out = NULL;
    for (size_t i = 0; i < FRAMEWORK_COUNT; i++) {
        int found = frameworks[i]->recognise(folder, listing);
        if (found < 0)
            return found;
        if (found > 0) {
            *out = frameworks[i];
            return 0;
        }
    }
    return 0;
}

/* What the Trainer's own files say, where the framework's do not. */
static errint framework_read_beside(const struct folder *folder, const struct folder_listing *listing,
                                    struct model *model)
{
    if (model->world_size == 0)
        model->world_size = trainer_state_world_size(listing);
    return model->step < 0 ? trainer_state_step(folder, listing, &model->step) : 0;
}

errint framework_load(const struct folder *folder, const struct framework_wish *wish, struct model *out)
{
    static const struct framework_wish no_wish;
    cleanup_folder_listing struct folder_listing listing = {0};
    const struct framework *row;
    model_begin(out);
    out->untied = wish && wish->untied;
    errint error = folder_read(folder, "", &listing);
    if (!error)
        error = framework_recognise(folder, &listing, &row);
    if (error || !row)
        return error ? error : -ENOENT;
    out->framework = row->name;
    out->summary = row->summary;
    error = row->load(folder, &listing, wish ? wish : &no_wish, out);
    if (!error)
        error = framework_read_beside(folder, &listing, out);
    return error ? error : model_check(out);
}
