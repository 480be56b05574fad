/* SPDX-License-Identifier: Apache-2.0 */
/* Finding what a checkpoint has of an optimizer's state. */
#include "ckpt/optimizer_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "ckpt/dcp_names.h"
#include "ckpt/deepspeed.h"
#include "ckpt/optimizer_files.h"
#include "format/dcp_metadata.h"
#include "format/torch_optimizer.h"
#include "format/zip.h"

#define PARTS_METADATA ".metadata"

/* Files of a directory in the checkpoint are looked at, as DeepSpeed's tag in a Trainer's checkpoint. */
enum { PARTS_LEVELS = 1 };

static errint parts_add(struct optimizer_parts *parts, const struct optimizer_part *part)
{
    if (!grow_reserve(parts->at, parts->capacity, parts->count + 1))
        return -ENOMEM;
    parts->at[parts->count++] = *part;
    return 0;
}

/* The pages inside the range, if it is worth it. */
static errint parts_add_range(struct optimizer_parts *parts, const char *path, int64_t offset, int64_t length)
{
    const int64_t rest = OPTIMIZER_PART_ALIGNMENT - 1, end = (offset + length) & ~rest;
    int64_t begin = (offset + rest) & ~rest;
    if (end - begin < OPTIMIZER_PART_LEAST)
        return 0;
    return parts_add(parts, &(struct optimizer_part){.path = path, .offset = begin, .length = end - begin});
}

/* A file that cannot be read now, or is not what its name says, has nothing to give. */
static errint parts_overlook(int result)
{
    switch (result) {
    case FORMAT_FOREIGN:
    case -ENOENT:
    case -EISDIR:
    case -EBUSY:
    case -EIO: return 0;
    default: return result;
    }
}

/* -- DeepSpeed --------------------------------------------------------------------------------------------
 */

static int parts_read_torch(struct optimizer_parts *parts, const char *path,
                            const struct format_source *source)
{
    cleanup_torch_file struct torch_file file = {0};
    cleanup_free struct torch_range *ranges = NULL;
    struct format_problem problem = {.offset = -1};
    size_t count = 0;
    int result = torch_file_read(source, 0, source->size, &file, &problem);
    if (!result)
        result = torch_optimizer_find(&file, &ranges, &count);
    for (size_t i = 0; i < count && !result; i++)
        result = parts_add_range(parts, path, ranges[i].offset, ranges[i].length);
    return result;
}

static errint parts_look_at_torch(const struct folder *folder, const char *path,
                                  struct optimizer_parts *parts)
{
    struct format_source source;
    errint error = folder_open(folder, path, &source);
    if (error)
        return parts_overlook(error);
    int result = parts_read_torch(parts, path, &source);
    folder_close(folder, &source);
    return parts_overlook(result);
}

/* -- torch.distributed.checkpoint -------------------------------------------------------------------------
 */

/* A range that .metadata names. */
struct parts_range {
    uint32_t file;
    int64_t offset, length;
    bool state; /* an optimizer's */
};

/* Optimizers of one checkpoint. */
enum { PARTS_OPTIMIZERS_MAX = 64 };

/* One directory with such files. */
struct parts_dcp {
    const struct tree_entry *entry; /* .metadata */
    struct dcp_metadata metadata;
    struct parts_range *ranges;
    size_t count;
    /* What names of optimizers' items begin with. */
    struct parts_prefix {
        const char *name;
        size_t length;
    } prefixes[PARTS_OPTIMIZERS_MAX];
    size_t prefix_count;
};

static void parts_dcp_release(struct parts_dcp *dcp)
{
    dcp_metadata_release(&dcp->metadata);
    free(dcp->ranges);
}

/* The next of the keys in the name, from `at` on, that begins so; NULL: none does. */
static const char *parts_find_key(const char *at, const char *start)
{
    while (strncmp(at, start, strlen(start)) != 0) {
        at = strchr(at, '.');
        if (!at++)
            return NULL;
    }
    return at;
}

static bool parts_has_prefix(const struct parts_dcp *dcp, const char *name, size_t length)
{
    for (size_t i = 0; i < dcp->prefix_count; i++) {
        if (dcp->prefixes[i].length == length && memcmp(dcp->prefixes[i].name, name, length) == 0)
            return true;
    }
    return false;
}

/* "optimizer." of "optimizer.param_groups.0.lr". A group has numbers and names; what is a tensor may be of a
 * model that has a module of that name. */
static void parts_note_prefixes(struct parts_dcp *dcp)
{
    for (size_t i = 0; i < dcp->metadata.item_count; i++) {
        const char *name = dcp->metadata.items[i].name;
        const char *groups = parts_find_key(name, "param_groups.");
        size_t length = groups ? (size_t)(groups - name) : 0;
        if (groups && !dcp->metadata.items[i].is_tensor && dcp->prefix_count < PARTS_OPTIMIZERS_MAX &&
            !parts_has_prefix(dcp, name, length))
            dcp->prefixes[dcp->prefix_count++] = (struct parts_prefix){name, length};
    }
}

/* Whether the keys below "state" are those of a copy of the weights: the parameter's and then the optimizer's
 * own, or as Megatron-LM has them "fp32_param" first. */
static bool parts_is_copy(const char *keys)
{
    static const char *const first[] = {"param.", "fp32_param.", "master_param."};
    const char *dot = strrchr(keys, '.'), *last = dot ? dot + 1 : keys;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        if (strncmp(keys, first[i], strlen(first[i])) == 0)
            return true;
    }
    return torch_optimizer_is_copy(last, strlen(last));
}

/* "optimizer.state.weight.exp_avg", where there is "optimizer.param_groups...", too. */
static bool parts_is_state(const struct parts_dcp *dcp, const char *name)
{
    static const char key[] = "state.";
    const char *state = parts_find_key(name, key);
    while (state && !parts_has_prefix(dcp, name, (size_t)(state - name)))
        state = parts_find_key(state + 1, key);
    return state && !parts_is_copy(state + strlen(key));
}

static int parts_compare_ranges(const void *one, const void *other)
{
    const struct parts_range *a = one, *b = other;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static errint parts_list_ranges(struct parts_dcp *dcp, const char *const *chosen)
{
    size_t count = 0;
    for (size_t i = 0; i < dcp->metadata.item_count; i++)
        count += dcp->metadata.items[i].chunk_count;
    dcp->ranges = calloc(count + 1, sizeof *dcp->ranges);
    if (!dcp->ranges)
        return -ENOMEM;
    for (size_t i = 0; i < dcp->metadata.item_count; i++) {
        const struct dcp_item *item = &dcp->metadata.items[i];
        bool state = !chosen[i] && parts_is_state(dcp, item->name);
        for (size_t chunk = 0; chunk < item->chunk_count; chunk++) {
            const struct dcp_chunk *at = &item->chunks[chunk];
            if (at->file != DCP_NO_FILE && at->length > 0)
                dcp->ranges[dcp->count++] =
                    (struct parts_range){at->file, at->offset, at->length, state && !at->transform};
        }
    }
    qsort(dcp->ranges, dcp->count, sizeof *dcp->ranges, parts_compare_ranges);
    return 0;
}

/* Ranges that lie in each other are none that a trainer wrote. */
static bool parts_are_apart(const struct parts_dcp *dcp)
{
    for (size_t i = 1; i < dcp->count; i++) {
        const struct parts_range *before = &dcp->ranges[i - 1], *range = &dcp->ranges[i];
        if (range->file == before->file && range->offset < before->offset + before->length)
            return false;
    }
    return true;
}

/* The path of the shard, if it is there and has all that .metadata says; NULL: else. */
static const char *parts_find_shard(const struct folder *folder, const struct optimizer_parts *parts,
                                    const struct parts_dcp *dcp, uint32_t file)
{
    struct deepspeed_name parsed;
    const char *name = dcp->metadata.files[file];
    const struct tree_entry *entry =
        tree_find_file(&parts->tree, dcp->entry->path, tree_directory_length(dcp->entry), name);
    bool shard = entry && optimizer_file_may_be_mixed(entry->path) && !deepspeed_parse_name(name, &parsed);
    bool whole = shard && entry->size >= dcp->metadata.file_sizes[file];
    return whole && !folder_is_shed(folder, entry->path) ? entry->path : NULL;
}

/* Archives one behind the other, as far as the ends tell. A .metadata that was written with other shards than
 * those that are there names ranges of something else: FORMAT_FOREIGN. */
static int parts_check_archives(const struct format_source *source, int64_t begin, int64_t end)
{
    uint8_t bytes[4];
    struct zip_archive last;
    int result = zip_find_archive(source, end, &last);
    if (!result && last.start < begin)
        result = FORMAT_FOREIGN;
    if (!result)
        result = source->read(source->context, bytes, sizeof bytes, begin);
    return result ? result : memcmp(bytes, "PK\3\4", sizeof bytes) == 0 ? 0 : FORMAT_FOREIGN;
}

/* The ranges of one shard, from `first` on. What follows each other is one. */
static int parts_read_shard(const struct parts_dcp *dcp, size_t first, const struct format_source *source,
                            const char *path, struct optimizer_parts *parts)
{
    const struct parts_range *at = dcp->ranges;
    int result = 0;
    for (size_t i = first, next; i < dcp->count && at[i].file == at[first].file && !result; i = next) {
        int64_t end = at[i].offset + at[i].length;
        for (next = i + 1; next < dcp->count && at[i].state && at[next].state &&
                           at[next].file == at[i].file && at[next].offset == end;
             next++)
            end += at[next].length;
        if (!at[i].state || end - at[i].offset < OPTIMIZER_PART_LEAST)
            continue;
        result = end > source->size ? FORMAT_FOREIGN : parts_check_archives(source, at[i].offset, end);
        if (!result)
            result = parts_add_range(parts, path, at[i].offset, end - at[i].offset);
    }
    return result;
}

static int parts_take_ranges(const struct folder *folder, const struct parts_dcp *dcp,
                             struct optimizer_parts *parts)
{
    int result = 0;
    for (size_t i = 0; i < dcp->count && !result; i++) {
        struct format_source source;
        const char *path = i == 0 || dcp->ranges[i].file != dcp->ranges[i - 1].file
                               ? parts_find_shard(folder, parts, dcp, dcp->ranges[i].file)
                               : NULL;
        if (!path)
            continue;
        result = folder_open(folder, path, &source);
        if (result)
            break;
        result = parts_read_shard(dcp, i, &source, path, parts);
        folder_close(folder, &source);
    }
    return result;
}

static int parts_read_dcp(const struct folder *folder, struct parts_dcp *dcp)
{
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    errint error = folder_open(folder, dcp->entry->path, &source);
    if (error)
        return error;
    int result = dcp_metadata_read(&source, &dcp->metadata, &problem);
    folder_close(folder, &source);
    return result;
}

static errint parts_look_at_dcp(const struct folder *folder, const struct tree_entry *entry,
                                struct optimizer_parts *parts)
{
    __attribute__((cleanup(parts_dcp_release))) struct parts_dcp dcp = {.entry = entry};
    const char **chosen;
    int result = parts_read_dcp(folder, &dcp);
    if (result)
        return parts_overlook(result);
    parts_note_prefixes(&dcp);
    if (dcp.prefix_count == 0)
        return 0;
    errint error = dcp_names_choose(&dcp.metadata, &dcp.metadata.arena, &chosen);
    if (!error)
        error = parts_list_ranges(&dcp, chosen);
    if (error || !parts_are_apart(&dcp))
        return error;
    size_t before = parts->count;
    result = parts_take_ranges(folder, &dcp, parts);
    /* Where one is not what .metadata says, none is known to be. */
    if (result)
        parts->count = before;
    return parts_overlook(result);
}

/* -- all --------------------------------------------------------------------------------------------------
 */

static errint parts_look_at(const struct folder *folder, const struct tree_entry *entry,
                            struct optimizer_parts *parts)
{
    if (entry->directory || entry->size == 0)
        return 0;
    if (optimizer_file_is(entry->path))
        return folder_is_shed(folder, entry->path)
                   ? 0
                   : parts_add(parts, &(struct optimizer_part){
                                          .path = entry->path, .whole = true, .length = entry->size});
    if (strcmp(entry->name, PARTS_METADATA) == 0)
        return parts_look_at_dcp(folder, entry, parts);
    struct deepspeed_name parsed;
    bool mixed = deepspeed_parse_name(entry->name, &parsed) && optimizer_file_may_be_mixed(entry->path);
    return mixed && !folder_is_shed(folder, entry->path) ? parts_look_at_torch(folder, entry->path, parts)
                                                         : 0;
}

static int parts_compare(const void *one, const void *other)
{
    const struct optimizer_part *a = one, *b = other;
    int order = strcmp(a->path, b->path);
    return order ? order : (a->offset > b->offset) - (a->offset < b->offset);
}

errint optimizer_parts_find(const struct folder *folder, struct optimizer_parts *out)
{
    *out = (struct optimizer_parts){0};
    errint error = tree_read(folder, PARTS_LEVELS, &out->tree);
    for (size_t i = 0; i < out->tree.count && !error; i++)
        error = parts_look_at(folder, &out->tree.at[i], out);
    if (out->count > 0)
        qsort(out->at, out->count, sizeof *out->at, parts_compare);
    return error;
}

void optimizer_parts_release(struct optimizer_parts *parts)
{
    tree_release(&parts->tree);
    free(parts->at);
    *parts = (struct optimizer_parts){0};
}
