/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating-point numbers of one type made to those of another, rounded as torch's .to() does.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_CAST_H
#define CKPTFS_CKPT_ASSEMBLE_CAST_H

#include "format/tensor.h"

/*
 * Converts `count` elements, little-endian as files have them: from F64, F32, F16 or BF16 to F32, F16 or BF16
 * (model_can_cast). To nearest, ties to even; what is too large becomes infinite, NaN stays NaN, subnormal
 * numbers are kept. A F64 is rounded to a F32 first, as torch does. The buffers do not overlap and need no
 * alignment. Thread-safe.
 */
void assemble_cast(enum tensor_type from, enum tensor_type to, const void *in, void *out, size_t count);

#endif
