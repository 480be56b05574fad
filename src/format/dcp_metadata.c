/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .metadata file of torch.distributed.checkpoint.
 *
 * It is one Metadata object. `state_dict_metadata` maps each item's name to its type, shape and boxes;
 * `storage_data` maps (name, starts of the box) to file, offset and length; `planner_data` maps the name to
 * the keys that it was flattened from. Objects are what a pickle's BUILD gave them: a dictionary, or for
 * TensorProperties a tuple whose first element is the element type.
 *
 * The places are sorted and searched, so that no choice of names makes it slow.
 */
#include "format/dcp_metadata.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/pickle.h"

enum { DCP_ARENA = 1 << 30, DCP_GROWTH = 64, DCP_FILE_NAME_MAX = 255 };

/* One entry of storage_data. */
struct dcp_place {
    const char *name;
    const char *file;
    const char *transform;
    const int64_t *starts; /* NULL: not given */
    uint32_t rank;
    uint32_t file_index;
    int64_t offset, length;
};

struct dcp_reader {
    struct dcp_metadata *out;
    struct format_problem *problem;
    const struct pickle_node *planner;
    struct dcp_place *places;
    size_t place_count;
};

/* -- pieces of nodes --------------------------------------------------------------------------------------
 */

static int dcp_copy_text(struct dcp_reader *reader, const char *text, size_t length, const char **out)
{
    *out = arena_copy_text(&reader->out->arena, text, length);
    return *out ? 0 : -ENOMEM;
}

/* A name: text without a NUL inside. */
static int dcp_read_name(struct dcp_reader *reader, const struct pickle_node *node, const char *what,
                         const char **out)
{
    if (!node || node->kind != PICKLE_TEXT || memchr(node->text, 0, node->length))
        return format_problem_set(reader->problem, -1, "expected %s as a text, found something else", what);
    return dcp_copy_text(reader, node->text, node->length, out);
}

/* A torch.Size, or a tuple or list of whole numbers that are not negative. */
static int dcp_read_sizes(struct dcp_reader *reader, const struct pickle_node *node, const char *name,
                          const int64_t **out, uint32_t *rank)
{
    if (pickle_is_call(node, "torch Size"))
        node = node->count > 0 ? node->items[0] : NULL;
    if (!node || (node->kind != PICKLE_TUPLE && node->kind != PICKLE_LIST) || node->count > TENSOR_RANK_MAX)
        return format_problem_set(reader->problem, -1, "item %s: expected a shape of at most %d dimensions",
                                  name, TENSOR_RANK_MAX);
    *rank = (uint32_t)node->count;
    int64_t *sizes = arena_take_array(&reader->out->arena, node->count, sizeof *sizes);
    if (!sizes)
        return -ENOMEM;
    for (size_t i = 0; i < node->count; i++) {
        if (!pickle_integer(node->items[i], &sizes[i]) || sizes[i] < 0)
            return format_problem_set(reader->problem, -1,
                                      "item %s: expected a size or start >= 0 for dimension %zu", name, i);
    }
    *out = sizes;
    return 0;
}

/* -- where the boxes are ----------------------------------------------------------------------------------
 */

bool dcp_metadata_is_file_name(const char *name, size_t length)
{
    if (length == 0 || length > DCP_FILE_NAME_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    }
    return true;
}

/* The first of the transformations that a range went through. */
static int dcp_read_transform(struct dcp_reader *reader, const struct pickle_node *list, const char **out)
{
    *out = NULL;
    if (!list || list->kind == PICKLE_NONE || (list->kind == PICKLE_LIST && list->count == 0))
        return 0;
    const struct pickle_node *first = pickle_item(list, 0);
    if (!first || first->kind != PICKLE_TEXT)
        return dcp_copy_text(reader, "?", 1, out);
    return dcp_copy_text(reader, first->text, strnlen(first->text, first->length), out);
}

static int dcp_read_place(struct dcp_reader *reader, const struct pickle_node *index,
                          const struct pickle_node *info, struct dcp_place *place)
{
    const struct pickle_node *starts = pickle_attribute(index, "offset");
    const struct pickle_node *file = pickle_attribute(info, "relative_path");
    int64_t end;
    int result =
        dcp_read_name(reader, pickle_attribute(index, "fqn"), "the name in a MetadataIndex", &place->name);
    if (!result && starts && starts->kind != PICKLE_NONE)
        result = dcp_read_sizes(reader, starts, place->name, &place->starts, &place->rank);
    if (result)
        return result;
    if (!file || file->kind != PICKLE_TEXT || !dcp_metadata_is_file_name(file->text, file->length))
        return format_problem_set(reader->problem, -1,
                                  "item %s: expected the name of a file beside .metadata", place->name);
    if (!pickle_integer(pickle_attribute(info, "offset"), &place->offset) || place->offset < 0 ||
        !pickle_integer(pickle_attribute(info, "length"), &place->length) || place->length < 0 ||
        __builtin_add_overflow(place->offset, place->length, &end))
        return format_problem_set(reader->problem, -1, "item %s: expected an offset and a length in %s",
                                  place->name, file->text);
    result = dcp_copy_text(reader, file->text, file->length, &place->file);
    if (!result)
        result =
            dcp_read_transform(reader, pickle_attribute(info, "transform_descriptors"), &place->transform);
    return result;
}

static int dcp_compare_places(const void *left, const void *right)
{
    const struct dcp_place *a = left, *b = right;
    int order = strcmp(a->name, b->name);
    if (order)
        return order;
    if (!a->starts || !b->starts)
        return (a->starts != NULL) - (b->starts != NULL);
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    for (uint32_t i = 0; i < a->rank; i++) {
        if (a->starts[i] != b->starts[i])
            return a->starts[i] < b->starts[i] ? -1 : 1;
    }
    return 0;
}

static int dcp_compare_files(const void *left, const void *right)
{
    return strcmp(((const struct dcp_place *)left)->file, ((const struct dcp_place *)right)->file);
}

/* Gives each file a number. */
static errint dcp_number_files(struct dcp_reader *reader)
{
    struct dcp_metadata *out = reader->out;
    qsort(reader->places, reader->place_count, sizeof *reader->places, dcp_compare_files);
    for (size_t i = 0; i < reader->place_count; i++)
        out->file_count += i == 0 || dcp_compare_files(&reader->places[i - 1], &reader->places[i]) != 0;
    out->files = arena_take_array(&out->arena, out->file_count, sizeof *out->files);
    out->file_sizes = arena_take_array(&out->arena, out->file_count, sizeof *out->file_sizes);
    if (!out->files || !out->file_sizes)
        return -ENOMEM;
    uint32_t count = 0;
    for (size_t i = 0; i < reader->place_count; i++) {
        struct dcp_place *place = &reader->places[i];
        if (count == 0 || strcmp(out->files[count - 1], place->file) != 0)
            out->files[count++] = place->file;
        place->file_index = count - 1;
        int64_t end = place->offset + place->length;
        if (end > out->file_sizes[count - 1])
            out->file_sizes[count - 1] = end;
    }
    return 0;
}

static int dcp_read_places(struct dcp_reader *reader, const struct pickle_node *storage)
{
    size_t count = pickle_dict_count(storage);
    reader->places = arena_take_array(&reader->out->arena, count, sizeof *reader->places);
    if (!reader->places || count >= DCP_NO_FILE)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        int result = dcp_read_place(reader, pickle_dict_key(storage, i), pickle_dict_value(storage, i),
                                    &reader->places[i]);
        if (result)
            return result;
    }
    reader->place_count = count;
    errint error = dcp_number_files(reader);
    if (error)
        return error;
    qsort(reader->places, count, sizeof *reader->places, dcp_compare_places);
    for (size_t i = 1; i < count; i++) {
        if (dcp_compare_places(&reader->places[i - 1], &reader->places[i]) == 0)
            return format_problem_set(reader->problem, -1,
                                      "item %s: expected one place for each part, found two",
                                      reader->places[i].name);
    }
    return 0;
}

/* The place of a box; a tensor in one piece may have one that does not say where in the tensor it starts. */
static const struct dcp_place *dcp_find_place(const struct dcp_reader *reader, const struct dcp_item *item,
                                              const struct dcp_chunk *chunk)
{
    struct dcp_place key = {.name = item->name, .starts = chunk->starts, .rank = item->shape.rank};
    const struct dcp_place *found =
        bsearch(&key, reader->places, reader->place_count, sizeof key, dcp_compare_places);
    if (found || item->chunk_count != 1)
        return found;
    key.starts = NULL;
    return bsearch(&key, reader->places, reader->place_count, sizeof key, dcp_compare_places);
}

/* -- elements of half a byte ------------------------------------------------------------------------------
 */

/* torch counts the bytes of float4_e2m1fn_x2, format/tensor.h the elements. */
static int dcp_double_last(struct dcp_reader *reader, const struct dcp_item *item, const int64_t **sizes,
                           uint32_t rank)
{
    if (item->foreign_type || item->type != TENSOR_F4 || rank == 0)
        return 0;
    int64_t *doubled = arena_take_array(&reader->out->arena, rank, sizeof *doubled);
    if (!doubled)
        return -ENOMEM;
    memcpy(doubled, *sizes, rank * sizeof *doubled);
    if (__builtin_mul_overflow(doubled[rank - 1], 2, &doubled[rank - 1]))
        return format_problem_set(reader->problem, -1, "item %s: its last dimension is too large",
                                  item->name);
    *sizes = doubled;
    return 0;
}

/* -- items ------------------------------------------------------------------------------------------------
 */

static int dcp_read_chunk(struct dcp_reader *reader, const struct pickle_node *node,
                          const struct dcp_item *item, struct dcp_chunk *chunk)
{
    uint32_t start_count, size_count;
    int result =
        dcp_read_sizes(reader, pickle_attribute(node, "offsets"), item->name, &chunk->starts, &start_count);
    if (!result)
        result =
            dcp_read_sizes(reader, pickle_attribute(node, "sizes"), item->name, &chunk->sizes, &size_count);
    if (result)
        return result;
    if (start_count != item->shape.rank || size_count != item->shape.rank)
        return format_problem_set(reader->problem, -1,
                                  "item %s: expected a part of %" PRIu32 " dimensions, found %" PRIu32
                                  " starts and %" PRIu32 " sizes",
                                  item->name, item->shape.rank, start_count, size_count);
    for (uint32_t i = 0; i < item->shape.rank; i++) {
        if (chunk->starts[i] > item->shape.sizes[i] ||
            chunk->sizes[i] > item->shape.sizes[i] - chunk->starts[i])
            return format_problem_set(reader->problem, -1,
                                      "item %s: expected a part inside of dimension %" PRIu32
                                      " of size %" PRId64 ", found %" PRId64 " from %" PRId64 " on",
                                      item->name, i, item->shape.sizes[i], chunk->sizes[i], chunk->starts[i]);
    }
    const struct dcp_place *place = dcp_find_place(reader, item, chunk);
    chunk->file = place ? place->file_index : DCP_NO_FILE;
    if (place) {
        chunk->offset = place->offset;
        chunk->length = place->length;
        chunk->transform = place->transform;
    }
    result = dcp_double_last(reader, item, &chunk->starts, item->shape.rank);
    return result ? result : dcp_double_last(reader, item, &chunk->sizes, item->shape.rank);
}

/* The first of TensorProperties' fields, which are pickled as a tuple. */
static int dcp_read_type(struct dcp_reader *reader, const struct pickle_node *properties,
                         struct dcp_item *item)
{
    const struct pickle_node *fields = properties ? properties->state : NULL;
    const struct pickle_node *type = fields && fields->kind == PICKLE_TUPLE && fields->count > 0
                                         ? fields->items[0]
                                         : pickle_attribute(properties, "dtype");
    if (!type || type->kind != PICKLE_GLOBAL || strncmp(type->text, "torch ", 6) != 0)
        return format_problem_set(reader->problem, -1, "item %s: expected torch's name of an element type",
                                  item->name);
    const char *name = type->text + 6;
    if (tensor_type_parse(name, strlen(name), &item->type))
        return 0;
    return dcp_copy_text(reader, name, strlen(name), &item->foreign_type);
}

static int dcp_read_tensor(struct dcp_reader *reader, const struct pickle_node *node, struct dcp_item *item)
{
    const struct pickle_node *chunks = pickle_attribute(node, "chunks");
    item->is_tensor = true;
    int result = dcp_read_type(reader, pickle_attribute(node, "properties"), item);
    if (!result)
        result = dcp_read_sizes(reader, pickle_attribute(node, "size"), item->name, &item->shape.sizes,
                                &item->shape.rank);
    if (result)
        return result;
    if (!chunks || chunks->kind != PICKLE_LIST)
        return format_problem_set(reader->problem, -1, "item %s: expected a list of its parts", item->name);
    item->chunk_count = chunks->count;
    item->chunks = arena_take_array(&reader->out->arena, chunks->count, sizeof *item->chunks);
    if (!item->chunks)
        return -ENOMEM;
    for (size_t i = 0; i < chunks->count && !result; i++)
        result = dcp_read_chunk(reader, chunks->items[i], item, &item->chunks[i]);
    return result ? result : dcp_double_last(reader, item, &item->shape.sizes, item->shape.rank);
}

/* Keys are texts, and the numbers of a list's elements. */
static int dcp_read_path(struct dcp_reader *reader, const struct pickle_node *node, struct dcp_item *item)
{
    size_t count = pickle_count(node);
    if (count == 0)
        return 0;
    item->path = arena_take_array(&reader->out->arena, count, sizeof *item->path);
    if (!item->path)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct pickle_node *key = pickle_item(node, i);
        char number[24];
        int64_t value;
        int result;
        if (pickle_integer(key, &value)) {
            int length = snprintf(number, sizeof number, "%" PRId64, value);
            result = dcp_copy_text(reader, number, (size_t)length, &item->path[i]);
        } else {
            result = dcp_read_name(reader, key, "a key of planner_data", &item->path[i]);
        }
        if (result)
            return result;
    }
    item->path_count = count;
    return 0;
}

/* What kind of item it is, and what is kept of it. Earlier versions have these classes elsewhere. */
static int dcp_read_item(struct dcp_reader *reader, const struct pickle_node *key,
                         const struct pickle_node *value, struct dcp_item *item)
{
    int result = dcp_read_name(reader, key, "an item's name", &item->name);
    if (result)
        return result;
    if (pickle_is_call(value, "torch.distributed.checkpoint.metadata BytesStorageMetadata"))
        return 0;
    if (pickle_is_call(value, "torch.distributed.checkpoint.metadata TensorStorageMetadata"))
        return dcp_read_tensor(reader, value, item);
    return format_problem_set(reader->problem, -1, "item %s: expected a tensor's or an object's description",
                              item->name);
}

/* A dictionary of names, sorted: planner_data is asked once for each item. */
struct dcp_path_entry {
    const char *name;
    const struct pickle_node *path;
};

static int dcp_compare_paths(const void *left, const void *right)
{
    return strcmp(((const struct dcp_path_entry *)left)->name, ((const struct dcp_path_entry *)right)->name);
}

static int dcp_read_paths(struct dcp_reader *reader)
{
    size_t count = pickle_dict_count(reader->planner), kept = 0;
    cleanup_free struct dcp_path_entry *entries = calloc(count + 1, sizeof *entries);
    if (!entries)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct pickle_node *key = pickle_dict_key(reader->planner, i);
        if (key && key->kind == PICKLE_TEXT)
            entries[kept++] = (struct dcp_path_entry){key->text, pickle_dict_value(reader->planner, i)};
    }
    qsort(entries, kept, sizeof *entries, dcp_compare_paths);
    for (size_t i = 0; i < reader->out->item_count; i++) {
        struct dcp_item *item = &reader->out->items[i];
        struct dcp_path_entry wanted = {.name = item->name};
        const struct dcp_path_entry *entry =
            bsearch(&wanted, entries, kept, sizeof *entries, dcp_compare_paths);
        int result = entry ? dcp_read_path(reader, entry->path, item) : 0;
        if (result)
            return result;
    }
    return 0;
}

static int dcp_read_items(struct dcp_reader *reader, const struct pickle_node *items)
{
    struct dcp_metadata *out = reader->out;
    size_t count = pickle_dict_count(items);
    out->items = arena_take_array(&out->arena, count, sizeof *out->items);
    if (!out->items)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        int result =
            dcp_read_item(reader, pickle_dict_key(items, i), pickle_dict_value(items, i), &out->items[i]);
        if (result)
            return result;
    }
    out->item_count = count;
    return dcp_read_paths(reader);
}

/* -- the file ---------------------------------------------------------------------------------------------
 */

static int dcp_read_root(const struct pickle_node *root, struct dcp_metadata *out,
                         struct format_problem *problem)
{
    const struct pickle_node *items = pickle_attribute(root, "state_dict_metadata");
    const struct pickle_node *storage = pickle_attribute(root, "storage_data");
    if (!pickle_is_call(root, "torch.distributed.checkpoint.metadata Metadata") || !pickle_is_dict(items))
        return format_problem_set(problem, -1, "expected the Metadata of torch.distributed.checkpoint");
    if (!pickle_is_dict(storage))
        return format_problem_set(problem, -1, "expected storage_data as a dictionary: another writer's");
    struct dcp_reader reader = {
        .out = out, .problem = problem, .planner = pickle_attribute(root, "planner_data")};
    int result = dcp_read_places(&reader, storage);
    return result ? result : dcp_read_items(&reader, items);
}

int dcp_metadata_read(const struct format_source *source, struct dcp_metadata *out,
                      struct format_problem *problem)
{
    /* What a part takes here is a few times what it takes there; more is one part that is named often. */
    size_t limit = source->size < DCP_ARENA / DCP_GROWTH ? (size_t)source->size * DCP_GROWTH : DCP_ARENA;
    *out = (struct dcp_metadata){.arena = {.limit = limit}};
    cleanup_arena struct arena nodes = {.limit = DCP_ARENA};
    const struct pickle_node *root;
    int64_t end;
    int result = pickle_read(source, 0, source->size, &pickle_default_limits, &nodes, &root, &end, problem);
    if (!result)
        result = dcp_read_root(root, out, problem);
    if (result == -ENOMEM && out->arena.taken > out->arena.limit / 4)
        return format_problem_set(problem, -1,
                                  "expected parts that take %zu bytes of memory at most, found more",
                                  out->arena.limit);
    return result;
}

void dcp_metadata_release(struct dcp_metadata *metadata)
{
    arena_release(&metadata->arena);
    *metadata = (struct dcp_metadata){0};
}
