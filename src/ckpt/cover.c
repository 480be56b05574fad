/* SPDX-License-Identifier: Apache-2.0 */
/* Whether pieces fill a tensor. Boxes are cut apart along planes that cross none of them. */
#include "ckpt/cover.h"

#include <stdlib.h>

/* As often as a part is cut into slabs and these again; a mesh needs one level a dimension. */
enum { COVER_DEPTH_MAX = 2 * TENSOR_RANK_MAX };

int64_t cover_runs(const struct model_piece *pieces, size_t piece_count, int64_t count)
{
    int64_t at = 0;
    for (size_t i = 0; i < piece_count; i++) {
        if (pieces[i].first != at)
            return pieces[i].first < at ? pieces[i].first : at;
        at += pieces[i].count;
    }
    return at == count ? -1 : at;
}

/* A part of the tensor, from `low` to `high` in each dimension, and the boxes in it. */
struct cover_part {
    const struct model_piece **boxes;
    size_t count;
    uint32_t rank;
    int64_t low[TENSOR_RANK_MAX], high[TENSOR_RANK_MAX];
};

static int cover_compare(const void *one, const void *other, void *dimension)
{
    const struct model_piece *const *a = one, *const *b = other;
    uint32_t d = *(const uint32_t *)dimension;
    return ((*a)->starts[d] > (*b)->starts[d]) - ((*a)->starts[d] < (*b)->starts[d]);
}

static bool cover_is_box(const struct cover_part *part, const struct model_piece *box)
{
    for (uint32_t d = 0; d < part->rank; d++) {
        if (box->starts[d] != part->low[d] || box->starts[d] + box->sizes[d] != part->high[d])
            return false;
    }
    return true;
}

static bool cover_boxes_meet(const struct model_piece *a, const struct model_piece *b, uint32_t rank)
{
    for (uint32_t d = 0; d < rank; d++) {
        if (a->starts[d] + a->sizes[d] <= b->starts[d] || b->starts[d] + b->sizes[d] <= a->starts[d])
            return false;
    }
    return true;
}

/* Boxes that lie in the part, no two of which meet, and that are as large as it. */
static bool cover_by_pairs(const struct cover_part *part)
{
    int64_t left = 1;
    if (part->count > COVER_PAIRS_MAX)
        return false;
    for (uint32_t d = 0; d < part->rank; d++)
        left *= part->high[d] - part->low[d];
    for (size_t i = 0; i < part->count; i++) {
        for (uint32_t d = 0; d < part->rank; d++) {
            if (part->boxes[i]->starts[d] < part->low[d] ||
                part->boxes[i]->starts[d] + part->boxes[i]->sizes[d] > part->high[d])
                return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (cover_boxes_meet(part->boxes[i], part->boxes[j], part->rank))
                return false;
        }
        left -= part->boxes[i]->count;
    }
    return left == 0;
}

/* How many of the boxes, which are sorted in dimension `d`, make up the first slab, and where that ends. */
static size_t cover_first_slab(const struct model_piece **boxes, size_t count, uint32_t d, int64_t *end)
{
    size_t taken = 0;
    *end = boxes[0]->starts[d];
    do {
        int64_t box_end = boxes[taken]->starts[d] + boxes[taken]->sizes[d];
        if (box_end > *end)
            *end = box_end;
        taken++;
    } while (taken < count && boxes[taken]->starts[d] < *end);
    return taken;
}

static bool cover_part(struct cover_part *part, unsigned depth);

/* Cuts the part into slabs along one dimension and looks at each. */
static bool cover_slabs(struct cover_part *part, uint32_t d, unsigned depth)
{
    const int64_t low = part->low[d], high = part->high[d];
    const struct model_piece **boxes = part->boxes;
    size_t left = part->count;
    int64_t at = low;
    bool filled = true;
    while (filled && left > 0) {
        filled = boxes[0]->starts[d] == at;
        part->low[d] = at;
        part->boxes = boxes;
        part->count = cover_first_slab(boxes, left, d, &at);
        part->high[d] = at;
        boxes += part->count;
        left -= part->count;
        filled = filled && cover_part(part, depth + 1);
    }
    part->low[d] = low;
    part->high[d] = high;
    return filled && at == high;
}

/* Changes the order of the part's boxes, and `boxes` and `count` of the part. */
static bool cover_part(struct cover_part *part, unsigned depth)
{
    if (part->count == 1)
        return cover_is_box(part, part->boxes[0]);
    for (uint32_t d = 0; d < part->rank && depth < COVER_DEPTH_MAX; d++) {
        int64_t end;
        qsort_r(part->boxes, part->count, sizeof(struct model_piece *), cover_compare, &d);
        if (cover_first_slab(part->boxes, part->count, d, &end) < part->count)
            return cover_slabs(part, d, depth);
    }
    return cover_by_pairs(part);
}

bool cover_boxes(struct model_piece *pieces, size_t count, const struct tensor_shape *shape,
                 const struct model_piece **scratch)
{
    struct cover_part whole = {.boxes = scratch, .count = count, .rank = shape->rank};
    for (uint32_t d = 0; d < shape->rank; d++)
        whole.high[d] = shape->sizes[d];
    for (size_t i = 0; i < count; i++)
        scratch[i] = &pieces[i];
    return count > 0 && cover_part(&whole, 0);
}
