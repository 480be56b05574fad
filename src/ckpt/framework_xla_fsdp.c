/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XLA FSDP (TPU): rankR-of-W-pytorch_model.bin of every rank, with its shards of the parameters and what says
 * how they make up the model. A parameter is flattened, padded and divided evenly; or padded and divided by
 * its first dimension; or lies in a flat one with others. As consolidate_sharded_model_checkpoints of
 * torch_xla puts it together.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/framework.h"
#include "ckpt/saved_file.h"
#include "format/nodes.h"
#include "format/xla_metadata.h"

/* -- names ------------------------------------------------------------------------------------------------
 */

struct xla_name {
    int64_t rank, world_size;
    const char *file;
};

static bool xla_parse_name(const char *file, struct xla_name *out)
{
    char again[64];
    out->file = file;
    if (sscanf(file, "rank%9" SCNd64 "-of-%9" SCNd64 "-", &out->rank, &out->world_size) != 2)
        return false;
    snprintf(again, sizeof again, "rank%" PRId64 "-of-%" PRId64 "-pytorch_model.bin", out->rank,
             out->world_size);
    return out->rank >= 0 && out->world_size > 0 && strcmp(file, again) == 0;
}

static int xla_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    struct xla_name name;
    (void)folder;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && xla_parse_name(listing->at[i].name, &name))
            return 1;
    }
    return 0;
}

static int xla_compare_names(const void *a, const void *b)
{
    const struct xla_name *one = a, *other = b;
    if (one->rank != other->rank)
        return one->rank < other->rank ? -1 : 1;
    return (one->world_size > other->world_size) - (one->world_size < other->world_size);
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* One rank's part of a parameter. */
struct xla_run {
    uint32_t file;
    int64_t offset;
};

struct xla {
    const struct folder *folder;
    struct model *model;
    struct xla_name *names;
    size_t world_size;
    struct saved_file first; /* of rank 0: it stays open, for its nodes */
    struct xla_metadata metadata;
    const struct pickle_node *state; /* rank 0's */
    struct tensor *tensors;          /* of each entry of it; of a shard rank 0's */
    struct xla_run *runs;            /* world_size of each entry */
};

static void xla_release(struct xla *xla)
{
    free(xla->names);
    free(xla->tensors);
    free(xla->runs);
    xla_metadata_release(&xla->metadata);
    saved_file_close(&xla->first);
}

static int xla_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

/* The files of one save, which are those of ranks 0 to W - 1. */
static int xla_find_names(struct xla *xla, const struct folder_listing *listing)
{
    size_t count = 0;
    xla->names = calloc(listing->count + 1, sizeof *xla->names);
    if (!xla->names)
        return -ENOMEM;
    for (size_t i = 0; i < listing->count; i++)
        count += !listing->at[i].directory && xla_parse_name(listing->at[i].name, &xla->names[count]);
    qsort(xla->names, count, sizeof *xla->names, xla_compare_names);
    int64_t world_size = xla->names[0].world_size;
    xla->model->world_size = world_size;
    for (size_t i = 0; i < count; i++) {
        if (xla->names[i].world_size != world_size)
            return xla_told(model_add_note(xla->model, true, "%s and %s are of different saves",
                                           xla->names[0].file, xla->names[i].file));
    }
    for (int64_t rank = 0; rank < world_size; rank++) {
        if ((size_t)rank >= count || xla->names[rank].rank != rank)
            return xla_told(model_add_note(xla->model, true,
                                           "rank%" PRId64 "-of-%" PRId64
                                           "-pytorch_model.bin is not here (%zu files of %" PRId64 " are)",
                                           rank, world_size, count, world_size));
    }
    if (count > (size_t)world_size)
        return xla_told(model_add_note(xla->model, true, "%s is too much: there are only %" PRId64 " ranks",
                                       xla->names[world_size].file, world_size));
    xla->world_size = (size_t)world_size;
    return 0;
}

/* Of a file: its state dict, and whether it is the rank that its name says. */
static int xla_read_state(const struct xla *xla, struct saved_file *file, size_t rank,
                          const struct xla_metadata *metadata, const struct pickle_node **state)
{
    *state = pickle_get(file->torch.root, "model");
    if (!pickle_is_dict(*state))
        return format_problem_set(&file->problem, -1, "expected a dict model, found none");
    if ((uint64_t)metadata->rank != rank || (uint64_t)metadata->world_size != xla->world_size)
        return format_problem_set(&file->problem, -1,
                                  "expected rank %zu of %zu, found that it is rank %" PRId64 " of %" PRId64,
                                  rank, xla->world_size, metadata->rank, metadata->world_size);
    return 0;
}

static int xla_read_tensor(struct saved_file *file, const struct pickle_node *state, size_t i,
                           struct tensor *out)
{
    int error = torch_file_tensor(&file->torch, pickle_dict_value(state, i), out, &file->problem);
    if (error)
        return error;
    out->name = node_text(pickle_dict_key(state, i));
    if (!out->name)
        return format_problem_set(&file->problem, out->offset, "a tensor's name is no text");
    return 0;
}

static int xla_read_first(struct xla *xla)
{
    struct saved_file *first = &xla->first;
    int error = saved_file_open(xla->folder, xla->model, xla->names[0].file, first);
    if (error)
        return error;
    error = xla_metadata_read(pickle_get(first->torch.root, "shard_metadata"), &first->torch.arena,
                              &xla->metadata, &first->problem);
    if (!error)
        error = xla_read_state(xla, first, 0, &xla->metadata, &xla->state);
    if (error)
        return saved_file_told(xla->model, first, error);
    size_t count = pickle_dict_count(xla->state);
    xla->tensors = calloc(count + 1, sizeof *xla->tensors);
    xla->runs = calloc(count * xla->world_size + 1, sizeof *xla->runs);
    if (!xla->tensors || !xla->runs)
        return -ENOMEM;
    for (size_t i = 0; !error && i < count; i++) {
        error = xla_read_tensor(first, xla->state, i, &xla->tensors[i]);
        xla->runs[i * xla->world_size] =
            (struct xla_run){.file = first->index, .offset = xla->tensors[i].offset};
    }
    return saved_file_told(xla->model, first, error);
}

/* Whether another rank's shard is like rank 0's. */
static int xla_check_shard(struct saved_file *file, const struct tensor *shard, const struct tensor *first)
{
    if (strcmp(shard->name, first->name) != 0)
        return format_problem_set(&file->problem, shard->offset, "expected the tensors of rank 0, found %s",
                                  shard->name);
    if (shard->type != first->type || shard->strides || !tensor_shape_equal(&shard->shape, &first->shape))
        return format_problem_set(&file->problem, shard->offset, "%s has another type or shape than rank 0's",
                                  shard->name);
    return 0;
}

static int xla_read_rank(struct xla *xla, size_t rank)
{
    cleanup_saved_file struct saved_file file = {0};
    struct xla_metadata metadata;
    const struct pickle_node *state;
    int error = saved_file_open(xla->folder, xla->model, xla->names[rank].file, &file);
    if (error)
        return error;
    error = xla_metadata_read_rank(pickle_get(file.torch.root, "shard_metadata"), &metadata, &file.problem);
    if (!error)
        error = xla_read_state(xla, &file, rank, &metadata, &state);
    for (size_t i = 0; !error && i < pickle_dict_count(xla->state); i++) {
        struct tensor shard;
        if (!xla_is_shard_key(xla->tensors[i].name))
            continue;
        error = xla_read_tensor(&file, state, i, &shard);
        if (!error)
            error = xla_check_shard(&file, &shard, &xla->tensors[i]);
        xla->runs[i * xla->world_size + rank] = (struct xla_run){.file = file.index, .offset = shard.offset};
    }
    return saved_file_told(xla->model, &file, error);
}

/* -- putting together -------------------------------------------------------------------------------------
 */

/* Elements of one rank's shard of the entry; false: the shards cannot make up the parameter. */
static bool xla_shard_count(const struct xla *xla, size_t i, const struct xla_shard *shard, int64_t *count)
{
    const struct tensor *tensor = &xla->tensors[i];
    int64_t all;
    if (tensor->strides || !tensor_count(&tensor->shape, count) ||
        __builtin_mul_overflow(*count, (int64_t)xla->world_size, &all) || all < shard->count)
        return false;
    if (tensor->shape.rank == 1)
        return true;
    /* Divided by the first dimension: the others are whole. */
    if (tensor->shape.rank != shard->shape.rank || tensor->shape.rank == 0)
        return false;
    for (uint32_t d = 1; d < tensor->shape.rank; d++) {
        if (tensor->shape.sizes[d] != shard->shape.sizes[d])
            return false;
    }
    return true;
}

/* Adds a tensor: `count` elements from `from` on of all ranks' shards, one behind the other. */
static errint xla_add_tensor(struct xla *xla, size_t i, const char *name, const struct tensor_shape *shape,
                             int64_t from, int64_t count, int64_t shard_count)
{
    struct model_tensor *tensor;
    const char *plain = xla_plain_name(name, &xla->first.torch.arena);
    if (!plain)
        return -ENOMEM;
    errint error = model_add_tensor(xla->model, plain, xla->tensors[i].type, shape, &tensor);
    int64_t done = 0, before;
    while (!error && tensor && done < count) {
        const struct xla_run *run = &xla->runs[i * xla->world_size + (size_t)((from + done) / shard_count)];
        int64_t at = (from + done) % shard_count, left = shard_count - at;
        int64_t take = count - done < left ? count - done : left;
        if (!tensor_bytes(tensor->stored, at, &before))
            return -EOVERFLOW;
        error = model_add_piece(
            xla->model, tensor,
            &(struct model_piece){
                .file = run->file, .offset = run->offset + before, .first = done, .count = take});
        done += take;
    }
    return error;
}

/* The parameters that lie in a flat one. */
static int xla_add_flat(struct xla *xla, size_t i, const struct xla_shard *shard, int64_t shard_count)
{
    struct saved_file *first = &xla->first;
    struct xla_part *parts;
    size_t count;
    int64_t from = 0;
    int error =
        xla_read_flat(&xla->metadata, shard->name, &first->torch.arena, &parts, &count, &first->problem);
    if (error)
        return saved_file_told(xla->model, first, error);
    for (size_t k = 0; k < count; k++) {
        if (parts[k].count > shard->count - from)
            return xla_told(model_add_note(xla->model, true,
                                           "%s has %" PRId64 " elements, the parameters in it need more",
                                           shard->name, shard->count));
        error = xla_add_tensor(xla, i, parts[k].name, &parts[k].shape, from, parts[k].count, shard_count);
        if (error)
            return error;
        from += parts[k].count;
    }
    if (from == shard->count)
        return 0;
    return xla_told(model_add_note(xla->model, true,
                                   "%s has %" PRId64 " elements, the parameters in it need %" PRId64,
                                   shard->name, shard->count, from));
}

static int xla_add_shard(struct xla *xla, size_t i, bool flat)
{
    const struct xla_shard *shard = xla_find_shard(&xla->metadata, xla->tensors[i].name);
    int64_t count;
    if (!shard)
        return flat ? 0
                    : xla_told(model_add_note(xla->model, true, "%s: shard_info says nothing about %s",
                                              xla->first.path, xla->tensors[i].name));
    if (xla_is_flat_name(shard->name) != flat)
        return 0;
    if (!xla_shard_count(xla, i, shard, &count))
        return xla_told(model_add_note(xla->model, true,
                                       "%s: the shards of %zu ranks do not make up its %" PRId64 " elements",
                                       shard->name, xla->world_size, shard->count));
    if (flat)
        return xla_add_flat(xla, i, shard, count);
    return xla_add_tensor(xla, i, shard->name, &shard->shape, 0, shard->count, count);
}

/* What is not divided: rank 0's, with the type that it had before it was cast for the device. */
static errint xla_add_buffer(struct xla *xla, size_t i)
{
    const struct tensor *tensor = &xla->tensors[i];
    enum tensor_type type = tensor->type;
    const char *plain = xla_plain_name(tensor->name, &xla->first.torch.arena);
    errint error = plain ? model_add_whole(xla->model, tensor, plain, xla->first.index) : -ENOMEM;
    struct model_tensor *added = error ? NULL : model_find_tensor(xla->model, plain);
    if (!added)
        return error;
    xla_buffer_type(&xla->metadata, tensor->name, &type);
    added->type = type;
    added->buffer = true;
    return 0;
}

/* What lies in flat parameters comes last, as torch_xla has it. */
static int xla_assemble(struct xla *xla)
{
    size_t count = pickle_dict_count(xla->state);
    int error = 0;
    for (size_t i = 0; !error && i < count; i++)
        error =
            xla_is_shard_key(xla->tensors[i].name) ? xla_add_shard(xla, i, false) : xla_add_buffer(xla, i);
    for (size_t i = 0; !error && i < count; i++) {
        if (xla_is_shard_key(xla->tensors[i].name))
            error = xla_add_shard(xla, i, true);
    }
    return error;
}

static errint xla_load(const struct folder *folder, const struct folder_listing *listing,
                       const struct framework_wish *wish, struct model *model)
{
    __attribute__((cleanup(xla_release))) struct xla xla = {.folder = folder, .model = model};
    (void)wish;
    int error = xla_find_names(&xla, listing);
    if (!error)
        error = xla_read_first(&xla);
    for (size_t rank = 1; !error && rank < xla.world_size; rank++)
        error = xla_read_rank(&xla, rank);
    if (!error)
        error = xla_assemble(&xla);
    return error == FORMAT_FOREIGN ? 0 : error;
}

const struct framework framework_xla_fsdp = {
    .name = "xla-fsdp",
    .summary = "XLA FSDP",
    .recognise = xla_recognise,
    .load = xla_load,
};
