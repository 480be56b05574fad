/* SPDX-License-Identifier: Apache-2.0 */
/* Which ranges of a model file and of shards hold the same elements. */
#include "ckpt/counterpart.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"

enum { COUNTERPART_NAME_MAX = 1024 };

struct counterpart_list {
    struct counterpart *at;
    size_t count, capacity;
    size_t rows; /* of pieces that are interleaved */
};

/* -- names ------------------------------------------------------------------------------------------------
 */

static const char *const counterpart_prefixes[] = {"module.", "_orig_mod.", "model."};

/* The tensor that holds the bytes; NULL: there is none of that name. */
static const struct model_tensor *counterpart_look_up(const struct model *model, const char *name)
{
    const struct model_tensor *tensor = model_find_tensor(model, name);
    return tensor && tensor->tied ? model_find_tensor(model, tensor->tied) : tensor;
}

static const struct model_tensor *counterpart_find_tensor(const struct model *model, const char *name)
{
    const struct model_tensor *found = counterpart_look_up(model, name);
    for (size_t i = 0; i < sizeof counterpart_prefixes / sizeof *counterpart_prefixes && !found; i++) {
        const char *prefix = counterpart_prefixes[i];
        char longer[COUNTERPART_NAME_MAX];
        size_t length = strlen(prefix);
        if (strncmp(name, prefix, length) == 0)
            found = counterpart_look_up(model, name + length);
        if (!found && snprintf(longer, sizeof longer, "%s%s", prefix, name) < (int)sizeof longer)
            found = counterpart_look_up(model, longer);
    }
    return found;
}

/* -- pieces -----------------------------------------------------------------------------------------------
 */

static errint counterpart_add(struct counterpart_list *list, const struct counterpart *range)
{
    struct counterpart *last = list->count ? &list->at[list->count - 1] : NULL;
    if (range->length == 0 || list->count == COUNTERPART_RANGES_MAX)
        return 0;
    if (last && last->file == range->file && last->whole_file == range->whole_file &&
        last->from + last->length == range->from && last->whole + last->length == range->whole) {
        last->length += range->length;
        return 0;
    }
    if (!grow_reserve(list->at, list->capacity, list->count + 1))
        return -ENOMEM;
    list->at[list->count++] = *range;
    return 0;
}

/*
 * How many elements of a box follow each other in the tensor and in the file, and the dimensions that they
 * span: from *outer on.
 */
static int64_t counterpart_row(const struct model_tensor *tensor, const struct model_piece *piece,
                               uint32_t *outer)
{
    int64_t row = 1;
    uint32_t dimension = tensor->shape.rank;
    bool whole = true;
    while (dimension > 0 && whole) {
        const uint32_t at = dimension - 1;
        if (piece->strides && piece->sizes[at] != 1 && piece->strides[at] != row)
            break;
        row *= piece->sizes[at];
        whole = piece->sizes[at] == tensor->shape.sizes[at];
        dimension = at;
    }
    *outer = dimension;
    return row;
}

/* A box while it is gone through row by row. */
struct counterpart_box {
    const struct model_tensor *tensor;
    const struct model_piece *piece;
    int64_t element; /* bytes */
    struct counterpart range;
    int64_t file_start, whole_start; /* of the first element of the piece, of the tensor */
};

/* Row number `number` of those of the dimensions before `outer`. */
static void counterpart_place_row(struct counterpart_box *box, uint32_t outer, int64_t number)
{
    const struct model_tensor *tensor = box->tensor;
    const struct model_piece *piece = box->piece;
    int64_t in_tensor = 0, in_file = 0, tensor_stride = 1, file_stride = 1;
    for (uint32_t at = tensor->shape.rank; at-- > 0;) {
        int64_t index = 0;
        if (at < outer) {
            index = number % piece->sizes[at];
            number /= piece->sizes[at];
        }
        in_tensor += (piece->starts[at] + index) * tensor_stride;
        in_file += index * (piece->strides ? piece->strides[at] : file_stride);
        tensor_stride *= tensor->shape.sizes[at];
        file_stride *= piece->sizes[at];
    }
    box->range.from = box->file_start + in_file * box->element;
    box->range.whole = box->whole_start + in_tensor * box->element;
}

static errint counterpart_add_box(struct counterpart_list *list, struct counterpart_box *box)
{
    uint32_t outer;
    int64_t row = counterpart_row(box->tensor, box->piece, &outer);
    int64_t rows = 1;
    for (uint32_t at = 0; at < outer; at++) {
        rows *= box->piece->sizes[at]; /* all are elements of a tensor that fits */
    }
    box->range.length = row * box->element;
    if (rows > 1 &&
        (box->range.length < COUNTERPART_LENGTH_MIN || rows > (int64_t)(COUNTERPART_ROWS_MAX - list->rows)))
        return 0;
    list->rows += rows > 1 ? (size_t)rows : 0;
    errint error = 0;
    for (int64_t i = 0; i < rows && !error; i++) {
        counterpart_place_row(box, outer, i);
        error = counterpart_add(list, &box->range);
    }
    return error;
}

/* -- tensors ----------------------------------------------------------------------------------------------
 */

static bool counterpart_is_run(const struct model_tensor *tensor)
{
    int64_t count;
    return tensor->piece_count == 1 && !tensor->pieces->starts && tensor->pieces->first == 0 &&
           tensor_count(&tensor->shape, &count) && tensor->pieces->count == count;
}

static errint counterpart_add_tensor(struct counterpart_list *list, const struct model_tensor *whole,
                                     const struct model_tensor *pieces)
{
    const unsigned bits = tensor_type_bits(whole->stored);
    if (bits % 8 != 0 || pieces->stored != whole->stored || !counterpart_is_run(whole) ||
        !tensor_shape_equal(&pieces->shape, &whole->shape))
        return 0;
    errint error = 0;
    for (size_t i = 0; i < pieces->piece_count && !error; i++) {
        const struct model_piece *piece = &pieces->pieces[i];
        struct counterpart_box box = {
            .tensor = pieces,
            .piece = piece,
            .element = bits / 8,
            .range = {.file = piece->file, .from = piece->offset, .whole_file = whole->pieces->file},
            .file_start = piece->offset,
            .whole_start = whole->pieces->offset,
        };
        if (piece->starts) {
            error = counterpart_add_box(list, &box);
            continue;
        }
        box.range.whole = whole->pieces->offset + piece->first * box.element;
        box.range.length = piece->count * box.element;
        error = counterpart_add(list, &box.range);
    }
    return error;
}

/* -- the result -------------------------------------------------------------------------------------------
 */

static int counterpart_compare(const void *one, const void *other)
{
    const struct counterpart *a = one, *b = other;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    if (a->from != b->from)
        return a->from < b->from ? -1 : 1;
    return (a->whole > b->whole) - (a->whole < b->whole);
}

/* Whether the range begins where the one before it ends in the shard. */
static bool counterpart_follows(const struct counterpart *range)
{
    const struct counterpart *before = range - 1;
    return before->file == range->file && before->from + before->length == range->from;
}

/* Joins what has become neighbours by the sorting, and leaves out what is too short. */
static void counterpart_finish(struct counterpart_list *list)
{
    size_t kept = 0;
    if (list->count > 0)
        qsort(list->at, list->count, sizeof *list->at, counterpart_compare);
    struct counterpart_list joined = {.at = list->at, .capacity = list->capacity};
    for (size_t i = 0; i < list->count; i++) {
        const struct counterpart range = list->at[i];
        counterpart_add(&joined, &range); /* in place: it never has more than were there */
    }
    for (size_t first = 0, next; first < joined.count; first = next) {
        int64_t bytes = joined.at[first].length;
        for (next = first + 1; next < joined.count && counterpart_follows(&joined.at[next]); next++)
            bytes += joined.at[next].length;
        for (size_t i = first; i < next && bytes >= COUNTERPART_LENGTH_MIN; i++) {
            if (joined.at[i].length >= COUNTERPART_PART_MIN)
                joined.at[kept++] = joined.at[i];
        }
    }
    list->count = kept;
}

errint counterpart_find(const struct model *whole, const struct model *pieces, struct counterpart **out,
                        size_t *count)
{
    struct counterpart_list list = {0};
    errint error = 0;
    *out = NULL;
    *count = 0;
    for (size_t i = 0; i < whole->tensor_count && !error; i++) {
        const struct model_tensor *tensor = &whole->tensors[i];
        const struct model_tensor *other =
            tensor->tied ? NULL : counterpart_find_tensor(pieces, tensor->name);
        if (other)
            error = counterpart_add_tensor(&list, tensor, other);
    }
    if (error) {
        free(list.at);
        return error;
    }
    counterpart_finish(&list);
    *out = list.at;
    *count = list.count;
    return 0;
}
