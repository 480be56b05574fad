/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the slices of tensor-parallel ranks make up parameters, where a states file says so: the `affine_map`
 * of `universal_checkpoint_info` (deepspeed/checkpoint/affine.py, version 1). Each rank holds pieces, and
 * each piece is a box both in the parameter and in the rank's shard. Looks at nodes only.
 *
 * Functions return 0; FORMAT_FOREIGN with `problem` filled; or -ENOMEM. What they give lives in the arena.
 */
#ifndef CKPTFS_FORMAT_DEEPSPEED_MAP_H
#define CKPTFS_FORMAT_DEEPSPEED_MAP_H

#include "format/deepspeed_states.h"

struct deepspeed_map {
    const char *name;
    struct tensor_shape shape;       /* of the whole parameter */
    const struct pickle_node *ranks; /* a dict from the rank to what it holds */
};

/* A piece of the parameter, as many numbers as this has dimensions. */
struct deepspeed_map_piece {
    int64_t *sizes;
    int64_t *starts;  /* in the parameter */
    int64_t *strides; /* in the shard, in elements */
    int64_t offset,
        count; /* in the shard: its first element, and the elements from there to its last, both counted */
    int64_t owner; /* the lowest rank that holds these elements */
};

/* The maps of a states file's root; *count is 0 when it has none. */
int deepspeed_read_maps(const struct pickle_node *root, struct arena *arena, struct deepspeed_map **out,
                        size_t *count, struct format_problem *problem);
/* The pieces of the rank's shard: a list. The ranks are in order, as they are written. */
int deepspeed_map_pieces(const struct deepspeed_map *map, int64_t rank, const struct pickle_node **pieces,
                         struct format_problem *problem);
int deepspeed_read_map_piece(const struct deepspeed_map *map, const struct pickle_node *piece,
                             struct arena *arena, struct deepspeed_map_piece *out,
                             struct format_problem *problem);

#endif
