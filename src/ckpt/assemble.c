/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: which tensors go into which file. */
#include "ckpt/assemble.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/assemble_internal.h"
#include "format/source.h"

#define ASSEMBLE_MEMORY MODEL_MEMORY

/* -- parts ------------------------------------------------------------------------------------------------
 */

errint assemble_add_part(struct assemble_builder *builder, struct assemble_part part)
{
    int64_t size;
    if (__builtin_add_overflow(builder->size, part.length, &size))
        return -EFBIG;
    part.offset = builder->size;
    if (part.length == 0)
        return 0;
    struct assemble_part *last = builder->count > 0 ? &builder->parts[builder->count - 1] : NULL;
    if (last && last->kind == ASSEMBLE_COPY && part.kind == ASSEMBLE_COPY && last->file == part.file &&
        last->file_offset + last->length == part.file_offset) {
        last->length += part.length;
        builder->size = size;
        return 0;
    }
    if (builder->count == builder->capacity) {
        size_t capacity = 2 * builder->capacity + 16;
        struct assemble_part *parts = arena_take_array(builder->arena, capacity, sizeof *parts);
        if (!parts)
            return -ENOMEM;
        if (builder->count > 0)
            memcpy(parts, builder->parts, builder->count * sizeof *parts);
        builder->parts = parts;
        builder->capacity = capacity;
    }
    builder->parts[builder->count++] = part;
    builder->size = size;
    return 0;
}

errint assemble_add_bytes(struct assemble_builder *builder, const void *bytes, size_t length)
{
    const char *copy = arena_copy_text(builder->arena, bytes, length);
    if (!copy)
        return -ENOMEM;
    return assemble_add_part(builder, (struct assemble_part){.kind = ASSEMBLE_BYTES,
                                                             .length = (int64_t)length,
                                                             .bytes = (const uint8_t *)copy});
}

errint assemble_add_text(struct assemble_builder *builder, const struct text *text)
{
    return text->failed ? -ENOMEM : assemble_add_bytes(builder, text->at, text->length);
}

/* Whether the pieces' bytes are the tensor's as they are. */
static bool assemble_is_copy(const struct assemble_entry *entry)
{
    if (entry->type != entry->tensor->stored)
        return false;
    for (size_t i = 0; i < entry->tensor->piece_count; i++) {
        if (entry->tensor->pieces[i].starts)
            return false;
    }
    return true;
}

errint assemble_add_tensor(struct assemble_builder *builder, const struct assemble_entry *entry)
{
    const struct model_tensor *tensor = entry->tensor;
    errint error = 0;
    if (!assemble_is_copy(entry))
        return assemble_add_part(builder, (struct assemble_part){.kind = ASSEMBLE_COMPUTE,
                                                                 .length = entry->bytes,
                                                                 .tensor = tensor,
                                                                 .type = entry->type});
    for (size_t i = 0; i < tensor->piece_count && !error; i++) {
        const struct model_piece *piece = &tensor->pieces[i];
        struct assemble_part part = {
            .kind = ASSEMBLE_COPY, .file = piece->file, .file_offset = piece->offset};
        /* model_check has seen that it fits. */
        (void)tensor_bytes(entry->type, piece->count, &part.length);
        error = assemble_add_part(builder, part);
    }
    return error;
}

/* -- shards -----------------------------------------------------------------------------------------------
 */

/* What a plan is made of while it is made. */
struct assemble_work {
    const struct model *model;
    const struct assemble_wish *wish;
    struct assemble_plan *plan;
    struct format_problem *problem;
    struct assemble_entry *entries;
    size_t entry_count;
    const struct assemble_entry **by_tensor;
    /* Sorted by shard, else in the order of the checkpoint; shard i has those from starts[i] to starts[i +
     * 1]. */
    const struct assemble_entry **sorted;
    size_t *starts;
    uint32_t *tensors; /* likewise, with the tied ones */
    size_t *tensor_starts;
    const char **names;
    size_t shard_count;
};

static bool assemble_is_number(enum tensor_type type)
{
    return type == TENSOR_F64 || type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

enum tensor_type assemble_type_of(const struct model_tensor *tensor, const struct assemble_wish *wish)
{
    bool cast = wish->cast && !tensor->buffer && !tensor->keeps_type && assemble_is_number(tensor->type);
    return cast ? wish->type : tensor->type;
}

static int assemble_collect(struct assemble_work *work)
{
    const struct model *model = work->model;
    int64_t total = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        if (tensor->tied)
            continue;
        struct assemble_entry *entry = &work->entries[work->entry_count++];
        entry->tensor = tensor;
        entry->type = assemble_type_of(tensor, work->wish);
        work->by_tensor[i] = entry;
        if (!model_can_cast(tensor->stored, entry->type) || !tensor_count(&tensor->shape, &entry->count) ||
            !tensor_bytes(entry->type, entry->count, &entry->bytes))
            return format_problem_set(work->problem, -1, "%s cannot be written as %s", tensor->name,
                                      tensor_type_name(entry->type));
        if (__builtin_add_overflow(total, entry->bytes, &total))
            return -EFBIG;
    }
    for (size_t i = 0; i < model->tensor_count; i++) {
        const char *tied = model->tensors[i].tied;
        if (tied)
            work->by_tensor[i] = work->by_tensor[model_find_tensor(model, tied) - model->tensors];
    }
    return 0;
}

/*
 * Shards as huggingface_hub makes them (serialization/_base.py, split_state_dict_into_shards_factory, 2.4):
 * in the order of the checkpoint, a new one when the next tensor would not fit. A tensor that is larger than
 * a shard gets one of its own, which stands before the shard that is being filled.
 */
static void assemble_split(struct assemble_work *work, size_t *numbers)
{
    size_t groups = 1, open = 0;
    int64_t size = 0, limit = work->wish->shard_size;
    bool filled = false;
    for (size_t i = 0; i < work->entry_count; i++) {
        struct assemble_entry *entry = &work->entries[i];
        if (limit > 0 && entry->bytes > limit) {
            numbers[groups] = work->shard_count++;
            entry->shard = groups++;
            continue;
        }
        if (limit > 0 && entry->bytes > limit - size) {
            numbers[open] = work->shard_count++;
            open = groups++;
            size = 0;
        }
        entry->shard = open;
        size += limit > 0 ? entry->bytes : 0;
        filled = true;
    }
    if (filled)
        numbers[open] = work->shard_count++;
    for (size_t i = 0; i < work->entry_count; i++)
        work->entries[i].shard = numbers[work->entries[i].shard];
}

/* Makes starts of the numbers of things in each shard, which starts[shard + 1] holds. */
static void assemble_sum_up(size_t *starts, size_t shard_count)
{
    for (size_t i = 0; i < shard_count; i++)
        starts[i + 1] += starts[i];
}

/* After each shard's start was counted up while it was filled, it is the next one's. */
static void assemble_step_back(size_t *starts, size_t shard_count)
{
    for (size_t i = shard_count; i > 0; i--)
        starts[i] = starts[i - 1];
    starts[0] = 0;
}

static void assemble_sort_by_shard(struct assemble_work *work)
{
    size_t tensor_count = work->model->tensor_count;
    for (size_t i = 0; i < work->entry_count; i++)
        work->starts[work->entries[i].shard + 1]++;
    for (size_t i = 0; i < tensor_count; i++)
        work->tensor_starts[work->by_tensor[i]->shard + 1]++;
    assemble_sum_up(work->starts, work->shard_count);
    assemble_sum_up(work->tensor_starts, work->shard_count);
    for (size_t i = 0; i < work->entry_count; i++)
        work->sorted[work->starts[work->entries[i].shard]++] = &work->entries[i];
    for (size_t i = 0; i < tensor_count; i++)
        work->tensors[work->tensor_starts[work->by_tensor[i]->shard]++] = (uint32_t)i;
    assemble_step_back(work->starts, work->shard_count);
    assemble_step_back(work->tensor_starts, work->shard_count);
}

/* -- files ------------------------------------------------------------------------------------------------
 */

static errint assemble_print_name(struct assemble_work *work, size_t shard, const char **out)
{
    bool torch = work->wish->format == ASSEMBLE_TORCH;
    /* transformers calls a whole model in torch's format pytorch_model, an adapter adapter_model. */
    const char *stem = torch && strcmp(work->model->stem, "model") == 0 ? "pytorch_model" : work->model->stem;
    const char *suffix = torch ? "bin" : "safetensors";
    char name[256];
    int length;
    if (shard == work->shard_count)
        length = snprintf(name, sizeof name, "%s.%s.index.json", stem, suffix);
    else if (work->shard_count == 1)
        length = snprintf(name, sizeof name, "%s.%s", stem, suffix);
    else
        length =
            snprintf(name, sizeof name, "%s-%05zu-of-%05zu.%s", stem, shard + 1, work->shard_count, suffix);
    if (length < 0 || (size_t)length >= sizeof name)
        return -ENAMETOOLONG;
    *out = arena_copy_text(&work->plan->arena, name, (size_t)length);
    return *out ? 0 : -ENOMEM;
}

static void assemble_finish_file(struct assemble_work *work, const struct assemble_builder *builder,
                                 const char *name)
{
    work->plan->files[work->plan->file_count++] = (struct assemble_file){
        .name = name, .size = builder->size, .parts = builder->parts, .part_count = builder->count};
}

static int assemble_shard_file(struct assemble_work *work, const struct assemble_shard *shard,
                               const char *name)
{
    struct assemble_builder builder = {.arena = &work->plan->arena};
    int result = work->wish->format == ASSEMBLE_TORCH ? assemble_torch(shard, &builder, work->problem)
                                                      : assemble_safetensors(shard, &builder, work->problem);
    if (result == 0)
        assemble_finish_file(work, &builder, name);
    return result;
}

static int assemble_files(struct assemble_work *work)
{
    struct arena *arena = &work->plan->arena;
    struct assemble_shard shard = {.model = work->model, .wish = work->wish, .by_tensor = work->by_tensor};
    bool index = work->shard_count > 1;
    work->plan->files = arena_take_array(arena, work->shard_count + 1, sizeof *work->plan->files);
    work->names = arena_take_array(arena, work->shard_count + 1, sizeof *work->names);
    int result = work->plan->files && work->names ? 0 : -ENOMEM;
    for (size_t i = 0; i < work->shard_count + index && !result; i++)
        result = assemble_print_name(work, i, &work->names[i]);
    for (size_t i = 0; i < work->shard_count && !result; i++) {
        shard.entries = work->sorted + work->starts[i];
        shard.count = work->starts[i + 1] - work->starts[i];
        shard.tensors = work->tensors + work->tensor_starts[i];
        shard.tensor_count = work->tensor_starts[i + 1] - work->tensor_starts[i];
        result = assemble_shard_file(work, &shard, work->names[i]);
    }
    if (result || !index)
        return result;
    struct assemble_builder builder = {.arena = arena};
    result = assemble_index(&shard, work->names, &builder);
    if (!result)
        assemble_finish_file(work, &builder, work->names[work->shard_count]);
    return result;
}

static int assemble_run(struct assemble_work *work)
{
    size_t count = work->model->tensor_count;
    cleanup_free struct assemble_entry *entries = calloc(count + 1, sizeof *entries);
    cleanup_free const struct assemble_entry **pointers = calloc(2 * count + 1, sizeof *pointers);
    cleanup_free uint32_t *tensors = calloc(count + 1, sizeof *tensors);
    cleanup_free size_t *numbers = calloc(3 * (count + 2), sizeof *numbers);
    if (!entries || !pointers || !tensors || !numbers)
        return -ENOMEM;
    work->entries = entries;
    work->by_tensor = pointers;
    work->sorted = pointers + count;
    work->tensors = tensors;
    work->starts = numbers + count + 2;
    work->tensor_starts = numbers + 2 * (count + 2);
    int result = assemble_collect(work);
    if (result)
        return result;
    assemble_split(work, numbers);
    assemble_sort_by_shard(work);
    return assemble_files(work);
}

errint assemble_plan(const struct model *model, const struct assemble_wish *wish, struct assemble_plan *out,
                     struct format_problem *problem)
{
    struct assemble_work work = {.model = model, .wish = wish, .plan = out, .problem = problem};
    *out = (struct assemble_plan){.arena = {.limit = ASSEMBLE_MEMORY}};
    *problem = (struct format_problem){.offset = -1};
    int result = assemble_run(&work);
    if (result == -EFBIG)
        format_problem_set(problem, -1, "the tensors are larger together than a file can be");
    return result == FORMAT_FOREIGN || result == -EFBIG ? -EINVAL : result;
}

void assemble_release(struct assemble_plan *plan)
{
    arena_release(&plan->arena);
    *plan = (struct assemble_plan){0};
}
