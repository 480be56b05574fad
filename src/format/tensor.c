/* SPDX-License-Identifier: Apache-2.0 */
/* The types of elements and what follows from a shape. */
#include "format/tensor.h"

#include <string.h>

static const struct {
    const char *name, *torch_name;
    unsigned bits;
} tensor_types[TENSOR_TYPE_COUNT] = {
    [TENSOR_BOOL] = {"BOOL", "bool", 8},
    [TENSOR_F4] = {"F4", "float4_e2m1fn_x2", 4},
    [TENSOR_F6_E2M3] = {"F6_E2M3", "float6_e2m3fn", 6},
    [TENSOR_F6_E3M2] = {"F6_E3M2", "float6_e3m2fn", 6},
    [TENSOR_U8] = {"U8", "uint8", 8},
    [TENSOR_I8] = {"I8", "int8", 8},
    [TENSOR_F8_E5M2] = {"F8_E5M2", "float8_e5m2", 8},
    [TENSOR_F8_E4M3] = {"F8_E4M3", "float8_e4m3fn", 8},
    [TENSOR_F8_E8M0] = {"F8_E8M0", "float8_e8m0fnu", 8},
    [TENSOR_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", "float8_e4m3fnuz", 8},
    [TENSOR_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", "float8_e5m2fnuz", 8},
    [TENSOR_I16] = {"I16", "int16", 16},
    [TENSOR_U16] = {"U16", "uint16", 16},
    [TENSOR_F16] = {"F16", "float16", 16},
    [TENSOR_BF16] = {"BF16", "bfloat16", 16},
    [TENSOR_I32] = {"I32", "int32", 32},
    [TENSOR_U32] = {"U32", "uint32", 32},
    [TENSOR_F32] = {"F32", "float32", 32},
    [TENSOR_C64] = {"C64", "complex64", 64},
    [TENSOR_F64] = {"F64", "float64", 64},
    [TENSOR_I64] = {"I64", "int64", 64},
    [TENSOR_U64] = {"U64", "uint64", 64},
    [TENSOR_C128] = {"C128", "complex128", 128},
};

unsigned tensor_type_bits(enum tensor_type type)
{
    return tensor_types[type].bits;
}

const char *tensor_type_name(enum tensor_type type)
{
    return tensor_types[type].name;
}

const char *tensor_type_torch_name(enum tensor_type type)
{
    return tensor_types[type].torch_name;
}

static bool tensor_is_word(const char *word, const char *name, size_t length)
{
    return strlen(word) == length && memcmp(word, name, length) == 0;
}

bool tensor_type_parse(const char *name, size_t length, enum tensor_type *out)
{
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT; type++) {
        if (tensor_is_word(tensor_types[type].name, name, length) ||
            tensor_is_word(tensor_types[type].torch_name, name, length)) {
            *out = (enum tensor_type)type;
            return true;
        }
    }
    return false;
}

bool tensor_count(const struct tensor_shape *shape, int64_t *count)
{
    *count = 1;
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (shape->sizes[i] < 0 || __builtin_mul_overflow(*count, shape->sizes[i], count))
            return false;
    }
    return true;
}

bool tensor_bytes(enum tensor_type type, int64_t count, int64_t *bytes)
{
    int64_t bits = tensor_types[type].bits;
    /* Whole bytes of eight elements each first: count * bits may overflow where the bytes fit. */
    int64_t rest = count % 8 * bits;
    if (count < 0 || rest % 8 != 0 || __builtin_mul_overflow(count / 8, bits, bytes))
        return false;
    return !__builtin_add_overflow(*bytes, rest / 8, bytes);
}

bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b)
{
    return a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->sizes, b->sizes, a->rank * sizeof *a->sizes) == 0);
}
