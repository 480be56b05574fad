/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoints' directories may have one file more. */
#include "ckpt/beside.h"

#include <string.h>

#include "ckpt/weights.h"

/*
 * Whose loaders do not care. All have their shards in a directory one level below, which stays as it is.
 *
 * fsdp-sharded: Trainer and accelerate, when they run FSDP, look for pytorch_model_fsdp_N/ first and read
 * that alone; the reader of torch.distributed.checkpoint opens the files that .metadata names. Without FSDP
 * Trainer refuses such a checkpoint with or without the file.
 *
 * deepspeed-zeroN: DeepSpeed reads the file `latest`, and then below the directory that it names; Trainer
 * looks for global_step* before anything else.
 *
 * What is lent beside it (configuration, tokenizer, code) none of them reads, but for config.json: a Trainer
 * that resumes compares the version of transformers that it names with its own, and warns.
 *
 * Not here, among others: dcp-huggingface, whose loader takes every *.safetensors in the directory for a
 * shard; fsdp-ranks (LOCAL_STATE_DICT) and xla-fsdp, where another model file leads the Trainer another way;
 * dcp, torchtitan and megatron-torch-dist, whose shards lie in the directory itself; sharded and single,
 * which loaders take as they are.
 */
static const char *const beside_frameworks[] = {"fsdp-sharded", "deepspeed-zero0", "deepspeed-zero1",
                                                "deepspeed-zero2", "deepspeed-zero3"};

static bool beside_has_framework(const char *framework)
{
    for (size_t i = 0; i < sizeof beside_frameworks / sizeof *beside_frameworks; i++) {
        if (strcmp(beside_frameworks[i], framework) == 0)
            return true;
    }
    return false;
}

static bool beside_ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);
    return length >= end_length && strcmp(name + length - end_length, end) == 0;
}

static bool beside_is_weights(const char *name)
{
    char text[WEIGHTS_NAME_MAX];
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        if (strcmp(name, weights_whole_name(&weights_kinds[i], text)) == 0 ||
            strcmp(name, weights_index_name(&weights_kinds[i], text)) == 0)
            return true;
    }
    return weights_is_shard(name, NULL, NULL, NULL) || beside_ends_with(name, ".safetensors") ||
           beside_ends_with(name, ".safetensors.index.json");
}

bool beside_has_weights(const struct folder_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && beside_is_weights(listing->at[i].name))
            return true;
    }
    return false;
}

bool beside_is_harmless(const struct folder_listing *listing, const struct model *model)
{
    if (!beside_has_framework(model->framework) || strcmp(model->stem, "model") != 0)
        return false;
    for (size_t i = 0; i < model->file_count; i++) {
        if (!strchr(model->files[i].path, '/'))
            return false;
    }
    return !beside_has_weights(listing);
}
