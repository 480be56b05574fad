/* SPDX-License-Identifier: Apache-2.0 */
/* Values out of a pickle's nodes. */
#include "format/nodes.h"

#include <errno.h>
#include <string.h>

const char *node_text(const struct pickle_node *node)
{
    if (!node || node->kind != PICKLE_TEXT || memchr(node->text, '\0', node->length))
        return NULL;
    return node->text;
}

bool node_is_sequence(const struct pickle_node *node)
{
    return node && (node->kind == PICKLE_LIST || node->kind == PICKLE_TUPLE);
}

int node_shape(const struct pickle_node *node, struct arena *arena, struct tensor_shape *out,
               struct format_problem *problem)
{
    if (pickle_is_call(node, "torch Size"))
        node = node->count == 1 ? node->items[0] : NULL;
    if (!node_is_sequence(node))
        return format_problem_set(problem, -1, "expected a torch.Size, found something else");
    if (node->count > TENSOR_RANK_MAX)
        return format_problem_set(problem, -1, "a shape of %zu dimensions, at most %d are known", node->count,
                                  TENSOR_RANK_MAX);
    int64_t *sizes = arena_take_array(arena, node->count, sizeof *sizes);
    if (!sizes)
        return -ENOMEM;
    for (size_t i = 0; i < node->count; i++) {
        if (!pickle_integer(node->items[i], &sizes[i]) || sizes[i] < 0)
            return format_problem_set(problem, -1, "a shape with a size that is no number from 0 on");
    }
    *out = (struct tensor_shape){.rank = (uint32_t)node->count, .sizes = sizes};
    return 0;
}
