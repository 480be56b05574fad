/* SPDX-License-Identifier: Apache-2.0 */
/* Building a model in memory. What it is made of lives in its arena. */
#include "ckpt/model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void model_begin(struct model *model)
{
    *model = (struct model){.arena = {.limit = MODEL_MEMORY}, .stem = "model", .step = -1};
}

void model_release(struct model *model)
{
    name_table_release(&model->tensors_by_name);
    name_table_release(&model->files_by_path);
    name_table_release(&model->metadata_keys);
    arena_release(&model->arena);
    *model = (struct model){0};
}

/* Makes room for one more; what the array had before stays in the arena. */
static errint model_grow(struct model *model, void **array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return 0;
    size_t larger = *capacity > 0 ? 2 * *capacity : 4;
    void *moved = arena_take_array(&model->arena, larger, size);
    if (!moved)
        return -ENOMEM;
    if (count > 0)
        memcpy(moved, *array, count * size);
    *array = moved;
    *capacity = larger;
    return 0;
}

static errint model_copy_sizes(struct model *model, const int64_t *sizes, uint32_t rank, const int64_t **out)
{
    int64_t *copy = arena_take_array(&model->arena, rank, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    if (rank > 0)
        memcpy(copy, sizes, rank * sizeof *copy);
    *out = copy;
    return 0;
}

/* -- files and tensors ------------------------------------------------------------------------------------
 */

errint model_add_file(struct model *model, const char *path, int64_t size, uint32_t *file)
{
    if (name_table_find(&model->files_by_path, path, file))
        return 0;
    errint error = model_grow(model, (void **)&model->files, model->file_count, &model->file_capacity,
                              sizeof *model->files);
    char *copy = error ? NULL : arena_copy_text(&model->arena, path, strlen(path));
    if (!copy || model->file_count >= UINT32_MAX)
        return -ENOMEM;
    *file = (uint32_t)model->file_count;
    error = name_table_add(&model->files_by_path, copy, *file);
    if (!error)
        model->files[model->file_count++] = (struct model_file){.path = copy, .size = size};
    return error;
}

struct model_tensor *model_find_tensor(const struct model *model, const char *name)
{
    uint32_t at;
    return name_table_find(&model->tensors_by_name, name, &at) ? &model->tensors[at] : NULL;
}

void model_drop_tensors(struct model *model)
{
    name_table_release(&model->tensors_by_name);
    model->tensor_count = 0;
}

errint model_add_tensor(struct model *model, const char *name, enum tensor_type type,
                        const struct tensor_shape *shape, struct model_tensor **out)
{
    *out = NULL;
    if (name_table_find(&model->tensors_by_name, name, NULL))
        return model_add_note(model, true, "two tensors are called %s", name);
    errint error = model_grow(model, (void **)&model->tensors, model->tensor_count, &model->tensor_capacity,
                              sizeof *model->tensors);
    struct model_tensor tensor = {.type = type, .stored = type, .shape.rank = shape->rank};
    if (!error)
        error = model_copy_sizes(model, shape->sizes, shape->rank, &tensor.shape.sizes);
    tensor.name = error ? NULL : arena_copy_text(&model->arena, name, strlen(name));
    if (!tensor.name || model->tensor_count >= UINT32_MAX)
        return -ENOMEM;
    error = name_table_add(&model->tensors_by_name, tensor.name, (uint32_t)model->tensor_count);
    if (error)
        return error;
    *out = &model->tensors[model->tensor_count++];
    **out = tensor;
    return 0;
}

errint model_add_piece(struct model *model, struct model_tensor *tensor, const struct model_piece *piece)
{
    errint error = model_grow(model, (void **)&tensor->pieces, tensor->piece_count, &tensor->piece_capacity,
                              sizeof *tensor->pieces);
    struct model_piece copy = *piece;
    uint32_t rank = tensor->shape.rank;
    if (!error && piece->starts)
        error = model_copy_sizes(model, piece->starts, rank, &copy.starts);
    if (!error && piece->starts)
        error = model_copy_sizes(model, piece->sizes, rank, &copy.sizes);
    if (!error && piece->starts && piece->strides)
        error = model_copy_sizes(model, piece->strides, rank, &copy.strides);
    if (!error)
        tensor->pieces[tensor->piece_count++] = copy;
    return error;
}

errint model_add_whole(struct model *model, const struct tensor *tensor, const char *name, uint32_t file)
{
    static const int64_t zeros[TENSOR_RANK_MAX];
    struct model_tensor *added;
    struct model_piece piece = {.file = file, .offset = tensor->offset};
    if (tensor->shape.rank > TENSOR_RANK_MAX || !tensor_count(&tensor->shape, &piece.count))
        return model_add_note(model, true, "tensor %s: its shape does not fit", name);
    errint error = model_add_tensor(model, name, tensor->type, &tensor->shape, &added);
    if (error || !added)
        return error;
    if (tensor->strides && tensor->shape.rank > 0) {
        piece.starts = zeros;
        piece.sizes = tensor->shape.sizes;
        piece.strides = tensor->strides;
    }
    return model_add_piece(model, added, &piece);
}

errint model_add_metadata(struct model *model, const char *key, const char *value)
{
    if (strcmp(key, "format") == 0 || name_table_find(&model->metadata_keys, key, NULL))
        return 0;
    errint error = model_grow(model, (void **)&model->metadata, model->metadata_count,
                              &model->metadata_capacity, sizeof *model->metadata);
    struct model_metadata entry = {0};
    if (!error) {
        entry.key = arena_copy_text(&model->arena, key, strlen(key));
        entry.value = arena_copy_text(&model->arena, value, strlen(value));
    }
    if (!entry.key || !entry.value)
        return -ENOMEM;
    error = name_table_add(&model->metadata_keys, entry.key, (uint32_t)model->metadata_count);
    if (!error)
        model->metadata[model->metadata_count++] = entry;
    return error;
}

/* -- notes ------------------------------------------------------------------------------------------------
 */

/* The last note becomes the number of those that had no room. */
static errint model_leave_note_out(struct model *model, bool missing)
{
    enum { LENGTH = 64 };
    struct model_note *last = &model->notes[MODEL_NOTES_MAX - 1];
    if (model->notes_left_out == 0) {
        last->text = arena_take(&model->arena, LENGTH);
        if (!last->text)
            return -ENOMEM;
        model->notes_left_out = 1; /* the one that was there */
    }
    snprintf((char *)last->text, LENGTH, "%zu notes more are left out", ++model->notes_left_out);
    last->missing |= missing;
    return 0;
}

errint model_add_note(struct model *model, bool missing, const char *format, ...)
{
    char text[MODEL_NOTE_LENGTH + 1];
    va_list arguments;
    model->missing |= missing;
    if (model->note_count == MODEL_NOTES_MAX)
        return model_leave_note_out(model, missing);
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    }
    errint error = model_grow(model, (void **)&model->notes, model->note_count, &model->note_capacity,
                              sizeof *model->notes);
    char *copy = error ? NULL : arena_copy_text(&model->arena, text, strlen(text));
    if (!copy)
        return -ENOMEM;
    model->notes[model->note_count++] = (struct model_note){.missing = missing, .text = copy};
    return 0;
}

errint model_add_problem(struct model *model, const char *path, const struct format_problem *problem)
{
    if (problem->offset >= 0)
        return model_add_note(model, true, "%s, offset %" PRId64 ": %s", path, problem->offset,
                              problem->text);
    return model_add_note(model, true, "%s: %s", path, problem->text);
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

bool model_is_whole(const struct model *model)
{
    return !model->missing && model->tensor_count > 0;
}

void model_count(const struct model *model, int64_t *elements, int64_t *bytes)
{
    *elements = *bytes = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        int64_t count, size, sum;
        if (!tensor->tied && tensor_count(&tensor->shape, &count) &&
            tensor_bytes(tensor->type, count, &size) && !__builtin_add_overflow(*bytes, size, &sum)) {
            *bytes = sum;
            *elements += count;
        }
    }
}
