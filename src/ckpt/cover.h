/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether pieces fill a tensor: every element exactly once.
 */
#ifndef CKPTFS_CKPT_COVER_H
#define CKPTFS_CKPT_COVER_H

#include "ckpt/model.h"

/*
 * Whether the boxes, none of them empty and all inside the tensor, fill it. Sorts them. Boxes that a mesh of
 * devices or any repeated cutting makes are told apart in little more than the time to sort them; of other
 * arrangements only those of up to COVER_PAIRS_MAX boxes are understood, the rest count as not filling it, so
 * that no file can make this take long. `scratch` has room for as many pointers as there are boxes.
 */
bool cover_boxes(struct model_piece *pieces, size_t count, const struct tensor_shape *shape,
                 const struct model_piece **scratch);

/* Of runs that are sorted by their first element: -1 when they fill `count` elements, else the first element
 * that is in none or in two of them. */
int64_t cover_runs(const struct model_piece *pieces, size_t piece_count, int64_t count);

enum { COVER_PAIRS_MAX = 1024 };

#endif
