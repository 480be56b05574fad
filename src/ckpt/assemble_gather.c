/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathering. Of a box the part that is asked for is walked through in the order of the file, however its
 * dimensions are ordered there: what is read goes forward, in large blocks where most of it is needed.
 */
#include "ckpt/assemble_gather.h"

#include <errno.h>
#include <string.h>

enum {
    GATHER_WINDOW = 1 << 20,
    GATHER_DIRECT = 64 * 1024, /* a run of this size is read to its place at once */
    GATHER_DENSITY = 4, /* what lies between is read along when at least one part in so many is needed */
};

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* Gives `length` bytes, at most GATHER_WINDOW; up to `end` may be read along. */
static errint gather_fetch(struct assemble_gather *gather, uint32_t file, int64_t offset, size_t length,
                           int64_t end, const uint8_t **out)
{
    if (!gather->window) {
        gather->window = malloc(GATHER_WINDOW);
        if (!gather->window)
            return -ENOMEM;
    }
    int64_t inside = offset - gather->window_offset;
    if (gather->window_file != file || inside < 0 ||
        inside + (int64_t)length > (int64_t)gather->window_length) {
        int64_t ahead = end - offset < GATHER_WINDOW ? end - offset : GATHER_WINDOW;
        size_t size = ahead > (int64_t)length ? (size_t)ahead : length;
        gather->window_length = 0;
        errint error = gather->read(gather->context, file, gather->window, size, offset);
        if (error)
            return error;
        gather->window_file = file;
        gather->window_offset = offset;
        gather->window_length = size;
        inside = 0;
    }
    *out = gather->window + inside;
    return 0;
}

/* Elements that follow each other, in the file and where they go. */
static errint gather_run(struct assemble_gather *gather, uint32_t file, int64_t offset, size_t length,
                         int64_t end, uint8_t *out)
{
    const uint8_t *bytes;
    if (length >= GATHER_DIRECT)
        return gather->read(gather->context, file, out, length, offset);
    errint error = gather_fetch(gather, file, offset, length, end, &bytes);
    if (!error)
        memcpy(out, bytes, length);
    return error;
}

/* -- a box ------------------------------------------------------------------------------------------------
 */

struct gather_dimension {
    int64_t size, start, count; /* of the tensor; the box in it */
    int64_t tensor_stride, file_stride;
};

struct gather_box {
    const struct model_piece *piece;
    size_t element; /* bytes */
    uint32_t rank;
    struct gather_dimension at[TENSOR_RANK_MAX];
    int64_t from; /* the first element that is wanted, which goes to the start of `out` */
    uint8_t *out;
};

/* Dimensions of size 1 go; two that are one in the tensor and in the file become one. */
static void gather_simplify(struct gather_box *box)
{
    uint32_t kept = 0;
    for (uint32_t d = 0; d < box->rank; d++) {
        const struct gather_dimension inner = box->at[d];
        struct gather_dimension *outer = kept > 0 ? &box->at[kept - 1] : NULL;
        if (inner.size == 1)
            continue;
        if (outer && inner.count == inner.size && outer->file_stride == inner.file_stride * inner.size) {
            *outer = (struct gather_dimension){.size = outer->size * inner.size,
                                               .start = outer->start * inner.size,
                                               .count = outer->count * inner.size,
                                               .tensor_stride = inner.tensor_stride,
                                               .file_stride = inner.file_stride};
            continue;
        }
        box->at[kept++] = inner;
    }
    if (kept == 0)
        box->at[kept++] = (struct gather_dimension){.size = 1, .count = 1, .tensor_stride = 1};
    box->rank = kept;
}

static void gather_describe(const struct model_tensor *tensor, const struct model_piece *piece,
                            struct gather_box *box)
{
    int64_t tensor_step = 1, file_step = 1;
    box->piece = piece;
    box->rank = tensor->shape.rank;
    for (uint32_t d = box->rank; d-- > 0;) {
        box->at[d] = (struct gather_dimension){.size = tensor->shape.sizes[d],
                                               .start = piece->starts[d],
                                               .count = piece->sizes[d],
                                               .tensor_stride = tensor_step,
                                               .file_stride = piece->strides ? piece->strides[d] : file_step};
        tensor_step *= tensor->shape.sizes[d];
        file_step *= piece->sizes[d];
    }
    gather_simplify(box);
}

/* What is taken of a box at once: a part of it that is a box too. */
struct gather_walk {
    uint32_t rank; /* dimensions in which it has more than one element, at least one */
    struct {
        int64_t count, tensor_stride, file_stride;
    } at[TENSOR_RANK_MAX]; /* in the order of the file, the innermost last */
    int64_t file_first;    /* the first element, from the piece's start */
    int64_t out_first;     /* where it goes, from the start of `out` */
    int64_t file_last;
    bool dense;
};

static void gather_insert(struct gather_walk *walk, int64_t count, const struct gather_dimension *dimension)
{
    uint32_t place = walk->rank++;
    for (; place > 0 && walk->at[place - 1].file_stride < dimension->file_stride; place--)
        walk->at[place] = walk->at[place - 1];
    walk->at[place].count = count;
    walk->at[place].tensor_stride = dimension->tensor_stride;
    walk->at[place].file_stride = dimension->file_stride;
}

/* The part from `low` to `high` of the tensor, cut to the box. False: there is none. */
static bool gather_aim(const struct gather_box *box, const int64_t *low, const int64_t *high,
                       struct gather_walk *walk)
{
    int64_t elements = 1;
    walk->rank = 0;
    walk->file_first = 0;
    walk->file_last = 0;
    walk->out_first = -box->from;
    for (uint32_t d = 0; d < box->rank; d++) {
        const struct gather_dimension *dimension = &box->at[d];
        int64_t start = low[d] > dimension->start ? low[d] : dimension->start;
        int64_t end = dimension->start + dimension->count;
        if (high[d] < end)
            end = high[d];
        if (start >= end)
            return false;
        walk->file_first += (start - dimension->start) * dimension->file_stride;
        walk->file_last += (end - 1 - dimension->start) * dimension->file_stride;
        walk->out_first += start * dimension->tensor_stride;
        elements *= end - start;
        if (end - start > 1)
            gather_insert(walk, end - start, dimension);
    }
    if (walk->rank == 0) {
        static const struct gather_dimension one = {.tensor_stride = 1, .file_stride = 1};
        gather_insert(walk, 1, &one);
    }
    walk->dense = (walk->file_last - walk->file_first) / GATHER_DENSITY < elements;
    return true;
}

static void gather_scatter(const uint8_t *in, int64_t in_step, uint8_t *out, int64_t out_step, int64_t count,
                           size_t element)
{
#define GATHER_SCATTER(type)                                                                                 \
    for (int64_t i = 0; i < count; i++)                                                                      \
    memcpy(out + i * out_step * (int64_t)sizeof(type), in + i * in_step * (int64_t)sizeof(type), sizeof(type))
    switch (element) {
    case 1: GATHER_SCATTER(uint8_t); return;
    case 2: GATHER_SCATTER(uint16_t); return;
    case 4: GATHER_SCATTER(uint32_t); return;
    case 8: GATHER_SCATTER(uint64_t); return;
    default: GATHER_SCATTER(uint64_t[2]);
    }
#undef GATHER_SCATTER
}

/* The elements of the innermost dimension, from the element `file` of the piece on. */
static errint gather_line(struct assemble_gather *gather, const struct gather_box *box,
                          const struct gather_walk *walk, int64_t file, int64_t out)
{
    const struct model_piece *piece = box->piece;
    int64_t element = (int64_t)box->element, count = walk->at[walk->rank - 1].count;
    int64_t file_step = walk->at[walk->rank - 1].file_stride,
            out_step = walk->at[walk->rank - 1].tensor_stride;
    int64_t end = piece->offset + (walk->file_last + 1) * element;
    if (file_step == 1 && out_step == 1)
        return gather_run(gather, piece->file, piece->offset + file * element, (size_t)(count * element),
                          walk->dense ? end : 0, box->out + out * element);
    int64_t most = file_step > 0 ? (GATHER_WINDOW / element - 1) / file_step + 1 : count;
    for (int64_t done = 0; done < count;) {
        const uint8_t *bytes;
        int64_t part = count - done < most ? count - done : most;
        errint error =
            gather_fetch(gather, piece->file, piece->offset + (file + done * file_step) * element,
                         (size_t)(((part - 1) * file_step + 1) * element), walk->dense ? end : 0, &bytes);
        if (error)
            return error;
        gather_scatter(bytes, file_step, box->out + (out + done * out_step) * element, out_step, part,
                       box->element);
        done += part;
    }
    return 0;
}

static errint gather_part(struct assemble_gather *gather, const struct gather_box *box, const int64_t *low,
                          const int64_t *high)
{
    struct gather_walk walk;
    int64_t index[TENSOR_RANK_MAX] = {0};
    if (!gather_aim(box, low, high, &walk))
        return 0;
    int64_t file = walk.file_first, out = walk.out_first;
    for (;;) {
        errint error = gather_line(gather, box, &walk, file, out);
        if (error)
            return error;
        uint32_t d = walk.rank - 1;
        while (d > 0 && ++index[d - 1] == walk.at[d - 1].count) {
            d--;
            index[d] = 0;
            file -= (walk.at[d].count - 1) * walk.at[d].file_stride;
            out -= (walk.at[d].count - 1) * walk.at[d].tensor_stride;
        }
        if (d == 0)
            return 0;
        file += walk.at[d - 1].file_stride;
        out += walk.at[d - 1].tensor_stride;
    }
}

/*
 * Cuts elements [from, to) of the dimensions from `d` on into boxes: a part of the first row, whole rows, a
 * part of the last. What the dimensions before have is in `low` and `high`.
 */
static errint gather_cut(struct assemble_gather *gather, const struct gather_box *box, uint32_t d,
                         int64_t from, int64_t to, int64_t *low, int64_t *high)
{
    int64_t step = box->at[d].tensor_stride, row = from / step, last = to / step;
    errint error = 0;
    if (d == box->rank - 1) {
        low[d] = from;
        high[d] = to;
        return gather_part(gather, box, low, high);
    }
    if (from % step != 0 && row < last) {
        low[d] = row;
        high[d] = row + 1;
        error = gather_cut(gather, box, d + 1, from % step, step, low, high);
        row++;
        from = row * step;
    }
    if (row < last && !error) {
        low[d] = row;
        high[d] = last;
        for (uint32_t i = d + 1; i < box->rank; i++) {
            low[i] = 0;
            high[i] = box->at[i].size;
        }
        error = gather_part(gather, box, low, high);
        from = last * step;
    }
    if (from < to && !error) {
        low[d] = last;
        high[d] = last + 1;
        error = gather_cut(gather, box, d + 1, from - last * step, to - last * step, low, high);
    }
    return error;
}

static errint gather_from_box(struct assemble_gather *gather, const struct model_piece *piece, int64_t from,
                              int64_t to, uint8_t *out)
{
    int64_t low[TENSOR_RANK_MAX], high[TENSOR_RANK_MAX];
    struct gather_box box = {
        .element = tensor_type_bits(gather->tensor->stored) / 8, .from = from, .out = out};
    gather_describe(gather->tensor, piece, &box);
    int64_t last = 0;
    for (uint32_t d = 0; d < box.rank; d++)
        last += (box.at[d].start + box.at[d].count - 1) * box.at[d].tensor_stride;
    return last < from ? 0 : gather_cut(gather, &box, 0, from, to, low, high);
}

/* -- all pieces -------------------------------------------------------------------------------------------
 */

static errint gather_from_run(struct assemble_gather *gather, const struct model_piece *piece, int64_t from,
                              int64_t to, uint8_t *out)
{
    int64_t element = tensor_type_bits(gather->tensor->stored) / 8;
    int64_t start = from > piece->first ? from : piece->first;
    int64_t end = piece->first + piece->count < to ? piece->first + piece->count : to;
    if (start >= end)
        return 0;
    return gather_run(gather, piece->file, piece->offset + (start - piece->first) * element,
                      (size_t)((end - start) * element), 0, out + (start - from) * element);
}

errint assemble_gather_range(struct assemble_gather *gather, int64_t from, int64_t to, void *out)
{
    const struct model_tensor *tensor = gather->tensor;
    errint error = 0;
    /* They are sorted by their first element. */
    for (size_t i = 0; i < tensor->piece_count && tensor->pieces[i].first < to && !error; i++) {
        const struct model_piece *piece = &tensor->pieces[i];
        error = piece->starts ? gather_from_box(gather, piece, from, to, out)
                              : gather_from_run(gather, piece, from, to, out);
    }
    return error;
}

void assemble_gather_release(struct assemble_gather *gather)
{
    free(gather->window);
    gather->window = NULL;
}
