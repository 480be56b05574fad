/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a model in several files: model.safetensors.index.json, pytorch_model.bin.index.json
 * (huggingface_hub, serialization/_base.py, 1.x): which file has which tensor.
 */
#ifndef CKPTFS_FORMAT_HF_INDEX_H
#define CKPTFS_FORMAT_HF_INDEX_H

#include "base/arena.h"
#include "format/problem.h"
#include "format/source.h"

struct hf_index_entry {
    const char *name; /* of the tensor: UTF-8 */
    const char *file; /* a plain name of a file in the same directory: no '/', not "." and not ".." */
};

struct hf_index {
    struct arena arena;
    struct hf_index_entry *entries; /* sorted by name, which are distinct */
    size_t count, capacity;
    int64_t total_size; /* of all tensors in bytes; -1: the index does not say */
};

/*
 * Reads an index of at most 64 MiB. 0; FORMAT_FOREIGN with `problem` filled (NULL is allowed); or a negative
 * errno. `out` is given to hf_index_release in any case.
 */
int hf_index_read(const struct format_source *source, struct hf_index *out, struct format_problem *problem);
void hf_index_release(struct hf_index *index);

#define cleanup_hf_index __attribute__((cleanup(hf_index_release)))

#endif
