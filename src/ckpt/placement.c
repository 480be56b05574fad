/* SPDX-License-Identifier: Apache-2.0 */
/* Which part of a whole tensor a rank holds. */
#include "ckpt/placement.h"

#include <errno.h>

/* As torch.chunk: parts of the same size, rounded up; the last ones are smaller, or have nothing. */
static struct placement_run placement_chunk(int64_t length, int64_t parts, int64_t part)
{
    int64_t size = length / parts + (length % parts > 0), start;
    if (__builtin_mul_overflow(size, part, &start) || start > length)
        start = length;
    return (struct placement_run){start, size < length - start ? size : length - start};
}

/* Appends rows `wanted` of `from`. -EINVAL: too many. */
static errint placement_append(const struct placement_rows *from, struct placement_run wanted,
                               struct placement_rows *to, size_t capacity)
{
    int64_t before = 0;
    for (size_t i = 0; i < from->count && wanted.length > 0; i++) {
        struct placement_run run = from->runs[i];
        int64_t skipped = wanted.start - before;
        before += run.length;
        if (skipped >= run.length)
            continue;
        int64_t length = run.length - skipped < wanted.length ? run.length - skipped : wanted.length;
        if (to->count == capacity)
            return -EINVAL;
        to->runs[to->count++] = (struct placement_run){run.start + skipped, length};
        to->length += length;
        wanted.start += length;
        wanted.length -= length;
    }
    return 0;
}

static errint placement_split(const struct placement *placement, struct arena *arena,
                              struct placement_rows *rows)
{
    if (placement->factor < 1 || placement->factor > PLACEMENT_RUNS_MAX)
        return -EINVAL;
    size_t capacity = rows->count + (size_t)placement->factor;
    struct placement_rows kept = {.runs = arena_take_array(arena, capacity, sizeof *kept.runs)};
    if (!kept.runs)
        return -ENOMEM;
    for (int64_t i = 0; i < placement->factor; i++) {
        struct placement_run part = placement_chunk(rows->length, placement->factor, i);
        struct placement_run mine = placement_chunk(part.length, placement->size, placement->position);
        mine.start += part.start;
        errint error = placement_append(rows, mine, &kept, capacity);
        if (error)
            return error;
    }
    *rows = kept;
    return rows->count > PLACEMENT_RUNS_MAX ? -EINVAL : 0;
}

errint placement_find_rows(const struct tensor_shape *shape, const struct placement *placements, size_t count,
                           struct arena *arena, struct placement_rows *rows)
{
    for (uint32_t i = 0; i < shape->rank; i++) {
        struct placement_run *run = arena_take(arena, sizeof *run);
        if (!run)
            return -ENOMEM;
        *run = (struct placement_run){0, shape->sizes[i]};
        rows[i] = (struct placement_rows){run, shape->sizes[i] > 0 ? 1 : 0, shape->sizes[i]};
    }
    for (size_t i = 0; i < count; i++) {
        const struct placement *placement = &placements[i];
        if (placement->size < 1 || placement->position < 0 || placement->position >= placement->size)
            return -EINVAL;
        if (!placement->sharded)
            continue;
        if (placement->split >= shape->rank)
            return -EINVAL;
        errint error = placement_split(placement, arena, &rows[placement->split]);
        if (error)
            return error;
    }
    return 0;
}
