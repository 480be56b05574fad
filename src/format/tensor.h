/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the formats say of a tensor: its type of element, its shape, and where in a file its bytes are. The
 * types are those of safetensors (safetensors/src/tensor.rs, 0.8), in its order, and torch's complex128,
 * which safetensors cannot hold.
 */
#ifndef CKPTFS_FORMAT_TENSOR_H
#define CKPTFS_FORMAT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum tensor_type {
    TENSOR_BOOL,
    TENSOR_F4, /* two elements a byte */
    TENSOR_F6_E2M3,
    TENSOR_F6_E3M2,
    TENSOR_U8,
    TENSOR_I8,
    TENSOR_F8_E5M2,
    TENSOR_F8_E4M3,
    TENSOR_F8_E8M0,
    TENSOR_F8_E4M3FNUZ,
    TENSOR_F8_E5M2FNUZ,
    TENSOR_I16,
    TENSOR_U16,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_I32,
    TENSOR_U32,
    TENSOR_F32,
    TENSOR_C64,
    TENSOR_F64,
    TENSOR_I64,
    TENSOR_U64,
    TENSOR_C128,
    TENSOR_TYPE_COUNT,
};

/* torch allows 64 dimensions; a tensor with more is refused. */
enum { TENSOR_RANK_MAX = 64 };

struct tensor_shape {
    uint32_t rank;
    const int64_t *sizes; /* rank of them, each >= 0; NULL for a scalar */
};

/* A tensor of one file. */
struct tensor {
    const char *name; /* NUL-terminated UTF-8 as the file has it, without a NUL inside */
    enum tensor_type type;
    struct tensor_shape shape;
    int64_t offset;         /* of its first element, bytes from the file's start */
    const int64_t *strides; /* in elements, each >= 0; NULL: rows follow each other without a gap */
};

unsigned tensor_type_bits(enum tensor_type type);
/* "F32"; "C128" is ours. */
const char *tensor_type_name(enum tensor_type type);
/* What torch calls it, without "torch.": "float32". torch has no types of 6 bits; their names follow its
 * rule. */
const char *tensor_type_torch_name(enum tensor_type type);
/* By either name, exactly. */
bool tensor_type_parse(const char *name, size_t length, enum tensor_type *out);

/* The number of elements; false when it does not fit. */
bool tensor_count(const struct tensor_shape *shape, int64_t *count);
/* The bytes of so many elements; false when it does not fit or they do not fill whole bytes. */
bool tensor_bytes(enum tensor_type type, int64_t count, int64_t *bytes);
bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b);

#endif
