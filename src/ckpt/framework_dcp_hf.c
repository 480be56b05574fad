/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shards of DCP's HuggingFaceStorageWriter, which transformers writes with distributed_checkpoint=True:
 * shard-RANK-model-N-of-M.safetensors, each with the starts of its tensors' parts in the header, as JSON in
 * DCP_SHARDING_INFO (torch/distributed/checkpoint/hf_storage.py, 2.13). There is no other metadata: the whole
 * tensor is as large as its parts reach. So a last shard that is missing cannot be seen in the others; what
 * lies beside them is asked: how many processes the Trainer had, and config.json's size of the vocabulary.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "base/name_table.h"
#include "ckpt/framework.h"
#include "ckpt/tied.h"
#include "ckpt/trainer_state.h"
#include "format/safetensors_file.h"

enum { HF_INFO_MAX = 32 << 20, HF_CONFIG_MAX = 1 << 20, HF_ARENA = 1 << 30 };

/* A part of a tensor. */
struct hf_part {
    uint32_t tensor, file;
    int64_t offset;
    const int64_t *starts, *sizes;
};

/* A tensor that is as large as its parts reach. */
struct hf_tensor {
    const char *name;
    enum tensor_type type;
    uint32_t rank;
    int64_t *sizes;
};

struct hf_load {
    const struct folder *folder;
    struct model *model;
    struct arena arena;
    struct name_table names; /* indexes of tensors */
    struct hf_tensor *tensors;
    size_t tensor_count, tensor_capacity;
    struct hf_part *parts;
    size_t part_count, part_capacity;
    int64_t shard_count;
};

static void hf_load_release(struct hf_load *load)
{
    name_table_release(&load->names);
    free(load->tensors);
    free(load->parts);
    arena_release(&load->arena);
}

/* -- names ------------------------------------------------------------------------------------------------
 */

/* The rank, counted from 1, of a shard's name. */
static bool hf_parse_name(const char *name, int64_t *rank)
{
    int length = 0;
    unsigned shard, part, parts;
    if (sscanf(name, "shard-%9u-model-%9u-of-%9u.safetensors%n", &shard, &part, &parts, &length) != 3 ||
        length == 0 || name[length] != 0)
        return false;
    *rank = shard;
    return true;
}

static bool hf_has_shards(const struct folder_listing *listing)
{
    int64_t rank;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && hf_parse_name(listing->at[i].name, &rank))
            return true;
    }
    return false;
}

static int hf_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    (void)folder;
    return hf_has_shards(listing);
}

/* -- one shard --------------------------------------------------------------------------------------------
 */

/* The "saved_offsets" of one tensor: as many whole numbers as it has dimensions. */
static bool hf_read_starts(const cJSON *info, uint32_t rank, int64_t *starts)
{
    const cJSON *number = NULL, *list = cJSON_GetObjectItemCaseSensitive(info, "saved_offsets");
    uint32_t count = 0;
    if (!cJSON_IsArray(list))
        return false;
    cJSON_ArrayForEach(number, list)
    {
        if (count == rank || !cJSON_IsNumber(number) || number->valuedouble < 0 ||
            number->valuedouble > (double)(INT64_C(1) << 53) ||
            number->valuedouble != (double)(int64_t)number->valuedouble)
            return false;
        starts[count++] = (int64_t)number->valuedouble;
    }
    return count == rank;
}

/* The tensor of a name, with the sizes that its parts reach so far; a new one has none. */
static errint hf_find_tensor(struct hf_load *load, const struct tensor *part, uint32_t *index)
{
    if (name_table_find(&load->names, part->name, index))
        return 0;
    struct hf_tensor tensor = {.type = part->type, .rank = part->shape.rank};
    tensor.name = arena_copy_text(&load->arena, part->name, strlen(part->name));
    tensor.sizes = arena_take_array(&load->arena, tensor.rank, sizeof *tensor.sizes);
    if (!tensor.name || !tensor.sizes || load->tensor_count >= UINT32_MAX ||
        !grow_reserve(load->tensors, load->tensor_capacity, load->tensor_count + 1))
        return -ENOMEM;
    *index = (uint32_t)load->tensor_count;
    errint error = name_table_add(&load->names, tensor.name, *index);
    if (!error)
        load->tensors[load->tensor_count++] = tensor;
    return error;
}

static errint hf_add_part(struct hf_load *load, const char *path, uint32_t file, const struct tensor *part,
                          const cJSON *info)
{
    uint32_t index, rank = part->shape.rank;
    int64_t *starts = arena_take_array(&load->arena, rank, sizeof *starts);
    int64_t *sizes = arena_take_array(&load->arena, rank, sizeof *sizes);
    if (!starts || !sizes || !grow_reserve(load->parts, load->part_capacity, load->part_count + 1))
        return -ENOMEM;
    if (info && !hf_read_starts(info, rank, starts))
        return model_add_note(load->model, true, "%s: %s: expected %" PRIu32 " starts in saved_offsets", path,
                              part->name, rank);
    errint error = hf_find_tensor(load, part, &index);
    if (error)
        return error;
    struct hf_tensor *tensor = &load->tensors[index];
    if (tensor->type != part->type || tensor->rank != rank)
        return model_add_note(load->model, true,
                              "%s: %s: expected the type and the dimensions that it has in other shards",
                              path, part->name);
    for (uint32_t i = 0; i < rank; i++) {
        int64_t end;
        sizes[i] = part->shape.sizes[i];
        if (__builtin_add_overflow(starts[i], sizes[i], &end))
            return model_add_note(load->model, true, "%s: %s: its end does not fit", path, part->name);
        if (end > tensor->sizes[i])
            tensor->sizes[i] = end;
    }
    load->parts[load->part_count++] = (struct hf_part){index, file, part->offset, starts, sizes};
    return 0;
}

/* The entries of DCP_SHARDING_INFO in the order of the file's tensors; NULL for what is not in it. */
static errint hf_match_infos(const cJSON *root, const struct safetensors_file *file, const cJSON **infos)
{
    cleanup_name_table struct name_table names = {0};
    for (size_t i = 0; i < file->tensor_count; i++) {
        errint error = name_table_add(&names, file->tensors[i].name, (uint32_t)i);
        if (error)
            return error;
    }
    const cJSON *info = NULL;
    cJSON_ArrayForEach(info, root)
    {
        uint32_t index;
        if (info->string && name_table_find(&names, info->string, &index))
            infos[index] = info;
    }
    return 0;
}

static errint hf_add_parts(struct hf_load *load, const char *path, uint32_t number,
                           const struct safetensors_file *file)
{
    const char *text = safetensors_file_metadata(file, "DCP_SHARDING_INFO");
    cleanup_free const cJSON **infos = calloc(file->tensor_count + 1, sizeof *infos);
    if (!infos)
        return -ENOMEM;
    cJSON *root = text && strlen(text) <= HF_INFO_MAX ? cJSON_Parse(text) : NULL;
    errint error = 0;
    if (text && !cJSON_IsObject(root))
        error = model_add_note(load->model, true, "%s: expected JSON in DCP_SHARDING_INFO", path);
    else if (text)
        error = hf_match_infos(root, file, infos);
    for (size_t i = 0; i < file->tensor_count && !error; i++) {
        if (root && !infos[i])
            error = model_add_note(load->model, true, "%s: %s: expected it in DCP_SHARDING_INFO", path,
                                   file->tensors[i].name);
        else
            error = hf_add_part(load, path, number, &file->tensors[i], infos[i]);
    }
    cJSON_Delete(root);
    return error;
}

static errint hf_load_shard(struct hf_load *load, const char *path)
{
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    cleanup_safetensors_file struct safetensors_file file = {0};
    uint32_t number;
    errint error = folder_open(load->folder, path, &source);
    if (error)
        return error;
    int result = safetensors_file_read(&source, &file, &problem);
    folder_close(load->folder, &source);
    if (result)
        return result == FORMAT_FOREIGN ? model_add_problem(load->model, path, &problem) : result;
    error = model_add_file(load->model, path, source.size, &number);
    return error ? error : hf_add_parts(load, path, number, &file);
}

/* -- all of them ------------------------------------------------------------------------------------------
 */

static errint hf_load_shards(struct hf_load *load, const struct folder_listing *listing)
{
    int64_t expected = 1, rank;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->at[i].directory || !hf_parse_name(listing->at[i].name, &rank))
            continue;
        errint error = 0;
        if (rank > expected)
            error = model_add_note(load->model, true, "shard %05" PRId64 " is missing: %s is there", expected,
                                   listing->at[i].name);
        if (!error)
            error = hf_load_shard(load, listing->at[i].name);
        if (error)
            return error;
        expected = rank + 1;
    }
    load->shard_count = expected - 1;
    load->model->world_size = expected - 1;
    return 0;
}

/* Whether the part before it is the very same box: a tensor that every rank wrote. */
static bool hf_is_repeated(const struct hf_load *load, const struct hf_part *one, const struct hf_part *other)
{
    size_t bytes = load->tensors[one->tensor].rank * sizeof *one->starts;
    return one->tensor == other->tensor && memcmp(one->starts, other->starts, bytes) == 0 &&
           memcmp(one->sizes, other->sizes, bytes) == 0;
}

/* By tensor and starts; of equal ones the first shard's. */
static int hf_compare_parts(const void *left, const void *right, void *context)
{
    const struct hf_load *load = context;
    const struct hf_part *a = left, *b = right;
    if (a->tensor != b->tensor)
        return a->tensor < b->tensor ? -1 : 1;
    for (uint32_t i = 0; i < load->tensors[a->tensor].rank; i++) {
        if (a->starts[i] != b->starts[i])
            return a->starts[i] < b->starts[i] ? -1 : 1;
    }
    return (a->file > b->file) - (a->file < b->file);
}

static errint hf_add_tensors(struct hf_load *load)
{
    for (size_t i = 0; i < load->tensor_count; i++) {
        const struct hf_tensor *tensor = &load->tensors[i];
        struct tensor_shape shape = {tensor->rank, tensor->sizes};
        struct model_tensor *added;
        errint error = model_add_tensor(load->model, tensor->name, tensor->type, &shape, &added);
        if (error)
            return error;
    }
    if (load->part_count > 0)
        qsort_r(load->parts, load->part_count, sizeof *load->parts, hf_compare_parts, load);
    for (size_t i = 0; i < load->part_count; i++) {
        const struct hf_part *part = &load->parts[i];
        if (i > 0 && hf_is_repeated(load, &load->parts[i - 1], part))
            continue;
        struct model_piece piece = {.file = part->file, .offset = part->offset, .count = 1};
        if (load->tensors[part->tensor].rank > 0) {
            piece.starts = part->starts;
            piece.sizes = part->sizes;
        }
        errint error = model_add_piece(load->model, &load->model->tensors[part->tensor], &piece);
        if (error)
            return error;
    }
    return 0;
}

/* -- what lies beside them --------------------------------------------------------------------------------
 */

static errint hf_check_vocabulary(struct hf_load *load)
{
    cleanup_free char *text = NULL;
    size_t length;
    errint error = folder_read_text(load->folder, "config.json", HF_CONFIG_MAX, &text, &length);
    if (error)
        return error == -ENOMEM ? error : 0;
    cJSON *config = cJSON_ParseWithLength(text, length);
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(config, "vocab_size");
    for (size_t i = 0; i < load->tensor_count && cJSON_IsNumber(size) && !error; i++) {
        const struct hf_tensor *tensor = &load->tensors[i];
        const char *end = strrchr(tensor->name, '.');
        if (tensor->rank == 2 && end && strstr(tensor->name, "embed_tokens.weight") &&
            (double)tensor->sizes[0] < size->valuedouble)
            error = model_add_note(load->model, true,
                                   "a shard is missing: %s has %" PRId64 " rows, and config.json says %.0f",
                                   tensor->name, tensor->sizes[0], size->valuedouble);
    }
    cJSON_Delete(config);
    return error;
}

static errint hf_load_model(const struct folder *folder, const struct folder_listing *listing,
                            const struct framework_wish *wish, struct model *model)
{
    (void)wish;
    __attribute__((cleanup(hf_load_release))) struct hf_load load = {
        .folder = folder, .model = model, .arena = {.limit = HF_ARENA}};
    int64_t processes = trainer_state_world_size(listing);
    errint error = hf_load_shards(&load, listing);
    if (!error && processes > load.shard_count)
        error = model_add_note(
            model, true, "a shard is missing: %" PRId64 " processes saved, and %" PRId64 " shards are there",
            processes, load.shard_count);
    if (!error)
        error = hf_add_tensors(&load);
    if (!error)
        error = hf_check_vocabulary(&load);
    return error || model->missing ? error : tied_mark(folder, model);
}

const struct framework framework_dcp_hf = {
    .name = "dcp-huggingface",
    .summary = "torch.distributed.checkpoint, HuggingFace shards",
    .recognise = hf_recognise,
    .load = hf_load_model,
};
