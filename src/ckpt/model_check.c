/* SPDX-License-Identifier: Apache-2.0 */
/* The check of a model that was built from files that nobody trusts. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/cover.h"
#include "ckpt/model.h"
#include "format/utf8.h"

enum { MODEL_REPEATED_MAX = 16 << 20 };

/* The distances of neighbours in a dimension, in elements of the row-major tensor. */
static void model_row_strides(const struct tensor_shape *shape, const int64_t *sizes, int64_t *strides)
{
    int64_t step = 1;
    for (uint32_t d = shape->rank; d-- > 0;) {
        strides[d] = step;
        step *= sizes[d];
    }
}

/* -- one piece --------------------------------------------------------------------------------------------
 */

/* Fills in the number of elements, and the place of the first. False: the box does not lie in the tensor,
 * which has `count` elements. */
static bool model_place_box(const struct model_tensor *tensor, struct model_piece *piece, int64_t count)
{
    int64_t strides[TENSOR_RANK_MAX];
    for (uint32_t d = 0; d < tensor->shape.rank; d++) {
        if (piece->starts[d] < 0 || piece->sizes[d] < 0 || piece->starts[d] > tensor->shape.sizes[d] ||
            piece->sizes[d] > tensor->shape.sizes[d] - piece->starts[d])
            return false;
    }
    piece->first = 0;
    piece->count = count > 0;
    if (count == 0)
        return true;
    /* Nothing overflows: no number is larger than the tensor's own. */
    model_row_strides(&tensor->shape, tensor->shape.sizes, strides);
    for (uint32_t d = 0; d < tensor->shape.rank; d++) {
        piece->first += piece->starts[d] * strides[d];
        piece->count *= piece->sizes[d];
    }
    return true;
}

/* The number of elements of the file from the piece's first to its last, both counted; false: it does not
 * fit. */
static bool model_piece_span(const struct model_tensor *tensor, const struct model_piece *piece,
                             int64_t *span)
{
    int64_t step;
    *span = piece->count;
    if (!piece->starts || !piece->strides)
        return true;
    *span = 1;
    for (uint32_t d = 0; d < tensor->shape.rank; d++) {
        if (piece->strides[d] < 0 || __builtin_mul_overflow(piece->sizes[d] - 1, piece->strides[d], &step) ||
            __builtin_add_overflow(*span, step, span))
            return false;
    }
    return true;
}

/* NULL, or what is wrong with the piece. Of one that is empty only its place is judged. */
static const char *model_judge_piece(const struct model *model, const struct model_tensor *tensor,
                                     struct model_piece *piece, int64_t count)
{
    int64_t span, bytes;
    if (piece->file >= model->file_count)
        return "is in no file";
    if (piece->starts ? !model_place_box(tensor, piece, count)
                      : piece->first < 0 || piece->count < 0 || piece->first > count ||
                            piece->count > count - piece->first)
        return "lies outside the tensor";
    if (piece->count == 0)
        return NULL;
    if (piece->starts ? tensor_type_bits(tensor->stored) % 8 != 0
                      : !tensor_bytes(tensor->stored, piece->first, &bytes) ||
                            !tensor_bytes(tensor->stored, piece->count, &bytes))
        return "is not of whole bytes";
    if (piece->offset < 0 || !model_piece_span(tensor, piece, &span) ||
        !tensor_bytes(tensor->stored, span, &bytes) || piece->offset > model->files[piece->file].size ||
        bytes > model->files[piece->file].size - piece->offset)
        return "reaches behind the end of its file";
    /* A view may repeat elements of a storage: a small file must not become one that fills the disk. */
    if (span < piece->count &&
        (!tensor_bytes(tensor->stored, piece->count, &bytes) || bytes > MODEL_REPEATED_MAX))
        return "repeats elements of its file too often";
    return NULL;
}

/* Whether the elements of a box follow each other in the tensor: a part of one dimension, all of those behind
 * it, one of each before. */
static bool model_box_is_interval(const struct model_tensor *tensor, const struct model_piece *piece)
{
    uint32_t d = 0;
    while (d < tensor->shape.rank && piece->sizes[d] == 1)
        d++;
    for (d++; d < tensor->shape.rank; d++) {
        if (piece->sizes[d] != tensor->shape.sizes[d])
            return false;
    }
    return true;
}

static bool model_box_is_dense(const struct model_tensor *tensor, const struct model_piece *piece)
{
    int64_t strides[TENSOR_RANK_MAX];
    if (!piece->strides)
        return true;
    model_row_strides(&tensor->shape, piece->sizes, strides);
    for (uint32_t d = 0; d < tensor->shape.rank; d++) {
        if (piece->sizes[d] != 1 && piece->strides[d] != strides[d])
            return false;
    }
    return true;
}

/* Makes a box of a run of whole rows of the first dimension. False: it is none. -ENOMEM in *error. */
static bool model_make_box(struct model *model, const struct model_tensor *tensor, struct model_piece *piece,
                           errint *error)
{
    const struct tensor_shape *shape = &tensor->shape;
    int64_t strides[TENSOR_RANK_MAX];
    model_row_strides(shape, shape->sizes, strides);
    if (shape->rank == 0 || piece->first % strides[0] != 0 || piece->count % strides[0] != 0)
        return false;
    int64_t *box = arena_take_array(&model->arena, 2 * (size_t)shape->rank, sizeof *box);
    if (!box) {
        *error = -ENOMEM;
        return false;
    }
    memcpy(box + shape->rank, shape->sizes, shape->rank * sizeof *box);
    box[0] = piece->first / strides[0];
    box[shape->rank] = piece->count / strides[0];
    piece->starts = box;
    piece->sizes = box + shape->rank;
    return true;
}

/* -- all pieces of a tensor -------------------------------------------------------------------------------
 */

static int model_compare_pieces(const void *one, const void *other)
{
    const struct model_piece *a = one, *b = other;
    return (a->first > b->first) - (a->first < b->first);
}

/* Takes the empty ones out and sorts the rest. `*intervals`: each is one interval of the tensor. */
static errint model_judge_pieces(struct model *model, struct model_tensor *tensor, int64_t count, bool *fine,
                                 bool *intervals)
{
    size_t kept = 0;
    *fine = *intervals = true;
    for (size_t i = 0; i < tensor->piece_count; i++) {
        struct model_piece *piece = &tensor->pieces[i];
        const char *wrong = model_judge_piece(model, tensor, piece, count);
        if (wrong) {
            const char *path =
                piece->file < model->file_count ? model->files[piece->file].path : "(unknown file)";
            *fine = false;
            return model_add_note(model, true, "%s, offset %" PRId64 ": a piece of %s %s", path,
                                  piece->offset, tensor->name, wrong);
        }
        if (piece->count == 0)
            continue;
        *intervals &= !piece->starts || model_box_is_interval(tensor, piece);
        tensor->pieces[kept++] = *piece;
    }
    tensor->piece_count = kept;
    if (kept > 0)
        qsort(tensor->pieces, kept, sizeof *tensor->pieces, model_compare_pieces);
    return 0;
}

/* What makes one tensor incomplete makes many so, as a rule: the first one is told, the others are counted.
 */
static bool model_tell_gap(size_t *gaps)
{
    return (*gaps)++ == 0;
}

static errint model_note_gaps(struct model *model, size_t gaps)
{
    if (gaps < 2)
        return 0;
    return model_add_note(model, true, "%zu more tensor%s incomplete", gaps - 1, gaps == 2 ? " is" : "s are");
}

static errint model_check_boxes(struct model *model, struct model_tensor *tensor, size_t *gaps)
{
    cleanup_free const struct model_piece **scratch =
        reallocarray(NULL, tensor->piece_count, sizeof *scratch);
    errint error = scratch ? 0 : -ENOMEM;
    bool understood = true;
    for (size_t i = 0; i < tensor->piece_count && understood && !error; i++) {
        if (!tensor->pieces[i].starts)
            understood = model_make_box(model, tensor, &tensor->pieces[i], &error);
    }
    if (error)
        return error;
    if (understood && cover_boxes(tensor->pieces, tensor->piece_count, &tensor->shape, scratch))
        return 0;
    if (!model_tell_gap(gaps))
        return 0;
    return model_add_note(model, true,
                          "tensor %s: its %zu pieces overlap, leave gaps, or lie in a way that is not "
                          "understood",
                          tensor->name, tensor->piece_count);
}

static errint model_check_intervals(struct model *model, struct model_tensor *tensor, int64_t count,
                                    size_t *gaps)
{
    int64_t at = cover_runs(tensor->pieces, tensor->piece_count, count);
    if (at < 0 || !model_tell_gap(gaps))
        return 0;
    return model_add_note(model, true,
                          "tensor %s: element %" PRId64 " of %" PRId64 " is in no piece or in two",
                          tensor->name, at, count);
}

/* A box that is an interval of the tensor and of the file is a run. */
static void model_make_runs(struct model_tensor *tensor)
{
    for (size_t i = 0; i < tensor->piece_count; i++) {
        struct model_piece *piece = &tensor->pieces[i];
        if (piece->starts && model_box_is_interval(tensor, piece) && model_box_is_dense(tensor, piece))
            piece->starts = piece->sizes = piece->strides = NULL;
    }
}

/* -- one tensor -------------------------------------------------------------------------------------------
 */

static bool model_is_number(enum tensor_type type)
{
    return type == TENSOR_F64 || type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

bool model_can_cast(enum tensor_type from, enum tensor_type to)
{
    return from == to || (model_is_number(from) && model_is_number(to) && to != TENSOR_F64);
}

static errint model_check_tied(struct model *model, const struct model_tensor *tensor)
{
    const struct model_tensor *kept = model_find_tensor(model, tensor->tied);
    if (!kept || kept->tied || kept->type != tensor->type ||
        !tensor_shape_equal(&kept->shape, &tensor->shape))
        return model_add_note(model, true, "tensor %s is the same as %s, which is missing or another one",
                              tensor->name, tensor->tied);
    return 0;
}

static errint model_check_tensor(struct model *model, struct model_tensor *tensor, size_t *gaps)
{
    int64_t count, bytes;
    bool fine, intervals;
    if (!utf8_is_valid(tensor->name, strlen(tensor->name)))
        return model_add_note(model, true, "tensor %s: its name is not UTF-8", tensor->name);
    if (tensor->shape.rank > TENSOR_RANK_MAX || !tensor_count(&tensor->shape, &count) ||
        !tensor_bytes(tensor->stored, count, &bytes) || !tensor_bytes(tensor->type, count, &bytes))
        return model_add_note(model, true, "tensor %s: its shape does not fit", tensor->name);
    if (!model_can_cast(tensor->stored, tensor->type))
        return model_add_note(model, true, "tensor %s: %s cannot be made of %s", tensor->name,
                              tensor_type_name(tensor->type), tensor_type_name(tensor->stored));
    if (tensor->tied)
        return model_check_tied(model, tensor);
    errint error = model_judge_pieces(model, tensor, count, &fine, &intervals);
    if (error || !fine)
        return error;
    error = intervals ? model_check_intervals(model, tensor, count, gaps)
                      : model_check_boxes(model, tensor, gaps);
    model_make_runs(tensor);
    return error;
}

/* -- tied tensors -----------------------------------------------------------------------------------------
 */

struct model_place {
    uint32_t file, tensor;
    int64_t offset;
};

static int model_compare_places(const void *one, const void *other)
{
    const struct model_place *a = one, *b = other;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

/* Whether both are the same bytes in the same order. Each has one piece, and these start at one place. */
static bool model_is_same(const struct model_tensor *a, const struct model_tensor *b)
{
    const struct model_piece *one = a->pieces, *other = b->pieces;
    if (a->type != b->type || a->stored != b->stored || !tensor_shape_equal(&a->shape, &b->shape) ||
        !one->starts != !other->starts || !one->strides != !other->strides)
        return false;
    size_t size = a->shape.rank * sizeof(int64_t);
    return !one->starts || (memcmp(one->sizes, other->sizes, size) == 0 &&
                            (!one->strides || memcmp(one->strides, other->strides, size) == 0));
}

static errint model_find_tied(struct model *model)
{
    cleanup_free struct model_place *places = reallocarray(NULL, model->tensor_count, sizeof *places);
    size_t count = 0;
    if (!places)
        return model->tensor_count > 0 ? -ENOMEM : 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        if (!tensor->tied && tensor->piece_count == 1)
            places[count++] = (struct model_place){
                .file = tensor->pieces->file, .tensor = (uint32_t)i, .offset = tensor->pieces->offset};
    }
    if (count > 0)
        qsort(places, count, sizeof *places, model_compare_places);
    for (size_t i = 1, first = 0; i < count; i++) {
        struct model_tensor *kept = &model->tensors[places[first].tensor];
        struct model_tensor *tensor = &model->tensors[places[i].tensor];
        if (places[i].file != places[first].file || places[i].offset != places[first].offset ||
            !model_is_same(kept, tensor))
            first = i;
        else
            tensor->tied = kept->name;
    }
    /* What was said to be the same as one of these. */
    for (size_t i = 0; i < model->tensor_count; i++) {
        const char *tied = model->tensors[i].tied;
        const struct model_tensor *kept = tied ? model_find_tensor(model, tied) : NULL;
        if (kept && kept->tied)
            model->tensors[i].tied = kept->tied;
    }
    return 0;
}

errint model_check(struct model *model)
{
    errint error = 0;
    size_t gaps = 0;
    for (size_t i = 0; i < model->tensor_count && !error; i++)
        error = model_check_tensor(model, &model->tensors[i], &gaps);
    if (!error)
        error = model_note_gaps(model, gaps);
    return error ? error : model_find_tied(model);
}
