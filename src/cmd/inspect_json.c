/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs inspect --json`. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>

#include "cmd/inspect.h"
#include "format/plain_text.h"

/* Later members matter too: each returns whether it worked. */
static bool inspect_add_text(cJSON *object, const char *key, const char *text)
{
    cleanup_free char *plain = text ? plain_text(text) : NULL;
    if (!text)
        return cJSON_AddNullToObject(object, key);
    return plain && cJSON_AddStringToObject(object, key, plain);
}

static bool inspect_add_number(cJSON *object, const char *key, int64_t number, bool known)
{
    return known ? cJSON_AddNumberToObject(object, key, (double)number) : cJSON_AddNullToObject(object, key);
}

static bool inspect_add_types(cJSON *document, const struct inspect *inspect)
{
    cJSON *types = cJSON_AddObjectToObject(document, "dtypes");
    bool fine = types;
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT && fine; type++) {
        const struct inspect_type *row = &inspect->types[type];
        if (row->tensors == 0)
            continue;
        cJSON *object = cJSON_AddObjectToObject(types, tensor_type_name((enum tensor_type)type));
        fine = object && cJSON_AddNumberToObject(object, "tensors", (double)row->tensors) &&
               cJSON_AddNumberToObject(object, "elements", (double)row->elements) &&
               cJSON_AddNumberToObject(object, "bytes", (double)row->bytes);
    }
    return fine;
}

/* A new object in an array. */
static cJSON *inspect_add_row(cJSON *array)
{
    cJSON *row = cJSON_CreateObject();
    if (row && cJSON_AddItemToArray(array, row))
        return row;
    cJSON_Delete(row);
    return NULL;
}

static bool inspect_add_notes(cJSON *document, const struct model *model)
{
    cJSON *notes = cJSON_AddArrayToObject(document, "notes");
    bool fine = notes;
    for (size_t i = 0; i < model->note_count && fine; i++) {
        cJSON *row = inspect_add_row(notes);
        fine = row && cJSON_AddBoolToObject(row, "missing", model->notes[i].missing) &&
               inspect_add_text(row, "text", model->notes[i].text);
    }
    return fine;
}

static bool inspect_add_files(cJSON *document, const struct model *model)
{
    cJSON *files = cJSON_AddArrayToObject(document, "files");
    bool fine = files;
    for (size_t i = 0; i < model->file_count && fine; i++) {
        cJSON *row = inspect_add_row(files);
        fine = row && inspect_add_text(row, "path", model->files[i].path) &&
               cJSON_AddNumberToObject(row, "bytes", (double)model->files[i].size);
    }
    return fine;
}

static bool inspect_fill_tensor(cJSON *row, const struct model_tensor *tensor)
{
    cJSON *shape = cJSON_AddArrayToObject(row, "shape");
    bool fine = shape;
    for (uint32_t d = 0; d < tensor->shape.rank && fine; d++) {
        cJSON *size = cJSON_CreateNumber((double)tensor->shape.sizes[d]);
        fine = size && cJSON_AddItemToArray(shape, size);
    }
    return fine && inspect_add_text(row, "name", tensor->name) &&
           cJSON_AddStringToObject(row, "dtype", tensor_type_name(tensor->type)) &&
           cJSON_AddStringToObject(row, "stored_dtype", tensor_type_name(tensor->stored)) &&
           cJSON_AddNumberToObject(row, "pieces", (double)tensor->piece_count) &&
           inspect_add_text(row, "tied", tensor->tied) &&
           cJSON_AddBoolToObject(row, "buffer", tensor->buffer);
}

static bool inspect_add_tensors(cJSON *document, const struct model *model)
{
    cJSON *tensors = cJSON_AddArrayToObject(document, "tensors");
    bool fine = tensors;
    for (size_t i = 0; i < model->tensor_count && fine; i++) {
        cJSON *row = inspect_add_row(tensors);
        fine = row && inspect_fill_tensor(row, &model->tensors[i]);
    }
    return fine;
}

static bool inspect_add_source(cJSON *document, const struct inspect_source *source)
{
    return inspect_add_text(document, "config_source", inspect_source_word(source)) &&
           cJSON_AddBoolToObject(document, "template_missing", inspect_source_is_missing(source)) &&
           inspect_add_text(document, "template_run", source->run);
}

static bool inspect_add_list(cJSON *object, const char *key, const struct loadable_list *list)
{
    cJSON *array = cJSON_AddArrayToObject(object, key);
    bool fine = array;
    for (size_t i = 0; i < list->listed && fine; i++) {
        cleanup_free char *plain = plain_text(list->at[i]);
        cJSON *item = plain ? cJSON_CreateString(plain) : NULL;
        fine = item && cJSON_AddItemToArray(array, item);
    }
    return fine;
}

static bool inspect_add_loadable(cJSON *document, const struct loadable *loadable)
{
    bool checked = loadable->state != LOADABLE_NOT_CHECKED;
    cJSON *object = cJSON_AddObjectToObject(document, "loadable");
    return object && cJSON_AddStringToObject(object, "verdict", loadable_state_name(loadable->state)) &&
           inspect_add_text(object, "against", checked ? loadable->against : NULL) &&
           inspect_add_text(object, "reason", checked ? NULL : loadable->reason) &&
           inspect_add_number(object, "missing_count", loadable->missing.count, true) &&
           inspect_add_list(object, "missing", &loadable->missing) &&
           inspect_add_number(object, "unexpected_count", loadable->unexpected.count, true) &&
           inspect_add_list(object, "unexpected", &loadable->unexpected) &&
           inspect_add_number(object, "mismatched_count", loadable->mismatched.count, true) &&
           inspect_add_list(object, "mismatched", &loadable->mismatched);
}

static bool inspect_fill(cJSON *document, const struct inspect *inspect)
{
    const struct model *model = &inspect->model;
    const char *config = inspect->config.has_type ? tensor_type_torch_name(inspect->config.type) : NULL;
    return inspect_add_text(document, "path", inspect->path) &&
           inspect_add_text(document, "framework", model->framework) &&
           inspect_add_text(document, "summary", model->summary) &&
           inspect_add_number(document, "world_size", model->world_size, model->world_size > 0) &&
           inspect_add_number(document, "step", model->step, model->step >= 0) &&
           cJSON_AddBoolToObject(document, "whole", model_is_whole(model)) &&
           inspect_add_number(document, "tensor_count", (int64_t)model->tensor_count, true) &&
           inspect_add_number(document, "tied_tensors", (int64_t)inspect->tied, true) &&
           inspect_add_number(document, "elements", inspect->elements, true) &&
           inspect_add_number(document, "parameters", inspect->parameters, true) &&
           inspect_add_number(document, "bytes", inspect->bytes, true) &&
           inspect_add_types(document, inspect) &&
           cJSON_AddBoolToObject(document, "config", inspect->config.found) &&
           inspect_add_text(document, "config_dtype", config) &&
           cJSON_AddBoolToObject(document, "quantized", inspect->config.quantized) &&
           inspect_add_source(document, &inspect->source) &&
           inspect_add_loadable(document, &inspect->loadable) && inspect_add_files(document, model) &&
           inspect_add_notes(document, model) && (!inspect->tensors || inspect_add_tensors(document, model));
}

errint inspect_print_json(const struct inspect *inspect)
{
    cJSON *document = cJSON_CreateObject();
    cleanup_free char *text = document && inspect_fill(document, inspect) ? cJSON_Print(document) : NULL;
    cJSON_Delete(document);
    if (!text)
        return -ENOMEM;
    puts(text);
    return 0;
}
