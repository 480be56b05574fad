/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of complete.c share: the checkpoint while it is judged.
 */
#ifndef CKPTFS_CKPT_COMPLETE_INTERNAL_H
#define CKPTFS_CKPT_COMPLETE_INTERNAL_H

#include "ckpt/complete.h"

struct complete_work {
    const struct folder *folder;
    const struct complete_asked *asked;
    struct complete *out;
    struct tree tree;
    bool missing;   /* a note says so, also one that was left out */
    bool model;     /* it holds a model's weights */
    bool optimizer; /* it holds what an optimizer needs to go on */
    bool unsure;    /* structure cannot tell: a note says why */
    bool deepspeed, dcp;
    const char *marker; /* a file in it proves that it is complete; NULL: none */
};

/* Adds a line; control characters become '?', it is cut at COMPLETE_NOTE_LENGTH bytes. -ENOMEM. */
errint complete_add_note(struct complete *out, bool missing, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Something that keeps it from being complete. */
#define complete_miss(work, ...) ((work)->missing = true, complete_add_note((work)->out, true, __VA_ARGS__))
/* Structure cannot tell. */
#define complete_doubt(work, ...) ((work)->unsure = true, complete_add_note((work)->out, false, __VA_ARGS__))

/* The ranks that saved are at least so many. */
static inline void complete_saw_ranks(struct complete_work *work, int64_t world_size)
{
    if (world_size > work->out->world_size)
        work->out->world_size = world_size;
}

/* Whether files may be opened: nothing is missing yet, or all reasons are asked for. */
static inline bool complete_may_read(const struct complete_work *work)
{
    return !work->missing || work->asked->all_reasons;
}

/* The parts, in the order in which they are asked. Each returns 0 or -errno. */

/* Files in numbered sets, by name: "-I-of-N", "rankR-of-W-", "world_size_W_rank_R" (complete_sets.c). */
errint complete_judge_sets(struct complete_work *work);
/* model.safetensors.index.json and its kin, and the shards that they name (complete_index.c). */
errint complete_judge_indexes(struct complete_work *work);
/* DeepSpeed's tags (complete_deepspeed.c). */
errint complete_judge_deepspeed(struct complete_work *work);
/* Directories of torch.distributed.checkpoint (complete_dcp.c). */
errint complete_judge_dcp(struct complete_work *work);
/* What a Trainer and accelerate write around the weights (complete_trainer.c). */
errint complete_judge_trainer(struct complete_work *work);
/* Every file by itself. */
errint complete_judge_files(struct complete_work *work);

#endif
