/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is taken in small pieces and given back all at once. */
#include "base/arena.h"

#include <stdalign.h>
#include <string.h>

enum { ARENA_BLOCK = 64 * 1024 };

struct arena_block {
    struct arena_block *next;
    size_t size, used; /* of `bytes` */
    alignas(max_align_t) char bytes[];
};

/* What is larger than a block gets one of its own, behind the one that is being filled. */
static struct arena_block *arena_add_block(struct arena *arena, size_t size)
{
    struct arena_block *block = calloc(1, sizeof *block + (size > ARENA_BLOCK ? size : ARENA_BLOCK));
    if (!block)
        return NULL;
    block->size = size > ARENA_BLOCK ? size : ARENA_BLOCK;
    if (size > ARENA_BLOCK && arena->blocks) {
        block->next = arena->blocks->next;
        arena->blocks->next = block;
    } else {
        block->next = arena->blocks;
        arena->blocks = block;
    }
    return block;
}

void *arena_take(struct arena *arena, size_t size)
{
    size_t step = alignof(max_align_t);
    if (size > arena->limit || arena->taken > arena->limit - size)
        return NULL;
    size_t whole = (size + step - 1) / step * step;
    struct arena_block *block = arena->blocks;
    if (!block || block->size - block->used < whole)
        block = arena_add_block(arena, whole);
    if (!block)
        return NULL;
    void *bytes = block->bytes + block->used;
    block->used += whole;
    arena->taken += whole;
    return bytes;
}

void *arena_take_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : arena_take(arena, bytes);
}

char *arena_copy_text(struct arena *arena, const char *text, size_t length)
{
    char *copy = length < SIZE_MAX ? arena_take(arena, length + 1) : NULL;
    if (copy && length > 0)
        memcpy(copy, text, length);
    return copy;
}

void arena_release(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->taken = 0;
}
