/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State dictionaries of single ranks: torch.save of a model's state_dict() under FSDP.
 *
 * A DTensor is its local tensor and a specification: the mesh of ranks, one placement for each of the mesh's
 * dimensions, and the whole tensor's shape (torch/distributed/tensor/_dtensor_spec.py, device_mesh.py, 2.13;
 * earlier ones differ in the mesh's attributes). A ShardedTensor is a list of boxes with their places
 * (torch/distributed/_shard/sharded_tensor/api.py). A flat parameter of FSDP's LOCAL_STATE_DICT is a
 * ShardedTensor of one dimension, whose parameters' shapes are nowhere in the files.
 */
#include "ckpt/rank_files.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/placement.h"
#include "format/torch_file.h"

enum { RANK_MESH_MAX = 16 };

struct rank_load {
    const struct folder *folder;
    struct model *model;
    const char *path;
    int64_t rank;
    uint32_t file;
    int64_t file_count; /* in all */
    int64_t world_size; /* of the largest mesh seen */
    bool repeats;       /* other ranks may have the same part of this tensor */
    bool flat;          /* flat parameters were seen */
    struct torch_file torch;
    struct arena scratch;
};

static void rank_load_release(struct rank_load *load)
{
    torch_file_release(&load->torch);
    arena_release(&load->scratch);
}

static errint rank_note(struct rank_load *load, const char *name, const char *text)
{
    return model_add_note(load->model, true, "%s: %s: %s", load->path, name, text);
}

/* -- the tensor that is being put together ----------------------------------------------------------------
 */

/* The whole tensor of a name, new or as an earlier file described it; NULL in *out: something was noted. */
static errint rank_find_tensor(struct rank_load *load, const char *name, enum tensor_type type,
                               const struct tensor_shape *shape, struct model_tensor **out)
{
    *out = model_find_tensor(load->model, name);
    if (!*out)
        return model_add_tensor(load->model, name, type, shape, out);
    if ((*out)->type == type && tensor_shape_equal(&(*out)->shape, shape))
        return 0;
    *out = NULL;
    return rank_note(load, name, "expected the type and shape that it has in other ranks' files");
}

/* Adds a box, unless the same one is there: meshes beside each other hold the same. */
static errint rank_add_box(struct rank_load *load, struct model_tensor *whole, const struct model_piece *box)
{
    size_t bytes = whole->shape.rank * sizeof *box->starts;
    for (size_t i = 0; load->repeats && i < whole->piece_count; i++) {
        const struct model_piece *known = &whole->pieces[i];
        if (known->starts && memcmp(known->starts, box->starts, bytes) == 0 &&
            memcmp(known->sizes, box->sizes, bytes) == 0)
            return 0;
    }
    return model_add_piece(load->model, whole, box);
}

/* Strides of a tensor that lies row after row. */
static bool rank_fill_strides(const struct tensor *tensor, int64_t strides[TENSOR_RANK_MAX])
{
    int64_t stride = 1;
    for (uint32_t i = tensor->shape.rank; i-- > 0;) {
        strides[i] = tensor->strides ? tensor->strides[i] : stride;
        int64_t size = tensor->shape.sizes[i] > 0 ? tensor->shape.sizes[i] : 1;
        if (__builtin_mul_overflow(stride, size, &stride))
            return false;
    }
    return true;
}

/* One run of each dimension together are a box; goes through all of them like an odometer. */
static errint rank_add_boxes(struct rank_load *load, struct model_tensor *whole, const struct tensor *local,
                             const struct placement_rows *rows)
{
    int64_t strides[TENSOR_RANK_MAX], starts[TENSOR_RANK_MAX], sizes[TENSOR_RANK_MAX];
    int64_t before[TENSOR_RANK_MAX] = {0}; /* rows of the runs before the one that is current */
    size_t current[TENSOR_RANK_MAX] = {0};
    uint32_t rank = local->shape.rank;
    int64_t width = tensor_type_bits(local->type) / 8;
    if (!rank_fill_strides(local, strides) || width == 0)
        return rank_note(load, whole->name, "its layout is not understood");
    for (;;) {
        struct model_piece piece = {.file = load->file,
                                    .offset = local->offset,
                                    .starts = starts,
                                    .sizes = sizes,
                                    .strides = strides};
        for (uint32_t i = 0; i < rank; i++) {
            starts[i] = rows[i].runs[current[i]].start;
            sizes[i] = rows[i].runs[current[i]].length;
            piece.offset += before[i] * strides[i] * width;
        }
        errint error = rank_add_box(load, whole, &piece);
        if (error)
            return error;
        uint32_t dimension = rank;
        while (dimension-- > 0) {
            before[dimension] += rows[dimension].runs[current[dimension]].length;
            if (++current[dimension] < rows[dimension].count)
                break;
            current[dimension] = 0;
            before[dimension] = 0;
        }
        if (dimension == UINT32_MAX)
            return 0;
    }
}

/* -- DTensor ----------------------------------------------------------------------------------------------
 */

static bool rank_calls(const struct pickle_node *node, const char *const *names)
{
    for (; *names; names++) {
        if (pickle_is_call(node, *names))
            return true;
    }
    return false;
}

/* The product of a number, or of the numbers in nested tuples: a dimension of one rank has an empty one. */
static bool rank_product(const struct pickle_node *node, unsigned depth, int64_t *product)
{
    int64_t value;
    if (pickle_integer(node, &value))
        return value > 0 && !__builtin_mul_overflow(*product, value, product);
    if (!node || (node->kind != PICKLE_TUPLE && node->kind != PICKLE_LIST))
        return false;
    for (size_t i = 0; i < pickle_count(node); i++) {
        if (depth == 0 || !rank_product(pickle_item(node, i), depth - 1, product))
            return false;
    }
    return true;
}

/* The mesh's size in each dimension: from its layout, or in earlier versions the shape of a tensor of ranks.
 */
static size_t rank_read_mesh(struct rank_load *load, const struct pickle_node *mesh,
                             struct placement placements[RANK_MESH_MAX])
{
    const struct pickle_node *layout = pickle_attribute(mesh, "_layout");
    const struct pickle_node *axes = pickle_attribute(layout, "axes");
    const struct pickle_node *shape = axes ? axes : pickle_attribute(layout, "shape");
    struct tensor ranks;
    int64_t single;
    if (!layout) {
        if (torch_file_tensor(&load->torch, pickle_attribute(mesh, "mesh"), &ranks, NULL) ||
            ranks.shape.rank > RANK_MESH_MAX)
            return 0;
        for (uint32_t i = 0; i < ranks.shape.rank; i++)
            placements[i].size = ranks.shape.sizes[i];
        return ranks.shape.rank;
    }
    if (pickle_integer(shape, &single)) {
        placements[0].size = single;
        return 1;
    }
    size_t count = pickle_count(shape);
    for (size_t i = 0; i < count && i < RANK_MESH_MAX; i++) {
        const struct pickle_node *axis = pickle_item(shape, i);
        placements[i].size = 1;
        if (!rank_product(axes ? pickle_attribute(axis, "shape") : axis, 4, &placements[i].size))
            return 0;
    }
    return count <= RANK_MESH_MAX ? count : 0;
}

/* Where in the mesh the rank is. A mesh of one dimension need not say it. */
static bool rank_read_position(const struct rank_load *load, const struct pickle_node *mesh,
                               struct placement *placements, size_t count)
{
    const struct pickle_node *position = pickle_attribute(mesh, "_coordinate_on_dim");
    if (pickle_count(position) != count) {
        placements[0].position = load->rank;
        return count == 1 && load->rank < placements[0].size;
    }
    for (size_t i = 0; i < count; i++) {
        if (!pickle_integer(pickle_item(position, i), &placements[i].position) ||
            placements[i].position < 0 || placements[i].position >= placements[i].size)
            return false;
    }
    return true;
}

/* Shard(dim), _StridedShard(dim, split_factor) or Replicate(); false: anything else. */
static bool rank_read_placement(const struct pickle_node *node, struct placement *placement)
{
    static const char *const replicates[] = {"torch.distributed.tensor.placement_types Replicate",
                                             "torch.distributed._tensor.placement_types Replicate", NULL};
    static const char *const shards[] = {"torch.distributed.tensor.placement_types Shard",
                                         "torch.distributed._tensor.placement_types Shard", NULL};
    static const char *const strided[] = {"torch.distributed.tensor.placement_types _StridedShard",
                                          "torch.distributed._tensor.placement_types _StridedShard", NULL};
    int64_t split;
    if (rank_calls(node, replicates))
        return true;
    placement->sharded = true;
    placement->factor = 1;
    if (!pickle_integer(pickle_attribute(node, "dim"), &split) || split < 0 || split >= TENSOR_RANK_MAX)
        return false;
    placement->split = (uint32_t)split;
    return rank_calls(node, shards) ||
           (rank_calls(node, strided) &&
            pickle_integer(pickle_attribute(node, "split_factor"), &placement->factor));
}

/* Whether a dimension is split by the mesh's first dimension first, as placements say without more words. */
static bool rank_is_usual_order(const struct pickle_node *order)
{
    for (size_t i = 0; i < pickle_count(order); i++) {
        const struct pickle_node *entry = pickle_item(order, i);
        const struct pickle_node *dims = pickle_attribute(entry, "mesh_dims");
        if (!dims && entry->kind == PICKLE_CALL && entry->count == 2)
            dims = entry->items[1];
        int64_t last = -1, next;
        for (size_t k = 0; k < pickle_count(dims); k++) {
            if (!pickle_integer(pickle_item(dims, k), &next) || next <= last)
                return false;
            last = next;
        }
    }
    return true;
}

/* The shape of the whole tensor: TensorMeta(shape, stride, dtype). */
static bool rank_read_shape(const struct pickle_node *size, int64_t sizes[TENSOR_RANK_MAX],
                            struct tensor_shape *shape)
{
    size_t count = pickle_count(size);
    if (!size || count > TENSOR_RANK_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!pickle_integer(pickle_item(size, i), &sizes[i]) || sizes[i] < 0)
            return false;
    }
    *shape = (struct tensor_shape){(uint32_t)count, sizes};
    return true;
}

/* All that the specification says; a text: what is wrong with it. */
static const char *rank_read_spec(struct rank_load *load, const struct pickle_node *spec,
                                  int64_t sizes[TENSOR_RANK_MAX], struct tensor_shape *shape,
                                  struct placement placements[RANK_MESH_MAX], size_t *count)
{
    const struct pickle_node *mesh = pickle_attribute(spec, "mesh");
    const struct pickle_node *list = pickle_attribute(spec, "placements");
    const struct pickle_node *meta = pickle_attribute(spec, "tensor_meta");
    const struct pickle_node *size = pickle_attribute(meta, "shape");
    if (!size && meta && meta->kind == PICKLE_CALL && meta->count == 3)
        size = meta->items[0];
    *count = rank_read_mesh(load, mesh, placements);
    if (*count == 0 || !rank_read_position(load, mesh, placements, *count))
        return "expected a mesh of ranks, and the place of this one";
    if (pickle_count(list) != *count)
        return "expected a placement for each dimension of the mesh";
    for (size_t i = 0; i < *count; i++) {
        if (!rank_read_placement(pickle_item(list, i), &placements[i]))
            return "expected Shard or Replicate as its placement";
    }
    if (!rank_is_usual_order(pickle_attribute(spec, "shard_order")))
        return "its dimensions are split in an order that is not understood";
    return rank_read_shape(size, sizes, shape) ? NULL : "expected the shape of the whole tensor";
}

static errint rank_place_local(struct rank_load *load, struct model_tensor *whole, const struct tensor *local,
                               const struct placement *placements, size_t count)
{
    struct placement_rows rows[TENSOR_RANK_MAX] = {0};
    arena_release(&load->scratch);
    errint error = placement_find_rows(&whole->shape, placements, count, &load->scratch, rows);
    if (error)
        return error == -EINVAL ? rank_note(load, whole->name, "its placement makes no sense") : error;
    bool empty = false;
    for (uint32_t i = 0; i < whole->shape.rank; i++) {
        if (local->shape.rank != whole->shape.rank || local->shape.sizes[i] != rows[i].length)
            return rank_note(load, whole->name, "expected the shape that its placement says, found another");
        empty |= rows[i].length == 0;
    }
    if (local->shape.rank != whole->shape.rank)
        return rank_note(load, whole->name, "expected a tensor without dimensions, found one that has some");
    for (size_t i = 0; i < count; i++) {
        if (!placements[i].sharded && placements[i].position != 0)
            return 0; /* another rank has the same */
    }
    if (whole->shape.rank == 0 && whole->piece_count > 0)
        return 0;
    if (whole->shape.rank == 0)
        return model_add_piece(
            load->model, whole,
            &(struct model_piece){.file = load->file, .offset = local->offset, .count = 1});
    return empty ? 0 : rank_add_boxes(load, whole, local, rows);
}

static errint rank_add_dtensor(struct rank_load *load, const char *name, const struct pickle_node *node,
                               const struct pickle_node *local_node)
{
    struct placement placements[RANK_MESH_MAX] = {0};
    int64_t sizes[TENSOR_RANK_MAX], world_size = 1;
    struct tensor_shape shape;
    struct tensor local;
    struct model_tensor *whole;
    struct format_problem problem = {.offset = -1};
    size_t count;
    const char *wrong =
        rank_read_spec(load, torch_file_attribute(node, "_spec"), sizes, &shape, placements, &count);
    if (wrong)
        return rank_note(load, name, wrong);
    for (size_t i = 0; i < count; i++) {
        if (__builtin_mul_overflow(world_size, placements[i].size, &world_size))
            return rank_note(load, name, "its mesh is too large");
    }
    if (world_size > load->world_size)
        load->world_size = world_size;
    load->repeats = world_size < load->file_count;
    int result = torch_file_tensor(&load->torch, local_node, &local, &problem);
    if (result)
        return result == FORMAT_FOREIGN ? rank_note(load, name, problem.text) : result;
    errint error = rank_find_tensor(load, name, local.type, &shape, &whole);
    return error || !whole ? error : rank_place_local(load, whole, &local, placements, count);
}

/* -- ShardedTensor ----------------------------------------------------------------------------------------
 */

/* The state of a ShardedTensor: (local shards, metadata, ...); NULL: it is none. */
static const struct pickle_node *rank_sharded_state(const struct pickle_node *node)
{
    if (!pickle_is_call(node, "torch._tensor _rebuild_from_type_v2") || node->count != 4)
        return NULL;
    const struct pickle_node *state = node->items[3];
    return pickle_is_global(node->items[1], "torch.distributed._shard.sharded_tensor.api ShardedTensor") &&
                   pickle_count(state) >= 2
               ? state
               : NULL;
}

static errint rank_add_shard(struct rank_load *load, struct model_tensor *whole,
                             const struct pickle_node *shard)
{
    int64_t starts[TENSOR_RANK_MAX], sizes[TENSOR_RANK_MAX];
    struct tensor_shape start_shape, shape;
    struct tensor local;
    struct format_problem problem = {.offset = -1};
    const struct pickle_node *metadata = pickle_attribute(shard, "metadata");
    if (!rank_read_shape(pickle_attribute(metadata, "shard_offsets"), starts, &start_shape) ||
        !rank_read_shape(pickle_attribute(metadata, "shard_sizes"), sizes, &shape) ||
        start_shape.rank != whole->shape.rank || shape.rank != whole->shape.rank || shape.rank == 0)
        return rank_note(load, whole->name, "expected the place of each part");
    int result = torch_file_tensor(&load->torch, pickle_attribute(shard, "tensor"), &local, &problem);
    if (result)
        return result == FORMAT_FOREIGN ? rank_note(load, whole->name, problem.text) : result;
    if (local.type != whole->type || !tensor_shape_equal(&local.shape, &shape))
        return rank_note(load, whole->name, "expected the type and shape that its place says, found another");
    load->repeats = true;
    return rank_add_box(load, whole,
                        &(struct model_piece){.file = load->file,
                                              .offset = local.offset,
                                              .starts = starts,
                                              .sizes = sizes,
                                              .strides = local.strides});
}

static errint rank_add_sharded(struct rank_load *load, const char *name, const struct pickle_node *state)
{
    int64_t sizes[TENSOR_RANK_MAX];
    struct tensor_shape shape;
    enum tensor_type type;
    struct model_tensor *whole;
    const struct pickle_node *shards = pickle_item(state, 0), *metadata = pickle_item(state, 1);
    const struct pickle_node *properties = pickle_attribute(metadata, "tensor_properties");
    const struct pickle_node *fields = properties ? properties->state : NULL;
    const struct pickle_node *dtype = pickle_item(fields, 0);
    if (!rank_read_shape(pickle_attribute(metadata, "size"), sizes, &shape))
        return rank_note(load, name, "expected the shape of the whole tensor");
    if (!dtype || dtype->kind != PICKLE_GLOBAL || strncmp(dtype->text, "torch ", 6) != 0 ||
        !tensor_type_parse(dtype->text + 6, strlen(dtype->text + 6), &type))
        return rank_note(load, name, "expected torch's name of an element type");
    errint error = rank_find_tensor(load, name, type, &shape, &whole);
    for (size_t i = 0; whole && i < pickle_count(shards) && !error; i++)
        error = rank_add_shard(load, whole, pickle_item(shards, i));
    return error;
}

/* -- files ------------------------------------------------------------------------------------------------
 */

/* A tensor that is whole: the first file's is taken. */
static errint rank_add_whole(struct rank_load *load, const char *name, const struct pickle_node *node)
{
    struct tensor tensor;
    struct format_problem problem = {.offset = -1};
    struct model_tensor *known = model_find_tensor(load->model, name), *whole;
    int result = torch_file_tensor(&load->torch, node, &tensor, &problem);
    if (result)
        return result == FORMAT_FOREIGN ? rank_note(load, name, problem.text) : result;
    return known ? rank_find_tensor(load, name, tensor.type, &tensor.shape, &whole)
                 : model_add_whole(load->model, &tensor, name, load->file);
}

static errint rank_add_entry(struct rank_load *load, const char *name, const struct pickle_node *node)
{
    const struct pickle_node *local = torch_file_attribute(node, "_local_tensor");
    const struct pickle_node *sharded = rank_sharded_state(node);
    if (local)
        return rank_add_dtensor(load, name, node, local);
    if (sharded)
        return rank_add_sharded(load, name, sharded);
    return torch_file_is_tensor(node) ? rank_add_whole(load, name, node) : 0;
}

/* Whether it has flat parameters: the others are views of them then, cut at the same places. */
static bool rank_is_flat(const struct pickle_node *state)
{
    for (size_t i = 0; i < pickle_dict_count(state); i++) {
        const struct pickle_node *name = pickle_dict_key(state, i);
        const char *end = name && name->kind == PICKLE_TEXT ? strrchr(name->text, '.') : NULL;
        if (pickle_is_text(name, "_flat_param") || (end && strcmp(end, "._flat_param") == 0))
            return true;
    }
    return false;
}

static errint rank_add_entries(struct rank_load *load, const char *key)
{
    const struct pickle_node *state = key ? pickle_get(load->torch.root, key) : load->torch.root;
    if (!pickle_is_dict(state))
        return model_add_note(load->model, true, "%s: expected a dictionary of tensors, found %s", load->path,
                              pickle_describe(state));
    load->flat = rank_is_flat(state);
    for (size_t i = 0; i < pickle_dict_count(state) && !load->flat; i++) {
        const struct pickle_node *name = pickle_dict_key(state, i);
        if (!name || name->kind != PICKLE_TEXT || memchr(name->text, 0, name->length))
            continue;
        errint error = rank_add_entry(load, name->text, pickle_dict_value(state, i));
        if (error)
            return error;
    }
    return 0;
}

static errint rank_load_file(struct rank_load *load, const struct rank_file *file, const char *key)
{
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    load->path = file->path;
    load->rank = file->rank;
    errint error = folder_open(load->folder, file->path, &source);
    if (error == -ENOENT || error == -EISDIR)
        return model_add_note(load->model, true, "%s is missing", file->path);
    if (error)
        return error;
    int result = torch_file_read(&source, 0, source.size, &load->torch, &problem);
    if (result)
        error = result == FORMAT_FOREIGN ? model_add_problem(load->model, file->path, &problem) : result;
    else
        error = model_add_file(load->model, file->path, source.size, &load->file);
    if (!result && !error)
        error = rank_add_entries(load, key);
    folder_close(load->folder, &source);
    torch_file_release(&load->torch);
    return error;
}

errint rank_files_load(const struct folder *folder, const struct rank_file *files, size_t count,
                       const char *key, struct model *model)
{
    __attribute__((cleanup(rank_load_release))) struct rank_load load = {
        .folder = folder,
        .model = model,
        .file_count = (int64_t)count,
        .scratch = {.limit = (size_t)64 << 20}};
    for (size_t i = 0; i < count; i++) {
        errint error = rank_load_file(&load, &files[i], key);
        if (error)
            return error;
        if (load.flat)
            return model_add_note(
                model, true,
                "its parameters are flat (LOCAL_STATE_DICT): their shapes are in none of the files");
    }
    if (load.world_size > model->world_size)
        model->world_size = load.world_size;
    if (load.flat)
        return model_add_note(
            model, true, "its parameters are flat (LOCAL_STATE_DICT): their shapes are in none of the files");
    if (load.world_size > (int64_t)count)
        return model_add_note(model, true, "expected the files of %" PRId64 " ranks, found %zu",
                              load.world_size, count);
    return 0;
}
