/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what an XLA FSDP checkpoint says of its shards. */
#include "format/xla_metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "format/nodes.h"

/* -- names ------------------------------------------------------------------------------------------------
 */

static const char xla_shard_prefix[] = "_fsdp_shard";
static const char xla_wrapped[] = "_fsdp_wrapped_module.";
static const char xla_flattened[] = "_fpw_module.";

bool xla_is_shard_key(const char *key)
{
    size_t length = strlen(xla_shard_prefix);
    for (const char *at = key; at; at = strchr(at, '.')) {
        at += at > key; /* the point */
        if (strncmp(at, xla_shard_prefix, length) == 0)
            return true;
    }
    return false;
}

bool xla_is_flat_name(const char *name)
{
    return strstr(name, "_fsdp_wrapped_module.flat_param_") != NULL;
}

/* Takes every occurrence of `word` out of the text, from the left, as str.replace does. */
static void xla_take_out(char *text, const char *word)
{
    size_t length = strlen(word);
    char *to = text;
    for (const char *from = text; *from;) {
        if (strncmp(from, word, length) == 0)
            from += length;
        else
            *to++ = *from++;
    }
    *to = '\0';
}

const char *xla_plain_name(const char *name, struct arena *arena)
{
    char *copy = arena_copy_text(arena, name, strlen(name));
    if (copy) {
        xla_take_out(copy, xla_wrapped);
        xla_take_out(copy, xla_flattened);
    }
    return copy;
}

/* "PREFIX.NAME", or NAME alone when the prefix is empty. */
static const char *xla_join(const char *prefix, size_t length, const char *name, struct arena *arena)
{
    size_t rest = strlen(name);
    if (length == 0)
        return arena_copy_text(arena, name, rest);
    char *joined = arena_take(arena, length + 1 + rest + 1);
    if (joined) {
        memcpy(joined, prefix, length);
        joined[length] = '.';
        memcpy(joined + length + 1, name, rest);
    }
    return joined;
}

/* -- the tables -------------------------------------------------------------------------------------------
 */

/* Adds the keys of a dict, each with its place. The last of equal ones counts, as Python has it. */
static int xla_index_keys(const struct pickle_node *dict, struct name_table *table,
                          struct format_problem *problem)
{
    for (size_t i = 0; i < pickle_dict_count(dict); i++) {
        const char *name = node_text(pickle_dict_key(dict, i));
        if (!name)
            return format_problem_set(problem, -1, "shard_metadata: a name is no text");
        errint error = name_table_add(table, name, (uint32_t)i);
        if (error)
            return error == -EEXIST
                       ? format_problem_set(problem, -1, "shard_metadata: %s is there twice", name)
                       : error;
    }
    return 0;
}

static int xla_read_shard(const struct pickle_node *info, const char *prefix, struct arena *arena,
                          struct xla_shard *out, struct format_problem *problem)
{
    const char *name = node_text(pickle_get(info, "_orig_name"));
    if (!name)
        return format_problem_set(problem, -1, "shard_info: a shard of %s has no _orig_name", prefix);
    int error = node_shape(pickle_get(info, "_orig_size"), arena, &out->shape, problem);
    if (error)
        return error;
    out->name = xla_join(prefix, strlen(prefix), name, arena);
    if (!out->name)
        return -ENOMEM;
    if (!tensor_count(&out->shape, &out->count))
        return format_problem_set(problem, -1, "shard_info: the shape of %s does not fit", out->name);
    return 0;
}

/* `shard_info`: a module's name → the key behind it → what was divided. */
static int xla_read_module(const struct pickle_node *dict, const char *prefix, struct arena *arena,
                           struct xla_metadata *out, size_t *next, struct format_problem *problem)
{
    for (size_t i = 0; i < pickle_dict_count(dict); i++) {
        const char *suffix = node_text(pickle_dict_key(dict, i));
        if (!suffix)
            return format_problem_set(problem, -1, "shard_info: a key of %s is no text", prefix);
        int error = xla_read_shard(pickle_dict_value(dict, i), prefix, arena, &out->shards[*next], problem);
        const char *key = error ? NULL : xla_join(prefix, strlen(prefix), suffix, arena);
        if (!key)
            return error ? error : -ENOMEM;
        error = name_table_add(&out->shards_by_key, key, (uint32_t)(*next)++);
        if (error)
            return error == -EEXIST ? format_problem_set(problem, -1, "shard_info: %s is there twice", key)
                                    : error;
    }
    return 0;
}

static int xla_read_shards(const struct pickle_node *info, struct arena *arena, struct xla_metadata *out,
                           struct format_problem *problem)
{
    size_t count = 0, next = 0;
    if (!pickle_is_dict(info))
        return format_problem_set(problem, -1, "shard_metadata: expected a dict shard_info, found none");
    for (size_t i = 0; i < pickle_dict_count(info); i++)
        count += pickle_dict_count(pickle_dict_value(info, i));
    out->shards = arena_take_array(arena, count, sizeof *out->shards);
    if (!out->shards)
        return -ENOMEM;
    for (size_t i = 0; i < pickle_dict_count(info); i++) {
        const char *prefix = node_text(pickle_dict_key(info, i));
        if (!prefix)
            return format_problem_set(problem, -1, "shard_info: a module's name is no text");
        int error = xla_read_module(pickle_dict_value(info, i), prefix, arena, out, &next, problem);
        if (error)
            return error;
    }
    return 0;
}

int xla_metadata_read_rank(const struct pickle_node *node, struct xla_metadata *out,
                           struct format_problem *problem)
{
    *out = (struct xla_metadata){0};
    if (!pickle_integer(pickle_get(node, "world_size"), &out->world_size) || out->world_size < 1 ||
        !pickle_integer(pickle_get(node, "rank"), &out->rank) || out->rank < 0)
        return format_problem_set(problem, -1,
                                  "expected shard_metadata with world_size and rank, found none");
    return 0;
}

int xla_metadata_read(const struct pickle_node *node, struct arena *arena, struct xla_metadata *out,
                      struct format_problem *problem)
{
    int error = xla_metadata_read_rank(node, out, problem);
    if (!error)
        error = xla_read_shards(pickle_get(node, "shard_info"), arena, out, problem);
    out->flat = pickle_get(node, "flatten_info");
    out->buffers = pickle_get(node, "buffer_info");
    if (!error)
        error = xla_index_keys(out->flat, &out->flat_by_name, problem);
    return error ? error : xla_index_keys(out->buffers, &out->buffers_by_name, problem);
}

void xla_metadata_release(struct xla_metadata *metadata)
{
    name_table_release(&metadata->shards_by_key);
    name_table_release(&metadata->flat_by_name);
    name_table_release(&metadata->buffers_by_name);
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

const struct xla_shard *xla_find_shard(const struct xla_metadata *metadata, const char *key)
{
    uint32_t at;
    return name_table_find(&metadata->shards_by_key, key, &at) ? &metadata->shards[at] : NULL;
}

bool xla_buffer_type(const struct xla_metadata *metadata, const char *name, enum tensor_type *type)
{
    static const char module[] = "torch ";
    uint32_t at;
    if (!name_table_find(&metadata->buffers_by_name, name, &at))
        return false;
    const struct pickle_node *info = pickle_get(pickle_dict_value(metadata->buffers, at), "_orig_dtype");
    size_t skip = sizeof module - 1;
    return info && info->kind == PICKLE_GLOBAL && info->length > skip &&
           strncmp(info->text, module, skip) == 0 &&
           tensor_type_parse(info->text + skip, info->length - skip, type);
}

static int xla_read_part(const struct pickle_node *entry, size_t i, const char *prefix, size_t length,
                         struct arena *arena, struct xla_part *out, struct format_problem *problem)
{
    const char *name = node_text(pickle_item(pickle_item(entry, 0), i));
    int64_t count;
    if (!name || !pickle_integer(pickle_item(pickle_item(entry, 2), i), &count))
        return format_problem_set(problem, -1, "flatten_info: expected a name and a number of elements");
    int error = node_shape(pickle_item(pickle_item(entry, 1), i), arena, &out->shape, problem);
    if (error)
        return error;
    if (!tensor_count(&out->shape, &out->count) || out->count != count)
        return format_problem_set(
            problem, -1, "flatten_info: %s does not have the %" PRId64 " elements of its shape", name, count);
    out->name = xla_join(prefix, length, name, arena);
    return out->name ? 0 : -ENOMEM;
}

int xla_read_flat(const struct xla_metadata *metadata, const char *name, struct arena *arena,
                  struct xla_part **out, size_t *count, struct format_problem *problem)
{
    uint32_t at;
    if (!name_table_find(&metadata->flat_by_name, name, &at))
        return format_problem_set(problem, -1, "flatten_info says nothing about %s", name);
    const struct pickle_node *entry = pickle_dict_value(metadata->flat, at);
    const char *point = strrchr(name, '.');
    *count = pickle_count(pickle_item(entry, 0));
    if (pickle_count(pickle_item(entry, 1)) != *count || pickle_count(pickle_item(entry, 2)) != *count)
        return format_problem_set(problem, -1, "flatten_info: %s has lists of different lengths", name);
    *out = arena_take_array(arena, *count, sizeof **out);
    if (!*out)
        return -ENOMEM;
    for (size_t i = 0; i < *count; i++) {
        int error =
            xla_read_part(entry, i, name, point ? (size_t)(point - name) : 0, arena, &(*out)[i], problem);
        if (error)
            return error;
    }
    return 0;
}
