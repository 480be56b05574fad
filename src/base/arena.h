/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken in small pieces and given back all at once, up to a limit: what a parser builds from a
 * file that it does not trust. Starts as {.limit = N}; arena_release frees all. One thread's at a time.
 */
#ifndef CKPTFS_BASE_ARENA_H
#define CKPTFS_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct arena_block;

struct arena {
    size_t limit; /* bytes in all, that arena_take gives */
    size_t taken;
    struct arena_block *blocks;
};

/* `size` zeroed bytes, aligned for any type; NULL when there is no memory, or over the limit. */
void *arena_take(struct arena *arena, size_t size);
/* Zeroed room for `count` items of `size` bytes each; NULL also when the product overflows. */
void *arena_take_array(struct arena *arena, size_t count, size_t size);
/* A copy of `length` bytes with a NUL behind them. */
char *arena_copy_text(struct arena *arena, const char *text, size_t length);
/* The limit stays. */
void arena_release(struct arena *arena);

#define cleanup_arena __attribute__((cleanup(arena_release)))

#endif
