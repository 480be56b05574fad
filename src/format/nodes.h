/* SPDX-License-Identifier: Apache-2.0 */
/* Values that training libraries write in their own ways, out of a pickle's nodes. */
#ifndef CKPTFS_FORMAT_NODES_H
#define CKPTFS_FORMAT_NODES_H

#include "format/pickle.h"
#include "format/tensor.h"

/* A str without a NUL inside; NULL: the node is none. */
const char *node_text(const struct pickle_node *node);
/* A list or a tuple; not a set. */
bool node_is_sequence(const struct pickle_node *node);
/* A torch.Size, a tuple or a list of sizes. 0; FORMAT_FOREIGN with `problem` filled; -ENOMEM. */
int node_shape(const struct pickle_node *node, struct arena *arena, struct tensor_shape *out,
               struct format_problem *problem);

#endif
