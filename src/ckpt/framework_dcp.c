/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch.distributed.checkpoint: a .metadata beside __RANK_N.distcp files. What FSDP writes as
 * SHARDED_STATE_DICT (accelerate, in pytorch_model_fsdp_N), dist_cp.save with any state, torchtitan, and
 * Megatron's torch_dist.
 *
 * Every part of a tensor is a torch.save archive of its own inside a .distcp file. The metadata says which
 * range that is; what is in it is read too, since only that says where the bytes start and how they lie.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/adapter.h"
#include "ckpt/dcp_names.h"
#include "ckpt/framework.h"
#include "ckpt/tied.h"
#include "format/torch_file.h"

enum { DCP_PATH_MAX = 512 };

/* One part of a tensor that is the model's. */
struct dcp_part {
    const struct dcp_item *item;
    const struct dcp_chunk *chunk;
    size_t tensor; /* index of model.tensors */
};

struct dcp_load {
    const struct folder *folder;
    const char *directory; /* in the folder; "": the folder itself */
    struct dcp_metadata metadata;
    struct folder_listing listing; /* of the directory */
    struct dcp_part *parts;
    size_t part_count;
    const char **names; /* of the metadata's items */
    struct model *model;
    size_t unreadable; /* parts of the file that is read, or of none: the first is told, the others are
                          counted */
};

static void dcp_load_release(struct dcp_load *load)
{
    dcp_metadata_release(&load->metadata);
    folder_listing_release(&load->listing);
    free(load->parts);
}

static void dcp_path(const struct dcp_load *load, const char *name, char path[DCP_PATH_MAX])
{
    snprintf(path, DCP_PATH_MAX, "%s%s%s", load->directory, *load->directory ? "/" : "", name);
}

/* -- which directory --------------------------------------------------------------------------------------
 */

/* The N of a name like pytorch_model_fsdp_N; false: it is another name. */
static bool dcp_parse_number(const char *name, const char *prefix, const char *suffix, int64_t *number)
{
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9')
        return false;
    char *end;
    errno = 0;
    *number = strtoll(name + length, &end, 10);
    return errno == 0 && strcmp(end, suffix) == 0;
}

/* The rank in __RANK_N.distcp. */
static bool dcp_parse_rank(const char *name, int64_t *rank)
{
    char *end;
    if (strncmp(name, "__", 2) != 0 || name[2] < '0' || name[2] > '9')
        return false;
    errno = 0;
    *rank = strtoll(name + 2, &end, 10);
    int64_t number;
    return errno == 0 && *rank < INT32_MAX && dcp_parse_number(end, "_", ".distcp", &number);
}

static bool dcp_has_shards(const struct folder_listing *listing)
{
    int64_t rank;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && dcp_parse_rank(listing->at[i].name, &rank))
            return true;
    }
    return false;
}

static const struct folder_entry *dcp_find_model_directory(const struct folder_listing *listing)
{
    int64_t number;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->at[i].directory &&
            dcp_parse_number(listing->at[i].name, "pytorch_model_fsdp_", "", &number))
            return &listing->at[i];
    }
    return NULL;
}

/* Whether a file called .metadata is a pickle; other programs have files of that name. */
static int dcp_is_metadata(const struct folder *folder)
{
    struct format_source source;
    uint8_t first = 0;
    errint error = folder_open(folder, ".metadata", &source);
    if (error == -ENOENT || error == -EISDIR)
        return 0;
    if (error)
        return error;
    if (source.size > 1)
        error = source.read(source.context, &first, 1, 0);
    folder_close(folder, &source);
    return error ? error : first == 0x80;
}

static int dcp_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    if (dcp_find_model_directory(listing) || dcp_has_shards(listing))
        return 1;
    const struct folder_entry *metadata = folder_find(listing, ".metadata");
    return metadata && !metadata->directory ? dcp_is_metadata(folder) : 0;
}

/* -- the metadata -----------------------------------------------------------------------------------------
 */

/* False when there is none that can be read; why is noted then. */
static errint dcp_load_metadata(struct dcp_load *load, bool *usable)
{
    char path[DCP_PATH_MAX];
    struct format_source source;
    struct format_problem problem = {0};
    *usable = false;
    dcp_path(load, ".metadata", path);
    errint error = folder_open(load->folder, path, &source);
    if (error == -ENOENT || error == -EISDIR)
        return model_add_note(load->model, true,
                              folder_find(&load->listing, "__0.metadata")
                                  ? "%s is missing: each rank has its own, which is not understood"
                                  : "%s is missing: the save did not end, or the file was deleted",
                              path);
    if (error)
        return error;
    int result = dcp_metadata_read(&source, &load->metadata, &problem);
    folder_close(load->folder, &source);
    *usable = result == 0;
    return result == FORMAT_FOREIGN ? model_add_problem(load->model, path, &problem) : result;
}

/* Adds the tensors, without their parts yet. */
static errint dcp_load_tensors(struct dcp_load *load)
{
    const struct dcp_metadata *metadata = &load->metadata;
    size_t count = 0;
    for (size_t i = 0; i < metadata->item_count; i++)
        count += load->names[i] ? metadata->items[i].chunk_count : 0;
    load->parts = calloc(count + 1, sizeof *load->parts);
    if (!load->parts)
        return -ENOMEM;
    for (size_t i = 0; i < metadata->item_count; i++) {
        const struct dcp_item *item = &metadata->items[i];
        struct model_tensor *tensor;
        if (!load->names[i])
            continue;
        errint error = item->foreign_type
                           ? model_add_note(load->model, true, "%s: its element type, torch.%s, is not known",
                                            load->names[i], item->foreign_type)
                           : model_add_tensor(load->model, load->names[i], item->type, &item->shape, &tensor);
        if (error)
            return error;
        for (size_t chunk = 0; !item->foreign_type && tensor && chunk < item->chunk_count; chunk++)
            load->parts[load->part_count++] =
                (struct dcp_part){item, &item->chunks[chunk], load->model->tensor_count - 1};
    }
    return 0;
}

/* -- the parts --------------------------------------------------------------------------------------------
 */

static bool dcp_tell_part(struct dcp_load *load)
{
    return load->unreadable++ == 0;
}

/* How many there were besides the one that was told. */
static errint dcp_note_others(struct dcp_load *load, const char *path)
{
    size_t others = load->unreadable > 0 ? load->unreadable - 1 : 0;
    load->unreadable = 0;
    if (others == 0)
        return 0;
    return model_add_note(load->model, true, "%s: %zu more part%s of the model cannot be read", path, others,
                          others == 1 ? "" : "s");
}

static errint dcp_note_part(struct dcp_load *load, const struct dcp_part *part, const char *path,
                            const struct format_problem *problem)
{
    if (!dcp_tell_part(load))
        return 0;
    if (problem->offset >= 0)
        return model_add_note(load->model, true, "%s, offset %" PRId64 ": %s: %s", path, problem->offset,
                              part->item->name, problem->text);
    return model_add_note(load->model, true, "%s, offset %" PRId64 ": %s: %s", path, part->chunk->offset,
                          part->item->name, problem->text);
}

/* What the archive holds has to be what the metadata says. */
static int dcp_check_tensor(const struct dcp_part *part, const struct tensor *tensor,
                            struct format_problem *problem)
{
    struct tensor_shape expected = {part->item->shape.rank, part->chunk->sizes};
    if (tensor->type != part->item->type)
        return format_problem_set(problem, -1, "expected elements of %s, found %s",
                                  tensor_type_torch_name(part->item->type),
                                  tensor_type_torch_name(tensor->type));
    if (!tensor_shape_equal(&expected, &tensor->shape))
        return format_problem_set(problem, -1, "expected a tensor of the part's shape, found another shape");
    return 0;
}

/* `again`: its bytes were read for another one. */
static errint dcp_load_part(struct dcp_load *load, const struct dcp_part *part,
                            const struct format_source *source, uint32_t file, const char *path, bool again)
{
    const struct dcp_chunk *chunk = part->chunk;
    cleanup_torch_file struct torch_file archive = {0};
    struct format_problem problem = {.offset = -1};
    struct tensor tensor;
    int result;
    if (again)
        result = format_problem_set(&problem, -1, "it lies in another part");
    else if (chunk->length > source->size || chunk->offset > source->size - chunk->length)
        result =
            format_problem_set(&problem, -1, "expected %" PRId64 " bytes, found the file's end at %" PRId64,
                               chunk->length, source->size);
    else
        result = torch_file_read(source, chunk->offset, chunk->length, &archive, &problem);
    if (!result)
        result = torch_file_tensor(&archive, archive.root, &tensor, &problem);
    if (!result)
        result = dcp_check_tensor(part, &tensor, &problem);
    if (result)
        return result == FORMAT_FOREIGN ? dcp_note_part(load, part, path, &problem) : result;
    struct model_piece piece = {.file = file, .offset = tensor.offset, .count = 1};
    if (tensor.shape.rank > 0) {
        piece.starts = chunk->starts;
        piece.sizes = chunk->sizes;
        piece.strides = tensor.strides;
    }
    return model_add_piece(load->model, &load->model->tensors[part->tensor], &piece);
}

static int dcp_compare_parts(const void *left, const void *right)
{
    const struct dcp_chunk *a = ((const struct dcp_part *)left)->chunk,
                           *b = ((const struct dcp_part *)right)->chunk;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static bool dcp_is_empty(const struct dcp_part *part)
{
    for (uint32_t i = 0; i < part->item->shape.rank; i++) {
        if (part->chunk->sizes[i] == 0)
            return true;
    }
    return false;
}

/* Whether the part can be read at all; why not is noted. Empty parts have no bytes to be read. */
static errint dcp_check_part(struct dcp_load *load, const struct dcp_part *part, bool *readable)
{
    *readable = false;
    if (dcp_is_empty(part))
        return 0;
    *readable = part->chunk->file != DCP_NO_FILE && !part->chunk->transform;
    if (*readable || !dcp_tell_part(load))
        return 0;
    if (part->chunk->file == DCP_NO_FILE)
        return model_add_note(load->model, true, ".metadata: %s: expected a file for each part, found none",
                              part->item->name);
    return model_add_note(load->model, true, "%s: its parts are encoded as %s, which is not understood",
                          part->item->name, part->chunk->transform);
}

/* Whether both are the same box: replicas that were saved more than once are listed more than once. */
static bool dcp_is_repeated(const struct dcp_part *one, const struct dcp_part *other)
{
    size_t bytes = one->item->shape.rank * sizeof *one->chunk->starts;
    return one->item == other->item && one->chunk->file == other->chunk->file &&
           one->chunk->offset == other->chunk->offset &&
           memcmp(one->chunk->starts, other->chunk->starts, bytes) == 0 &&
           memcmp(one->chunk->sizes, other->chunk->sizes, bytes) == 0;
}

/* All parts of one file: it is opened once, and read from front to back. */
static errint dcp_load_file(struct dcp_load *load, const struct dcp_part *parts, size_t count)
{
    const char *name = load->metadata.files[parts->chunk->file];
    char path[DCP_PATH_MAX];
    struct format_source source;
    uint32_t file;
    dcp_path(load, name, path);
    errint error = folder_open(load->folder, path, &source);
    if (error == -ENOENT || error == -EISDIR || error == -EINVAL)
        return model_add_note(load->model, true, "%s is missing: %zu part%s of the model %s in it", path,
                              count, count == 1 ? "" : "s", count == 1 ? "is" : "are");
    if (error)
        return error;
    error = model_add_file(load->model, path, source.size, &file);
    int64_t end = 0;
    for (size_t i = 0; i < count && !error; i++) {
        const struct dcp_chunk *chunk = parts[i].chunk;
        if (i > 0 && dcp_is_repeated(&parts[i - 1], &parts[i]))
            continue;
        /* Each byte is read once, whatever the metadata says. */
        error = dcp_load_part(load, &parts[i], &source, file, path, chunk->offset < end);
        if (chunk->offset + chunk->length > end)
            end = chunk->offset + chunk->length;
    }
    if (!error)
        error = dcp_note_others(load, path);
    folder_close(load->folder, &source);
    return error;
}

static errint dcp_load_parts(struct dcp_load *load)
{
    size_t kept = 0;
    for (size_t i = 0; i < load->part_count; i++) {
        bool readable;
        errint error = dcp_check_part(load, &load->parts[i], &readable);
        if (error)
            return error;
        if (readable)
            load->parts[kept++] = load->parts[i];
    }
    load->part_count = kept;
    errint error = dcp_note_others(load, ".metadata");
    if (error)
        return error;
    qsort(load->parts, kept, sizeof *load->parts, dcp_compare_parts);
    for (size_t first = 0, last; first < kept; first = last) {
        for (last = first; last < kept && load->parts[last].chunk->file == load->parts[first].chunk->file;)
            last++;
        error = dcp_load_file(load, &load->parts[first], last - first);
        if (error)
            return error;
    }
    return 0;
}

/* -- what is said about it --------------------------------------------------------------------------------
 */

static int dcp_compare_names(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/*
 * The ranks that wrote: those whose files the metadata names, and those that had nothing to write and left an
 * empty file. Other files are left from a save by more ranks.
 */
static errint dcp_count_ranks(struct dcp_load *load)
{
    const char **files = load->metadata.files;
    size_t count = load->metadata.file_count;
    qsort(files, count, sizeof *files, dcp_compare_names);
    for (size_t i = 0; i < load->listing.count; i++) {
        const struct folder_entry *entry = &load->listing.at[i];
        int64_t rank;
        if (entry->directory || !dcp_parse_rank(entry->name, &rank))
            continue;
        bool live = bsearch(&entry->name, files, count, sizeof *files, dcp_compare_names) != NULL;
        if ((live || entry->size == 0) && rank >= load->model->world_size)
            load->model->world_size = rank + 1;
        errint error =
            live || entry->size == 0
                ? 0
                : model_add_note(load->model, false,
                                 "%s belongs to an earlier save: .metadata does not name it", entry->name);
        if (error)
            return error;
    }
    return 0;
}

/* An optimizer's, as a rule; or another model's, which should be known. */
static errint dcp_note_left_out(struct dcp_load *load)
{
    size_t count = 0;
    const char *example = NULL;
    for (size_t i = 0; i < load->metadata.item_count; i++) {
        if (load->names[i] || !load->metadata.items[i].is_tensor)
            continue;
        count++;
        if (!example)
            example = load->metadata.items[i].name;
    }
    if (count == 0 || load->model->tensor_count == 0)
        return 0;
    return model_add_note(load->model, false, "left out as no part of the model: %s%s", example,
                          count > 1 ? ", and others" : "");
}

static errint dcp_describe(struct dcp_load *load)
{
    struct model *model = load->model;
    errint error = adapter_mark(model);
    if (!error)
        error = dcp_note_left_out(load);
    if (error)
        return error;
    if (folder_find(&load->listing, "common.pt")) {
        model->framework = "megatron-torch-dist";
        model->summary = "Megatron-LM, torch_dist";
        return model_add_note(model, false, "names and layout of the tensors are Megatron-LM's");
    }
    if (!*load->directory && model_find_tensor(model, "tok_embeddings.weight")) {
        model->framework = "torchtitan";
        model->summary = "torchtitan";
        return model_add_note(model, false, "names of the tensors are torchtitan's");
    }
    if (model->tensor_count == 0)
        return model_add_note(model, true,
                              load->metadata.item_count == 0
                                  ? "it has no tensors"
                                  : "it has no model: an optimizer's state, or none");
    return 0;
}

/* -- the framework ----------------------------------------------------------------------------------------
 */

static errint dcp_load_all(struct dcp_load *load)
{
    bool usable;
    errint error = folder_read(load->folder, load->directory, &load->listing);
    if (!error)
        error = dcp_load_metadata(load, &usable);
    if (error || !usable)
        return error;
    error = dcp_names_choose(&load->metadata, &load->metadata.arena, &load->names);
    if (!error)
        error = dcp_load_tensors(load);
    if (!error)
        error = dcp_load_parts(load);
    if (!error)
        error = dcp_count_ranks(load);
    if (!error)
        error = dcp_describe(load);
    return error || load->model->missing ? error : tied_mark(load->folder, load->model);
}

/* A second model is saved beside the first; its directory can be asked for by itself. */
static errint dcp_note_other_models(const struct folder_listing *listing, const struct folder_entry *chosen,
                                    struct model *model)
{
    int64_t number;
    for (size_t i = 0; i < listing->count; i++) {
        const struct folder_entry *entry = &listing->at[i];
        if (entry == chosen || !entry->directory ||
            !dcp_parse_number(entry->name, "pytorch_model_fsdp_", "", &number))
            continue;
        errint error = model_add_note(model, false, "%s is another model: its own directory can be assembled",
                                      entry->name);
        if (error)
            return error;
    }
    return 0;
}

static errint dcp_load_model(const struct folder *folder, const struct folder_listing *listing,
                             const struct framework_wish *wish, struct model *model)
{
    (void)wish;
    char directory[DCP_PATH_MAX] = "";
    const struct folder_entry *inside = dcp_find_model_directory(listing);
    if (inside && !folder_find(listing, ".metadata") && !dcp_has_shards(listing)) {
        if (strlen(inside->name) + 2 > sizeof directory)
            return model_add_note(model, true, "%s: its name is too long", inside->name);
        strcpy(directory, inside->name);
        model->framework = "fsdp-sharded";
        model->summary = "FSDP, SHARDED_STATE_DICT";
        errint error = dcp_note_other_models(listing, inside, model);
        if (error)
            return error;
    }
    __attribute__((cleanup(dcp_load_release))) struct dcp_load load = {
        .folder = folder, .directory = directory, .model = model};
    return dcp_load_all(&load);
}

const struct framework framework_dcp = {
    .name = "dcp",
    .summary = "torch.distributed.checkpoint",
    .recognise = dcp_recognise,
    .load = dcp_load_model,
};
