/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a model in pieces to the files that loaders read: model.safetensors, or shards with an index, or
 * pytorch_model.bin. A plan says for every byte of every file where it comes from: new bytes (headers,
 * pickles), a range of a shard that is copied or mapped as it is, or elements that are gathered or cast.
 *
 * Nothing is written here; who has the plan copies, clones, reflinks or maps (ckpt/assemble_write.h, the
 * mount).
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_H
#define CKPTFS_CKPT_ASSEMBLE_H

#include "ckpt/model.h"

enum assemble_format { ASSEMBLE_SAFETENSORS, ASSEMBLE_TORCH };

struct assemble_wish {
    enum assemble_format format;
    bool cast;             /* floating-point parameters become `type` */
    enum tensor_type type; /* TENSOR_F32, TENSOR_F16 or TENSOR_BF16 */
    int64_t shard_size;    /* bytes; 0: one file. As huggingface_hub's split_torch_state_dict_into_shards */
    /* The header is padded so that the tensors' bytes start at a multiple of this; 0: 8. */
    int64_t alignment;
};

enum assemble_kind {
    ASSEMBLE_BYTES,   /* `bytes` */
    ASSEMBLE_COPY,    /* `length` bytes of file `file` at `file_offset` */
    ASSEMBLE_COMPUTE, /* the elements of tensor `tensor`, as `type`: assemble_compute */
};

struct assemble_part {
    enum assemble_kind kind;
    int64_t offset, length; /* in the file that is made; parts follow each other without a gap */
    const uint8_t *bytes;
    uint32_t file;
    int64_t file_offset;
    const struct model_tensor *tensor;
    enum tensor_type type;
};

struct assemble_file {
    const char *name; /* "model.safetensors", "model-00001-of-00003.safetensors", the index */
    int64_t size;
    struct assemble_part *parts;
    size_t part_count;
};

struct assemble_plan {
    struct arena arena;
    struct assemble_file *files;
    size_t file_count;
};

/* The type that a tensor of the model is written as: what is no floating-point number of 16 bits or more, is
 * no parameter, or keeps its type stays what it is. */
enum tensor_type assemble_type_of(const struct model_tensor *tensor, const struct assemble_wish *wish);

/*
 * The model has passed model_check and is whole; it outlives the plan. -EINVAL with `problem`: the format
 * cannot hold a type. Neighbouring copies are one part. The caller gives the plan to assemble_release in any
 * case.
 */
errint assemble_plan(const struct model *model, const struct assemble_wish *wish, struct assemble_plan *out,
                     struct format_problem *problem);
void assemble_release(struct assemble_plan *plan);

/* Reads from a file of the model, by its index: exactly `length` bytes. */
typedef errint assemble_read(void *context, uint32_t file, void *buffer, size_t length, int64_t offset);

/*
 * Computes bytes [from, from + length) of an ASSEMBLE_COMPUTE part, relative to the part's start, into `out`,
 * with memory that does not depend on the tensor's size (at most 16 MiB). Values are rounded as torch's .to()
 * does (to nearest, ties to even); NaN stays NaN. The more bytes at once, the longer the ranges that are read
 * of shards that are interleaved. 0, -ENOMEM or what `read` returned. Thread-safe as far as `read` is.
 */
errint assemble_compute(const struct model *model, const struct assemble_part *part, int64_t from,
                        size_t length, void *out, assemble_read *read, void *context);

#endif
