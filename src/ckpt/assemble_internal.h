/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the writers of the file formats share: entries that go into a file, and the list of its parts.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_INTERNAL_H
#define CKPTFS_CKPT_ASSEMBLE_INTERNAL_H

#include "base/text.h"
#include "ckpt/assemble.h"

/* A tensor that is written. */
struct assemble_entry {
    const struct model_tensor *tensor; /* not tied */
    enum tensor_type type;             /* in the file */
    int64_t count, bytes;
    size_t shard; /* from 0 */
};

/* Builds the parts of one file. */
struct assemble_builder {
    struct arena *arena;
    struct assemble_part *parts;
    size_t count, capacity;
    int64_t size; /* of all parts so far */
};

/* A file's tensors, in the order of the checkpoint. */
struct assemble_shard {
    const struct model *model;
    const struct assemble_wish *wish;
    const struct assemble_entry **entries;
    size_t count;
    /* The model's tensors in the file, by index, with those that are tied to others. */
    const uint32_t *tensors;
    size_t tensor_count;
    /* The entries of all files by the index of their tensor in the model; of a tied one that of the other. */
    const struct assemble_entry *const *by_tensor;
};

/* Appends a part behind the others; a copy that continues the last one becomes a part of it. Its offset is
 * filled in. 0, -ENOMEM, -EFBIG. */
errint assemble_add_part(struct assemble_builder *builder, struct assemble_part part);
/* Bytes that are copied into the arena, or given: they are there for as long as the plan is. */
errint assemble_add_bytes(struct assemble_builder *builder, const void *bytes, size_t length);
/* The bytes of a tensor. */
errint assemble_add_tensor(struct assemble_builder *builder, const struct assemble_entry *entry);
errint assemble_add_text(struct assemble_builder *builder, const struct text *text);

/* The formats. FORMAT_FOREIGN with `problem`: a tensor that the format cannot hold. */
int assemble_safetensors(const struct assemble_shard *shard, struct assemble_builder *builder,
                         struct format_problem *problem);
int assemble_torch(const struct assemble_shard *shard, struct assemble_builder *builder,
                   struct format_problem *problem);
/* Whether torch has a type like that; the name of its storage's class, "UntypedStorage" for the newer ones.
 */
const char *assemble_torch_storage(enum tensor_type type);

/* The index over the shards: the JSON that transformers writes. `names` are the shards' files. */
errint assemble_index(const struct assemble_shard *all, const char *const *names,
                      struct assemble_builder *builder);

#endif
