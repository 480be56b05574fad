/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of tensors that are gathered or cast, in blocks. */
#include <errno.h>
#include <string.h>

#include "ckpt/assemble.h"
#include "ckpt/assemble_cast.h"
#include "ckpt/assemble_gather.h"

/* Elements that are gathered and cast at once. */
enum { COMPUTE_BLOCK = 1024 * 1024 };

/* Through two buffers: elements are cast, and of the first and the last one only a part may be wanted. */
static errint compute_blocks(struct assemble_gather *gather, enum tensor_type type, int64_t from, int64_t to,
                             uint8_t *out)
{
    enum tensor_type stored = gather->tensor->stored;
    int64_t size = tensor_type_bits(type) / 8;
    int64_t first = from / size, end = (to + size - 1) / size;
    size_t room = (size_t)(end - first < COMPUTE_BLOCK ? end - first : COMPUTE_BLOCK);
    cleanup_free uint8_t *in = malloc(room * (tensor_type_bits(stored) / 8));
    cleanup_free uint8_t *made = type != stored ? malloc(room * (size_t)size) : NULL;
    if (!in || (type != stored && !made))
        return -ENOMEM;
    while (first < end) {
        int64_t count = end - first < (int64_t)room ? end - first : (int64_t)room;
        errint error = assemble_gather_range(gather, first, first + count, in);
        if (error)
            return error;
        if (made)
            assemble_cast(stored, type, in, made, (size_t)count);
        int64_t start = first * size > from ? first * size : from;
        int64_t stop = (first + count) * size < to ? (first + count) * size : to;
        memcpy(out + (start - from), (made ? made : in) + (start - first * size), (size_t)(stop - start));
        first += count;
    }
    return 0;
}

errint assemble_compute(const struct model *model, const struct assemble_part *part, int64_t from,
                        size_t length, void *out, assemble_read *read, void *context)
{
    __attribute__((cleanup(assemble_gather_release))) struct assemble_gather gather = {
        .model = model, .tensor = part->tensor, .read = read, .context = context};
    int64_t size = tensor_type_bits(part->type) / 8, to = from + (int64_t)length;
    if (length == 0)
        return 0;
    if (part->type == part->tensor->stored && from % size == 0 && to % size == 0)
        return assemble_gather_range(&gather, from / size, to / size, out);
    return compute_blocks(&gather, part->type, from, to, out);
}
