/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of framework_deepspeed.c share: the directory of one tag (global_stepN), and its files by
 * what their names say.
 *
 * Functions that return int: 0; FORMAT_FOREIGN when a note of the model says why not; or a negative errno
 * that has nothing to do with the bytes.
 */
#ifndef CKPTFS_CKPT_DEEPSPEED_H
#define CKPTFS_CKPT_DEEPSPEED_H

#include "ckpt/framework.h"
#include "ckpt/saved_file.h"
#include "format/deepspeed_states.h"
#include "format/nodes.h"

/* What a file's name says it is (DeepSpeedEngine._get_ckpt_name and what stands beside it). */
enum deepspeed_kind {
    DEEPSPEED_NONE,
    DEEPSPEED_MODEL,            /* mp_rank_MP_model_states.pt: the whole module of a model-parallel rank */
    DEEPSPEED_PARTITIONED,      /* zero_pp_rank_DP_mp_rank_MP_model_states.pt: ZeRO-3 */
    DEEPSPEED_OPTIMIZER,        /* [bf16_]zero_pp_rank_DP_mp_rank_MP_optim_states.pt */
    DEEPSPEED_LAYER,            /* layer_LAYER[-AXIS_MP]-model_states.pt: a pipeline's */
    DEEPSPEED_EXPERT,           /* [layer_LAYER_]expert_N_mp_rank_MP_model_states.pt */
    DEEPSPEED_EXPERT_OPTIMIZER, /* expp_rank_N_mp_rank_MP_optim_states.pt */
};

struct deepspeed_name {
    enum deepspeed_kind kind;
    int64_t dp, mp, layer; /* 0 where the name has none */
    const char *file;      /* the name, in the listing */
};

bool deepspeed_parse_name(const char *file, struct deepspeed_name *out);

struct deepspeed_tag {
    const struct folder *folder;
    struct model *model;
    const char *path; /* of the directory in the folder; "": the folder itself */
    struct folder_listing listing;
    struct deepspeed_name *names; /* sorted by kind, mp, layer, dp */
    size_t name_count;
};

/* Lists the directory. The tag is given to deepspeed_tag_release in any case. */
int deepspeed_tag_read(const struct folder *folder, const char *path, struct model *model,
                       struct deepspeed_tag *out);
void deepspeed_tag_release(struct deepspeed_tag *tag);

/* The files of one kind: the first, and how many follow it. NULL: none. */
const struct deepspeed_name *deepspeed_tag_find(const struct deepspeed_tag *tag, enum deepspeed_kind kind,
                                                size_t *count);
/* Those of one model-parallel rank. */
const struct deepspeed_name *deepspeed_tag_find_rank(const struct deepspeed_tag *tag,
                                                     enum deepspeed_kind kind, int64_t mp, size_t *count);
/*
 * Whether the `count` files at `names` are those of the data-parallel ranks 0 to world_size - 1. What is not
 * there or too much becomes a note, with `missing` as it is given here: FORMAT_FOREIGN.
 */
int deepspeed_tag_check_ranks(const struct deepspeed_tag *tag, const struct deepspeed_name *names,
                              size_t count, int64_t world_size, bool missing);

/* Opens and parses a file of the tag (saved_file_open). */
int deepspeed_file_open(const struct deepspeed_tag *tag, const char *name, struct saved_file *out);
#define cleanup_deepspeed_tag __attribute__((cleanup(deepspeed_tag_release)))

/* -- what is assembled ------------------------------------------------------------------------------------
 */

/* Fills in the step and the number of ranks. */
void deepspeed_note_progress(struct deepspeed_tag *tag, const struct saved_file *states);

/* Names the framework after the stage of ZeRO, when there is such a one. */
void deepspeed_name_stage(struct model *model, int64_t stage);

/* The module as it was saved (deepspeed_module.c): ZeRO-0 to 2. */
int deepspeed_load_module(struct deepspeed_tag *tag, struct saved_file *states);
/* The FP32 copy in the partitions of ZeRO-1, ZeRO-2 and BF16_Optimizer (deepspeed_partitions.c). */
int deepspeed_load_partitions(struct deepspeed_tag *tag, struct saved_file *states);
/* The FP32 model in the partitions of ZeRO-3 (deepspeed_zero3.c). */
int deepspeed_load_zero3(struct deepspeed_tag *tag);
/* The layers of a pipeline (deepspeed_pipeline.c). */
int deepspeed_load_pipeline(struct deepspeed_tag *tag, bool master);
/* A mixture of experts, each in a file of its own (deepspeed_experts.c); `whole`: the rest. */
int deepspeed_load_experts(struct deepspeed_tag *tag, const struct deepspeed_name *whole, bool master);
/* The slices of tensor-parallel ranks (deepspeed_tensor_parallel.c). */
int deepspeed_load_tensor_parallel(struct deepspeed_tag *tag, bool master);
/* The FP32 copy was asked for, and is not assembled from such a checkpoint. */
int deepspeed_note_no_master(struct deepspeed_tag *tag);

/* -- parts of the FP32 model, in this order (deepspeed_module.c) ------------------------------------------
 */

/* The buffers; floating-point ones become FP32, as zero_to_fp32 has them. */
int deepspeed_add_buffers(struct deepspeed_tag *tag, struct saved_file *states);
/*
 * What the module holds and nothing else did: parameters that ZeRO-1 leaves out of the optimizer because they
 * are frozen or empty, and that zero_to_fp32 drops. `groups` are those that follow.
 */
int deepspeed_add_left(struct deepspeed_tag *tag, struct saved_file *states,
                       const struct deepspeed_group *groups, size_t group_count);
/* Other names of parameters (`shared_params`). */
int deepspeed_add_shared(struct deepspeed_tag *tag, const struct saved_file *states);
/* Types that the FP32 model has as FP32. */
bool deepspeed_is_float(enum tensor_type type);
/* Adds a tensor of the FP32 model, stored as `stored`. *out is NULL when the name is there already. */
int deepspeed_add_master(struct deepspeed_tag *tag, const struct deepspeed_parameter *parameter,
                         enum tensor_type stored, struct model_tensor **out);

#endif
