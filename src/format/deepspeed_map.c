/* SPDX-License-Identifier: Apache-2.0 */
/* Reading how tensor-parallel slices make up parameters. */
#include "format/deepspeed_map.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "format/nodes.h"

enum { MAP_VERSION = 1 };

/* -- which parameter --------------------------------------------------------------------------------------
 */

/* The name that a pattern of the form ^NAME$ matches alone, with what re.escape escaped; NULL: it is no such
 * pattern, or there is no memory. */
static const char *map_read_pattern(const char *pattern, struct arena *arena)
{
    size_t length = pattern ? strlen(pattern) : 0, at = 0;
    if (length < 2 || pattern[0] != '^' || pattern[length - 1] != '$')
        return NULL;
    char *name = arena_take(arena, length);
    for (size_t i = 1; name && i < length - 1; i++) {
        bool escaped = pattern[i] == '\\';
        i += escaped;
        bool word = (pattern[i] >= '0' && pattern[i] <= '9') ||
                    ((pattern[i] | 32) >= 'a' && (pattern[i] | 32) <= 'z');
        if (i >= length - 1 || (escaped ? word : strchr(".^$*+?{}[]()|", pattern[i]) != NULL))
            return NULL;
        name[at++] = pattern[i];
    }
    return name;
}

static int map_read(const struct pickle_node *key, const struct pickle_node *entry, struct arena *arena,
                    struct deepspeed_map *out, struct format_problem *problem)
{
    const char *pattern = node_text(key);
    out->name = map_read_pattern(pattern, arena);
    if (!out->name)
        return format_problem_set(problem, -1, "affine_map: expected the pattern of one name, found %s",
                                  pattern ? pattern : "something else");
    out->ranks = pickle_get(entry, "ranks");
    if (!pickle_is_dict(out->ranks))
        return format_problem_set(problem, -1, "affine_map: %s has no ranks", out->name);
    return node_shape(pickle_get(entry, "logical_shape"), arena, &out->shape, problem);
}

int deepspeed_read_maps(const struct pickle_node *root, struct arena *arena, struct deepspeed_map **out,
                        size_t *count, struct format_problem *problem)
{
    const struct pickle_node *info = pickle_get(pickle_get(root, "universal_checkpoint_info"), "affine_map");
    const struct pickle_node *entries = pickle_get(info, "params");
    int64_t version;
    *count = 0;
    if (!pickle_is_dict(entries))
        return 0;
    if (!pickle_integer(pickle_get(info, "version"), &version) || version != MAP_VERSION)
        return format_problem_set(problem, -1, "affine_map: expected version %d, found another", MAP_VERSION);
    *count = pickle_dict_count(entries);
    *out = arena_take_array(arena, *count, sizeof **out);
    if (!*out)
        return -ENOMEM;
    for (size_t i = 0; i < *count; i++) {
        int error =
            map_read(pickle_dict_key(entries, i), pickle_dict_value(entries, i), arena, &(*out)[i], problem);
        if (error)
            return error;
    }
    return 0;
}

/* -- pieces -----------------------------------------------------------------------------------------------
 */

int deepspeed_map_pieces(const struct deepspeed_map *map, int64_t rank, const struct pickle_node **pieces,
                         struct format_problem *problem)
{
    int64_t key;
    *pieces = pickle_get(pickle_dict_value(map->ranks, (size_t)rank), "pieces");
    if (pickle_integer(pickle_dict_key(map->ranks, (size_t)rank), &key) && key == rank &&
        node_is_sequence(*pieces))
        return 0;
    return format_problem_set(problem, -1, "affine_map: %s says nothing about rank %" PRId64, map->name,
                              rank);
}

static int map_fail(const struct deepspeed_map *map, struct format_problem *problem, const char *what)
{
    return format_problem_set(problem, -1, "affine_map: %s: %s", map->name, what);
}

/* (offset, strides) of one side. */
static int map_read_side(const struct deepspeed_map *map, const struct pickle_node *side, struct arena *arena,
                         int64_t *offset, int64_t **strides, struct format_problem *problem)
{
    struct tensor_shape shape;
    if (!pickle_integer(pickle_item(side, 0), offset) || *offset < 0)
        return map_fail(map, problem, "a piece without an offset");
    int error = node_shape(pickle_item(side, 1), arena, &shape, problem);
    if (error)
        return error;
    if (shape.rank != map->shape.rank)
        return map_fail(map, problem, "a piece with other dimensions than the parameter");
    *strides = (int64_t *)shape.sizes;
    return 0;
}

/* From an offset in the whole parameter to a place; the strides have to be the parameter's own. */
static int map_place(const struct deepspeed_map *map, int64_t offset, const int64_t *strides,
                     struct deepspeed_map_piece *out, struct format_problem *problem)
{
    int64_t step = 1, all;
    if (!tensor_count(&map->shape, &all) || offset >= (all > 0 ? all : 1))
        return map_fail(map, problem, "a piece behind the parameter's end");
    for (uint32_t d = map->shape.rank; d-- > 0;) {
        if (out->sizes[d] > 1 && strides[d] != step)
            return map_fail(map, problem, "a piece that is no box of the parameter");
        out->starts[d] = all > 0 ? offset / step % map->shape.sizes[d] : 0;
        step *= all > 0 ? map->shape.sizes[d] : 1;
    }
    return 0;
}

/* How many elements of the shard a piece reaches over. */
static int map_span(const struct deepspeed_map *map, struct deepspeed_map_piece *out,
                    struct format_problem *problem)
{
    int64_t step;
    out->count = 1;
    for (uint32_t d = 0; d < map->shape.rank; d++) {
        if (out->sizes[d] == 0) {
            out->count = 0;
            return 0;
        }
        if (__builtin_mul_overflow(out->sizes[d] - 1, out->strides[d], &step) ||
            __builtin_add_overflow(out->count, step, &out->count))
            return map_fail(map, problem, "a piece that does not fit");
    }
    return 0;
}

/* A factor other than 1 would have to be divided out of every element. */
static bool map_is_scaled(const struct pickle_node *piece)
{
    const struct pickle_node *scale = pickle_get(piece, "scale");
    int64_t number;
    if (!scale)
        return false;
    if (scale->kind == PICKLE_FLOAT)
        return scale->number < 1.0 || scale->number > 1.0;
    return !pickle_integer(scale, &number) || number != 1;
}

static bool map_read_owner(const struct pickle_node *locations, int64_t *owner)
{
    for (size_t i = 0; i < pickle_count(locations); i++) {
        int64_t rank;
        if (!pickle_integer(pickle_item(locations, i), &rank))
            return false;
        if (i == 0 || rank < *owner)
            *owner = rank;
    }
    return pickle_count(locations) > 0;
}

int deepspeed_read_map_piece(const struct deepspeed_map *map, const struct pickle_node *piece,
                             struct arena *arena, struct deepspeed_map_piece *out,
                             struct format_problem *problem)
{
    struct tensor_shape shape;
    int64_t offset, *strides;
    *out = (struct deepspeed_map_piece){0};
    int error = node_shape(pickle_get(piece, "shape"), arena, &shape, problem);
    if (!error && shape.rank != map->shape.rank)
        error = map_fail(map, problem, "a piece with other dimensions than the parameter");
    if (!error)
        error = map_read_side(map, pickle_get(piece, "source"), arena, &offset, &strides, problem);
    if (!error)
        error = map_read_side(map, pickle_get(piece, "dest"), arena, &out->offset, &out->strides, problem);
    if (!error && map_is_scaled(piece))
        error =
            map_fail(map, problem, "its slices are divided by a factor, which cannot be undone bit by bit");
    if (!error && !map_read_owner(pickle_get(piece, "locations"), &out->owner))
        error = map_fail(map, problem, "a piece without locations");
    if (error)
        return error;
    out->sizes = (int64_t *)shape.sizes;
    out->starts = arena_take_array(arena, shape.rank, sizeof *out->starts);
    if (!out->starts)
        return -ENOMEM;
    error = map_place(map, offset, strides, out, problem);
    return error ? error : map_span(map, out, problem);
}
