/* SPDX-License-Identifier: Apache-2.0 */
/* What files of several ranges are made of. */
#include "fs/node_extents.h"

#include <stdlib.h>

#include "base/grow.h"
#include "fs/filesystem.h"

errint node_extents(struct filesystem *fs, struct node *node)
{
    if (node->extents || node->kind != META_EXTENTS)
        return 0;
    errint error = meta_extents(fs->meta, node->ino, &node->extents, &node->extent_count);
    node->extent_capacity = node->extent_count;
    return error;
}

size_t node_find_extent(const struct node *node, int64_t offset)
{
    size_t from = 0, to = node->extent_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (node->extents[middle].offset + node->extents[middle].length > offset)
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

bool node_extents_cover(const struct node *node, int64_t offset, int64_t length)
{
    const int64_t end = offset + length;
    for (size_t i = node_find_extent(node, offset); i < node->extent_count && offset < end; i++) {
        const struct meta_extent *extent = &node->extents[i];
        if (extent->offset > offset)
            return false;
        offset = extent->offset + extent->length;
    }
    return offset >= end;
}

void node_forget_extents(struct node *node)
{
    free(node->extents);
    node->extents = NULL;
    node->extent_count = node->extent_capacity = 0;
}

void node_note_extent(struct node *node, const struct meta_extent *extent)
{
    struct meta_extent *last = node->extents ? &node->extents[node->extent_count - 1] : NULL;
    if (!last || !extent->object || last->offset + last->length > extent->offset) {
        node_forget_extents(node);
        return;
    }
    bool continues = last->object == extent->object && last->offset + last->length == extent->offset &&
                     last->object_offset + last->length == extent->object_offset;
    if (continues)
        last->length += extent->length;
    else if (grow_reserve(node->extents, node->extent_capacity, node->extent_count + 1))
        node->extents[node->extent_count++] = *extent;
    else
        node_forget_extents(node);
}
