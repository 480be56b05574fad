/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor parallelism: mp_rank_MP_model_states.pt of each rank holds its slices of the module. They are put
 * together where the file itself says how (`affine_map`, which AutoTP writes from DeepSpeed 0.19 on);
 * elsewhere only the training program knows.
 */
#include <errno.h>
#include <inttypes.h>

#include "ckpt/deepspeed.h"
#include "format/deepspeed_map.h"

struct slices {
    struct deepspeed_tag *tag;
    struct saved_file first; /* of rank 0: the maps */
    struct deepspeed_map *maps;
    size_t map_count;
    struct name_table maps_by_name;
    struct name_table buffers;
};

static void slices_release(struct slices *slices)
{
    name_table_release(&slices->maps_by_name);
    name_table_release(&slices->buffers);
    saved_file_close(&slices->first);
}

static int slices_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

/* -- what rank 0 says -------------------------------------------------------------------------------------
 */

static int slices_refuse(struct slices *slices)
{
    const struct pickle_node *info = pickle_get(slices->first.torch.root, "universal_checkpoint_info");
    const char *why =
        pickle_is_dict(info)
            ? "universal_checkpoint_info has no affine_map that says how slices are put together"
            : "nothing in it says how slices are put together (no universal_checkpoint_info)";
    return slices_told(model_add_note(slices->tag->model, true,
                                      "%s is one of several tensor-parallel ranks, and %s",
                                      slices->first.path, why));
}

/* The ranks are those of tensor parallelism alone, and all here. */
static int slices_check_ranks(struct slices *slices, size_t count)
{
    const struct pickle_node *dimensions =
        pickle_get(slices->first.torch.root, "checkpoint_parallel_dimensions");
    int64_t stages = 1, ranks = 0;
    pickle_integer(pickle_get(dimensions, "pp_degree"), &stages);
    if (!pickle_integer(pickle_get(dimensions, "tp_degree"), &ranks))
        pickle_integer(pickle_get(slices->first.torch.root, "mp_world_size"), &ranks);
    if (stages > 1)
        return slices_told(model_add_note(slices->tag->model, true,
                                          "%s is of a pipeline of %" PRId64
                                          " stages, and no layer_*-model_states.pt is here",
                                          slices->first.path, stages));
    if (ranks > 0 && (uint64_t)ranks != count)
        return slices_told(model_add_note(slices->tag->model, true,
                                          "the save had %" PRId64 " tensor-parallel ranks and "
                                          "%zu mp_rank_*_model_states.pt are here",
                                          ranks, count));
    return 0;
}

static int slices_read_maps(struct slices *slices)
{
    struct saved_file *first = &slices->first;
    int error = saved_file_told(slices->tag->model, first,
                                deepspeed_read_maps(first->torch.root, &first->torch.arena, &slices->maps,
                                                    &slices->map_count, &first->problem));
    if (!error && slices->map_count == 0)
        error = slices_refuse(slices);
    for (size_t i = 0; !error && i < slices->map_count; i++) {
        error = name_table_add(&slices->maps_by_name, slices->maps[i].name, (uint32_t)i);
        if (error == -EEXIST)
            error = saved_file_told(
                slices->tag->model, first,
                format_problem_set(&first->problem, -1, "affine_map: two maps of %s", slices->maps[i].name));
    }
    const struct pickle_node *buffers = pickle_get(first->torch.root, "buffer_names");
    for (size_t i = 0; !error && i < pickle_count(buffers); i++) {
        const char *name = node_text(pickle_item(buffers, i));
        error = name ? name_table_add(&slices->buffers, name, 0) : 0;
        error = error == -EEXIST ? 0 : error;
    }
    return error;
}

/* -- one rank ---------------------------------------------------------------------------------------------
 */

static int slices_add_piece(struct slices *slices, struct saved_file *file, const struct deepspeed_map *map,
                            const struct pickle_node *node, const struct tensor *shard, int64_t rank)
{
    struct deepspeed_map_piece piece;
    int64_t held, behind, before;
    int error = deepspeed_read_map_piece(map, node, &file->torch.arena, &piece, &file->problem);
    if (error)
        return saved_file_told(slices->tag->model, file, error);
    if (piece.owner != rank || piece.count == 0)
        return 0;
    if (shard->strides || !tensor_count(&shard->shape, &held) ||
        __builtin_add_overflow(piece.offset, piece.count, &behind) || behind > held ||
        !tensor_bytes(shard->type, piece.offset, &before))
        return saved_file_told(slices->tag->model, file,
                               format_problem_set(&file->problem, shard->offset,
                                                  "affine_map: %s: a piece behind the end of the slice",
                                                  map->name));
    struct model_tensor *tensor = model_find_tensor(slices->tag->model, map->name);
    return model_add_piece(slices->tag->model, tensor,
                           &(struct model_piece){.file = file->index,
                                                 .offset = shard->offset + before,
                                                 .starts = piece.starts,
                                                 .sizes = piece.sizes,
                                                 .strides = piece.strides});
}

static int slices_add_mapped(struct slices *slices, struct saved_file *file, const struct deepspeed_map *map,
                             const struct tensor *shard, int64_t rank)
{
    const struct pickle_node *pieces;
    struct model_tensor *tensor = model_find_tensor(slices->tag->model, map->name);
    int error =
        saved_file_told(slices->tag->model, file, deepspeed_map_pieces(map, rank, &pieces, &file->problem));
    if (!error && !tensor)
        error = model_add_tensor(slices->tag->model, map->name, shard->type, &map->shape, &tensor);
    if (error)
        return error;
    if (tensor->stored != shard->type)
        return saved_file_told(
            slices->tag->model, file,
            format_problem_set(&file->problem, shard->offset, "%s is of %s, of rank 0 it is %s", map->name,
                               tensor_type_name(shard->type), tensor_type_name(tensor->stored)));
    for (size_t i = 0; !error && i < pieces->count; i++)
        error = slices_add_piece(slices, file, map, pieces->items[i], shard, rank);
    return error;
}

/* A buffer is the same on all ranks; of a parameter without a map nothing is known. */
static int slices_add_plain(struct slices *slices, struct saved_file *file, const char *name,
                            const struct tensor *tensor, int64_t rank)
{
    struct model *model = slices->tag->model;
    if (!name_table_find(&slices->buffers, name, NULL))
        return slices_told(
            model_add_note(model, true, "%s: affine_map says nothing about %s", file->path, name));
    if (rank > 0)
        return 0;
    errint error = model_add_whole(model, tensor, name, file->index);
    struct model_tensor *added = error ? NULL : model_find_tensor(model, name);
    if (added)
        added->buffer = true;
    return error;
}

static int slices_add_rank(struct slices *slices, struct saved_file *file, int64_t rank)
{
    const struct pickle_node *module = pickle_get(file->torch.root, "module");
    int error = 0;
    if (!pickle_is_dict(module))
        return saved_file_told(slices->tag->model, file,
                               format_problem_set(&file->problem, -1, "expected a dict module, found none"));
    for (size_t i = 0; !error && i < pickle_dict_count(module); i++) {
        const char *name = node_text(pickle_dict_key(module, i));
        const struct pickle_node *value = pickle_dict_value(module, i);
        struct tensor tensor;
        uint32_t map;
        if (!name || !torch_file_is_tensor(value))
            continue;
        error = saved_file_told(slices->tag->model, file,
                                torch_file_tensor(&file->torch, value, &tensor, &file->problem));
        if (error)
            break;
        if (name_table_find(&slices->maps_by_name, name, &map))
            error = slices_add_mapped(slices, file, &slices->maps[map], &tensor, rank);
        else
            error = slices_add_plain(slices, file, name, &tensor, rank);
    }
    return error;
}

/* -- all of it --------------------------------------------------------------------------------------------
 */

int deepspeed_load_tensor_parallel(struct deepspeed_tag *tag, bool master)
{
    __attribute__((cleanup(slices_release))) struct slices slices = {.tag = tag};
    size_t count;
    tag->model->framework = "deepspeed-tensor-parallel";
    tag->model->summary = "DeepSpeed tensor parallelism";
    const struct deepspeed_name *names = deepspeed_tag_find(tag, DEEPSPEED_MODEL, &count);
    for (size_t rank = 0; rank < count; rank++) {
        if (names[rank].mp != (int64_t)rank)
            return slices_told(model_add_note(tag->model, true,
                                              "mp_rank_%02zu_model_states.pt is not here, but %s is", rank,
                                              names[rank].file));
    }
    int error = deepspeed_file_open(tag, names[0].file, &slices.first);
    if (error)
        return error;
    deepspeed_note_progress(tag, &slices.first);
    error = slices_check_ranks(&slices, count);
    if (!error)
        error = slices_read_maps(&slices);
    if (!error)
        error = slices_add_rank(&slices, &slices.first, 0);
    for (size_t rank = 1; !error && rank < count; rank++) {
        cleanup_saved_file struct saved_file file = {0};
        error = deepspeed_file_open(tag, names[rank].file, &file);
        if (!error)
            error = slices_add_rank(&slices, &file, (int64_t)rank);
    }
    if (error == FORMAT_FOREIGN)
        model_drop_tensors(tag->model);
    return error || !master ? error : deepspeed_note_no_master(tag);
}
