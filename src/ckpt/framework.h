/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frameworks whose checkpoints are understood: one file and one row each (ckpt/framework_NAME.c). The
 * table's order is the order in which a directory is tried: the more telling the names, the earlier.
 */
#ifndef CKPTFS_CKPT_FRAMEWORK_H
#define CKPTFS_CKPT_FRAMEWORK_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

/* What is asked for, beyond what costs nothing. */
struct framework_wish {
    bool master; /* the FP32 copy that an optimizer holds, where the 16-bit model is the free one */
    bool untied; /* a configuration that lies elsewhere rules out tied weights (ckpt/tied.h) */
};

struct framework {
    const char *name;    /* "deepspeed-zero3": told to people and scripts, never changed */
    const char *summary; /* "DeepSpeed ZeRO-3" */
    /*
     * Whether the folder holds a checkpoint of this framework, by its names and a few first bytes: 1, 0 or a
     * negative errno. `listing` is the folder's.
     */
    int (*recognise)(const struct folder *folder, const struct folder_listing *listing);
    /*
     * Reads it. `model` was begun and has the row's name and summary, which may be replaced by more telling
     * ones; the framework fills tensors, files, step, world size. What it cannot read or finds missing
     * becomes a note, with the file, the offset, what was expected and what was found. 0, or a negative errno
     * that has nothing to do with the bytes: -ENOMEM, -EIO.
     */
    errint (*load)(const struct folder *folder, const struct folder_listing *listing,
                   const struct framework_wish *wish, struct model *model);
};

extern const struct framework
    framework_dcp; /* FSDP SHARDED_STATE_DICT, dist_cp.save, torchtitan, torch_dist */
extern const struct framework framework_dcp_hf; /* shard-*-model-*.safetensors of DCP's HuggingFace writer */
extern const struct framework framework_fsdp_file; /* pytorch_model_fsdp*.bin: FULL, LOCAL */
extern const struct framework framework_deepspeed; /* global_stepN: ZeRO-0 to 3, BF16_Optimizer, pipeline */
extern const struct framework framework_xla_fsdp;  /* rankR-of-W-pytorch_model.bin */
extern const struct framework framework_sagemaker; /* user_content.pt; partial files */
extern const struct framework framework_lightning; /* *.ckpt */
extern const struct framework framework_verl;      /* model_world_size_W_rank_R.pt */
extern const struct framework framework_sharded;   /* model-0000i-of-0000n with an index */
extern const struct framework framework_single;    /* model.safetensors, pytorch_model.bin, adapter_model.* */

/*
 * Finds the framework and reads the checkpoint, then checks it (model_check). -ENOENT: nothing known is
 * there. `wish` may be NULL. The caller gives the model to model_release in any case. Thread-safe as far as
 * the folder is.
 */
errint framework_load(const struct folder *folder, const struct framework_wish *wish, struct model *out);

#endif
