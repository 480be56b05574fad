/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of a safetensors file. */
#include "format/safetensors_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/grow.h"
#include "format/json.h"

/* The format's own limit. */
#define SAFETENSORS_HEADER_MAX INT64_C(100000000)
#define SAFETENSORS_MEMORY     ((size_t)1 << 30)

enum { SAFETENSORS_LENGTH_SIZE = 8 };

struct safetensors_reader {
    const struct format_source *source;
    struct safetensors_file *file;
    struct format_problem *problem;
    /* A tensor's sizes, before it is known how many there are. */
    int64_t sizes[TENSOR_RANK_MAX];
    bool metadata; /* was there already */
    struct json json;
};

/* A tensor as the header has it. */
struct safetensors_entry {
    struct tensor tensor;
    int64_t begin, end;
};

/* Says what is wrong at this place of the header, of the tensor of this name; false. */
static bool safetensors_fail(struct safetensors_reader *reader, const char *name, const char *what)
{
    if (!reader->json.status)
        (void)format_problem_set(reader->problem, json_tell(&reader->json), "%s, of tensor %.80s", what,
                                 name);
    return json_fail(&reader->json, FORMAT_FOREIGN);
}

/* -- one tensor -------------------------------------------------------------------------------------------
 */

static bool safetensors_take_type(struct safetensors_reader *reader, struct tensor *tensor)
{
    struct json_text text;
    if (!json_take_string(&reader->json, &text))
        return false;
    /* Only the names of the format: torch's are none, and neither is C128. */
    enum tensor_type *type = &tensor->type;
    if (text.length <= sizeof text.start && tensor_type_parse(text.start, text.length, type) &&
        *type != TENSOR_C128 && json_text_is(&text, tensor_type_name(*type)))
        return true;
    char found[20], line[80];
    format_print_name(text.start, text.length < sizeof text.start ? text.length : sizeof text.start, found,
                      sizeof found);
    (void)snprintf(line, sizeof line, "expected a type that safetensors knows, found %s", found);
    return safetensors_fail(reader, tensor->name, line);
}

static bool safetensors_take_shape(struct safetensors_reader *reader, struct tensor *tensor)
{
    struct tensor_shape *shape = &tensor->shape;
    struct json *json = &reader->json;
    bool started = false;
    shape->rank = 0;
    if (!json_take(json, '['))
        return false;
    while (json_more(json, ']', &started)) {
        if (shape->rank == TENSOR_RANK_MAX)
            return safetensors_fail(reader, tensor->name, "expected at most 64 dimensions, found more");
        if (!json_take_size(json, &reader->sizes[shape->rank]))
            return false;
        shape->rank++;
    }
    if (json->status || shape->rank == 0)
        return json->status == 0;
    int64_t *sizes = arena_take_array(&reader->file->arena, shape->rank, sizeof *sizes);
    if (!sizes)
        return json_fail(json, -ENOMEM);
    memcpy(sizes, reader->sizes, shape->rank * sizeof *sizes);
    shape->sizes = sizes;
    return true;
}

static bool safetensors_take_range(struct json *json, int64_t *begin, int64_t *end)
{
    return json_take(json, '[') && json_take_size(json, begin) && json_take(json, ',') &&
           json_take_size(json, end) && json_take(json, ']');
}

static bool safetensors_take_fields(struct safetensors_reader *reader, struct safetensors_entry *entry)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    struct json *json = &reader->json;
    unsigned seen = 0;
    bool started = false;
    struct json_text key;
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        if (!json_take_key(json, &key))
            return false;
        unsigned field = json_text_is(&key, "dtype")          ? DTYPE
                         : json_text_is(&key, "shape")        ? SHAPE
                         : json_text_is(&key, "data_offsets") ? OFFSETS
                                                              : 0;
        if (seen & field)
            return safetensors_fail(reader, entry->tensor.name, "expected each field once, found one twice");
        seen |= field;
        bool fine = field == DTYPE     ? safetensors_take_type(reader, &entry->tensor)
                    : field == SHAPE   ? safetensors_take_shape(reader, &entry->tensor)
                    : field == OFFSETS ? safetensors_take_range(json, &entry->begin, &entry->end)
                                       : json_skip(json);
        if (!fine)
            return false;
    }
    if (seen != ALL)
        return safetensors_fail(reader, entry->tensor.name,
                                "expected dtype, shape and data_offsets, found fewer");
    return json->status == 0;
}

/* Whether its bytes are as many as its shape says and lie in the file. */
static bool safetensors_check_entry(struct safetensors_reader *reader, const struct safetensors_entry *entry)
{
    int64_t count, bytes, room = reader->source->size - reader->file->data;
    const char *name = entry->tensor.name;
    if (entry->begin > entry->end || entry->end > room)
        return safetensors_fail(reader, name, "expected data_offsets inside the file, found others");
    if (!tensor_count(&entry->tensor.shape, &count) || !tensor_bytes(entry->tensor.type, count, &bytes))
        return safetensors_fail(reader, name, "expected a shape that fills whole bytes, found another");
    if (bytes != entry->end - entry->begin)
        return safetensors_fail(reader, name, "expected as many bytes as the shape has, found others");
    return true;
}

static bool safetensors_take_tensor(struct safetensors_reader *reader, const char *name)
{
    struct safetensors_file *file = reader->file;
    struct safetensors_entry entry = {.tensor.name = name};
    if (!safetensors_take_fields(reader, &entry) || !safetensors_check_entry(reader, &entry))
        return false;
    if (!grow_reserve(file->tensors, file->tensor_capacity, file->tensor_count + 1))
        return json_fail(&reader->json, -ENOMEM);
    entry.tensor.offset = file->data + entry.begin;
    file->tensors[file->tensor_count++] = entry.tensor;
    return true;
}

/* -- the header -------------------------------------------------------------------------------------------
 */

static bool safetensors_add_metadata(struct safetensors_reader *reader, struct safetensors_metadata entry)
{
    struct safetensors_file *file = reader->file;
    if (!grow_reserve(file->metadata, file->metadata_capacity, file->metadata_count + 1))
        return json_fail(&reader->json, -ENOMEM);
    file->metadata[file->metadata_count++] = entry;
    return true;
}

static bool safetensors_take_metadata(struct safetensors_reader *reader)
{
    struct safetensors_file *file = reader->file;
    struct json *json = &reader->json;
    bool started = false;
    if (reader->metadata) {
        (void)format_problem_set(reader->problem, json_tell(json), "expected one __metadata__, found two");
        return json_fail(json, FORMAT_FOREIGN);
    }
    reader->metadata = true;
    if (json_peek(json) == 'n')
        return json_skip(json);
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        struct safetensors_metadata entry;
        if (!json_take_text(json, &file->arena, &entry.key) || !json_take(json, ':') ||
            !json_take_text(json, &file->arena, &entry.value) || !safetensors_add_metadata(reader, entry))
            return false;
    }
    return json->status == 0;
}

static bool safetensors_take_member(struct safetensors_reader *reader)
{
    const char *name;
    if (!json_take_text(&reader->json, &reader->file->arena, &name) || !json_take(&reader->json, ':'))
        return false;
    return strcmp(name, "__metadata__") == 0 ? safetensors_take_metadata(reader)
                                             : safetensors_take_tensor(reader, name);
}

static int safetensors_read_length(struct safetensors_reader *reader)
{
    uint8_t bytes[SAFETENSORS_LENGTH_SIZE];
    const struct format_source *source = reader->source;
    if (source->size < (int64_t)sizeof bytes)
        return format_problem_set(reader->problem, 0,
                                  "expected the length of a safetensors header, found %lld bytes",
                                  (long long)source->size);
    errint error = source->read(source->context, bytes, sizeof bytes, 0);
    if (error)
        return error;
    uint64_t length = 0;
    for (unsigned i = 0; i < SAFETENSORS_LENGTH_SIZE; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    if (length > SAFETENSORS_HEADER_MAX || (int64_t)length > source->size - SAFETENSORS_LENGTH_SIZE)
        return format_problem_set(reader->problem, 0,
                                  "expected a safetensors header inside the file, found a length of %llu",
                                  (unsigned long long)length);
    reader->file->data = SAFETENSORS_LENGTH_SIZE + (int64_t)length;
    return 0;
}

static int safetensors_read_header(struct safetensors_reader *reader)
{
    struct json *json = &reader->json;
    json_begin(json, reader->source, SAFETENSORS_LENGTH_SIZE, reader->file->data - SAFETENSORS_LENGTH_SIZE);
    bool started = false;
    if (json_take(json, '{')) {
        while (json_more(json, '}', &started) && safetensors_take_member(reader))
            continue;
        (void)json_end(json);
    }
    if (json->status == FORMAT_FOREIGN)
        return format_problem_set(reader->problem, json_tell(json),
                                  "expected a safetensors header, found other text");
    return json->status;
}

/* -- all of them ------------------------------------------------------------------------------------------
 */

static int64_t safetensors_length(const struct tensor *tensor)
{
    int64_t count = 0, bytes = 0;
    (void)tensor_count(&tensor->shape, &count);
    (void)tensor_bytes(tensor->type, count, &bytes);
    return bytes;
}

/* Those without bytes come before the one that starts where they do. */
static int safetensors_compare_place(const void *one, const void *other)
{
    const struct tensor *a = one, *b = other;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    int64_t length = safetensors_length(a), other_length = safetensors_length(b);
    if ((length > 0) != (other_length > 0))
        return length > 0 ? 1 : -1;
    return strcmp(a->name, b->name);
}

static int safetensors_check_tiling(const struct safetensors_reader *reader)
{
    const struct safetensors_file *file = reader->file;
    int64_t at = file->data;
    if (file->tensor_count > 1)
        qsort(file->tensors, file->tensor_count, sizeof *file->tensors, safetensors_compare_place);
    for (size_t i = 0; i < file->tensor_count; i++) {
        if (file->tensors[i].offset != at)
            return format_problem_set(reader->problem, at, "expected a tensor here, found %.100s at %lld",
                                      file->tensors[i].name, (long long)file->tensors[i].offset);
        at += safetensors_length(&file->tensors[i]);
    }
    if (at != reader->source->size)
        return format_problem_set(reader->problem, at,
                                  "expected the end behind the last tensor, found %lld bytes",
                                  (long long)(reader->source->size - at));
    return 0;
}

static int safetensors_compare_text(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* `names` is sorted here. */
static int safetensors_check_names(const struct safetensors_reader *reader, const char **names, size_t count)
{
    if (count < 2)
        return 0;
    qsort(names, count, sizeof *names, safetensors_compare_text);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0)
            return format_problem_set(reader->problem, SAFETENSORS_LENGTH_SIZE,
                                      "expected each name once, found %.100s twice", names[i]);
    }
    return 0;
}

static int safetensors_check_distinct(const struct safetensors_reader *reader)
{
    const struct safetensors_file *file = reader->file;
    size_t most = file->tensor_count > file->metadata_count ? file->tensor_count : file->metadata_count;
    cleanup_free const char **names = reallocarray(NULL, most + 1, sizeof *names);
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; i < file->tensor_count; i++)
        names[i] = file->tensors[i].name;
    int result = safetensors_check_names(reader, names, file->tensor_count);
    for (size_t i = 0; i < file->metadata_count; i++)
        names[i] = file->metadata[i].key;
    return result ? result : safetensors_check_names(reader, names, file->metadata_count);
}

int safetensors_file_read(const struct format_source *source, struct safetensors_file *out,
                          struct format_problem *problem)
{
    *out = (struct safetensors_file){.arena.limit = SAFETENSORS_MEMORY};
    cleanup_free struct safetensors_reader *reader = malloc(sizeof *reader);
    if (!reader)
        return -ENOMEM;
    memset(reader, 0, offsetof(struct safetensors_reader, json));
    reader->source = source;
    reader->file = out;
    reader->problem = problem;
    int result = safetensors_read_length(reader);
    if (!result)
        result = safetensors_read_header(reader);
    if (!result)
        result = safetensors_check_distinct(reader);
    return result ? result : safetensors_check_tiling(reader);
}

void safetensors_file_release(struct safetensors_file *file)
{
    free(steal_pointer(file->tensors));
    free(steal_pointer(file->metadata));
    file->tensor_count = file->tensor_capacity = file->metadata_count = file->metadata_capacity = 0;
    arena_release(&file->arena);
}

const struct tensor *safetensors_file_tensor(const struct safetensors_file *file, const char *name)
{
    for (size_t i = 0; i < file->tensor_count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const char *safetensors_file_metadata(const struct safetensors_file *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->metadata[i].key, key) == 0)
            return file->metadata[i].value;
    }
    return NULL;
}
