/* SPDX-License-Identifier: Apache-2.0 */
/* Casts, element by element over F32; written so that compilers make vectors of the loops. */
#include "ckpt/assemble_cast.h"

#include <string.h>

/* Elements that are turned into F32 at once. */
enum { CAST_BLOCK = 4096 };

static uint32_t cast_bits(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static float cast_float(uint32_t bits)
{
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* -- one element ------------------------------------------------------------------------------------------
 */

static uint16_t cast_to_bfloat16(uint32_t bits)
{
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); /* A NaN whose upper bits are all zero would become infinite. */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static uint16_t cast_to_half(uint32_t bits)
{
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t size = bits & 0x7fffffff;
    if (size > 0x7f800000)
        return sign | 0x7e00;
    if (size >= 0x477ff000) /* 65520: halfway between the largest number and the next power of two */
        return sign | 0x7c00;
    if (size <
        0x38800000) /* Subnormal: in [0.5, 1) floats are as far apart as these, so that the sum is rounded. */
        return (uint16_t)(sign | (cast_bits(cast_float(size) + 0.5f) - cast_bits(0.5f)));
    return (uint16_t)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

static uint32_t cast_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, size = half & 0x7fff;
    if (size >= 0x7c00)
        return sign | 0x7f800000 | (size & 0x3ff) << 13;
    if (size < 0x400)
        return sign | cast_bits((float)size * 0x1p-24f);
    return sign | ((size << 13) + 0x38000000);
}

/* -- many elements ----------------------------------------------------------------------------------------
 */

static void cast_read(enum tensor_type from, const uint8_t *in, uint32_t *out, size_t count)
{
    switch (from) {
    case TENSOR_F64:
        for (size_t i = 0; i < count; i++) {
            double number;
            memcpy(&number, in + 8 * i, sizeof number);
            out[i] = cast_bits((float)number);
        }
        return;
    case TENSOR_F16:
        for (size_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, in + 2 * i, sizeof half);
            out[i] = cast_from_half(half);
        }
        return;
    case TENSOR_BF16:
        for (size_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, in + 2 * i, sizeof half);
            out[i] = (uint32_t)half << 16;
        }
        return;
    default: memcpy(out, in, 4 * count);
    }
}

static void cast_write(enum tensor_type to, const uint32_t *in, uint8_t *out, size_t count)
{
    switch (to) {
    case TENSOR_F16:
        for (size_t i = 0; i < count; i++) {
            uint16_t half = cast_to_half(in[i]);
            memcpy(out + 2 * i, &half, sizeof half);
        }
        return;
    case TENSOR_BF16:
        for (size_t i = 0; i < count; i++) {
            uint16_t half = cast_to_bfloat16(in[i]);
            memcpy(out + 2 * i, &half, sizeof half);
        }
        return;
    default: memcpy(out, in, 4 * count);
    }
}

void assemble_cast(enum tensor_type from, enum tensor_type to, const void *in, void *out, size_t count)
{
    uint32_t block[CAST_BLOCK];
    size_t from_size = tensor_type_bits(from) / 8, to_size = tensor_type_bits(to) / 8;
    for (size_t done = 0; done < count;) {
        size_t part = count - done < CAST_BLOCK ? count - done : CAST_BLOCK;
        cast_read(from, (const uint8_t *)in + done * from_size, block, part);
        cast_write(to, block, (uint8_t *)out + done * to_size, part);
        done += part;
    }
}
