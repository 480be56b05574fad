/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensors of a safetensors file, as strictly as the library reads them (safetensors/src/tensor.rs, 0.8):
 * all its types; tensors that tile the bytes behind the header without a gap, to the file's end; bytes that
 * match the shape. Stricter in what no writer writes: no name twice, none with a NUL in it, at most 64
 * dimensions. (What the cuts for deduplication need is less: format/segments.h.)
 */
#ifndef CKPTFS_FORMAT_SAFETENSORS_FILE_H
#define CKPTFS_FORMAT_SAFETENSORS_FILE_H

#include "base/arena.h"
#include "format/problem.h"
#include "format/source.h"
#include "format/tensor.h"

/* An entry of __metadata__. UTF-8. */
struct safetensors_metadata {
    const char *key, *value;
};

struct safetensors_file {
    struct arena arena;     /* owns the texts and shapes */
    struct tensor *tensors; /* in the order of their bytes; strides are NULL */
    size_t tensor_count, tensor_capacity;
    struct safetensors_metadata *metadata; /* in the order of the header; keys are distinct */
    size_t metadata_count, metadata_capacity;
    int64_t data; /* where the tensors' bytes start in the file: the length of the header with its count */
};

/*
 * Reads the header of a file. 0; FORMAT_FOREIGN with `problem` filled (NULL is allowed); or a negative errno.
 * `out` is given to safetensors_file_release in any case. Memory: at most 16 times the header, which has at
 * most 100,000,000 bytes.
 */
int safetensors_file_read(const struct format_source *source, struct safetensors_file *out,
                          struct format_problem *problem);
void safetensors_file_release(struct safetensors_file *file);

/* The tensor of this name, or NULL: goes through all. */
const struct tensor *safetensors_file_tensor(const struct safetensors_file *file, const char *name);
/* The value of a key of __metadata__, or NULL. */
const char *safetensors_file_metadata(const struct safetensors_file *file, const char *key);

#define cleanup_safetensors_file __attribute__((cleanup(safetensors_file_release)))

#endif
