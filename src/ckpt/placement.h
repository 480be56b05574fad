/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which part of a whole tensor a rank holds, as a DTensor says it: for each dimension of a mesh of ranks,
 * whether the tensor is split along one of its own dimensions or is the same on all
 * (torch/distributed/tensor/placement_types.py and _utils.py, 2.13).
 */
#ifndef CKPTFS_CKPT_PLACEMENT_H
#define CKPTFS_CKPT_PLACEMENT_H

#include "base/arena.h"
#include "format/tensor.h"

/* What one dimension of the mesh does. */
struct placement {
    bool sharded;   /* else the same on all ranks of it */
    uint32_t split; /* sharded: the tensor's dimension */
    int64_t factor; /* sharded: 1, or first cut into so many parts, each of which is split (_StridedShard) */
    int64_t size;   /* of the mesh in this dimension, at least 1 */
    int64_t position; /* the rank's, 0 to size - 1 */
};

/* Rows that follow each other in the whole tensor. */
struct placement_run {
    int64_t start, length;
};

/* The rows of one of the tensor's dimensions that the rank has, in the order in which it has them. */
struct placement_rows {
    struct placement_run *runs;
    size_t count;
    int64_t length; /* of all runs */
};

/* Dimensions are cut into at most so many runs. */
enum { PLACEMENT_RUNS_MAX = 65536 };

/*
 * Fills `rows` with an entry for each of the shape's dimensions. The runs live in the arena. 0; -EINVAL: a
 * placement that makes no sense, or too many runs; -ENOMEM.
 */
errint placement_find_rows(const struct tensor_shape *shape, const struct placement *placements, size_t count,
                           struct arena *arena, struct placement_rows *rows);

#endif
