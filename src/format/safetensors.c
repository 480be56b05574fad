/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors: 8 bytes of length, a JSON header, the tensors' bytes.
 *
 * A tensor needs a dtype, a shape and its offsets; only the offsets are judged, so that a dtype that is new
 * tomorrow changes nothing here. Unlike the library's reader this one lets gaps be.
 */
#include <errno.h>
#include <string.h>

#include "base/grow.h"
#include "format/internal.h"
#include "format/json.h"

/* The format's own limit. A tensor takes 48 bytes of header at least, so it bounds their number too. */
#define SAFETENSORS_HEADER_MAX INT64_C(100000000)

enum { SAFETENSORS_LENGTH_SIZE = 8 };

struct safetensors_walk {
    const struct format_source *source;
    int64_t data; /* where the tensors' bytes start in the file */
    /* Takes one tensor, at [begin, end) of the file: 0, FORMAT_FOREIGN or a negative errno. */
    int (*visit)(void *context, const struct json_text *name, int64_t begin, int64_t end);
    void *context;
    struct json json;
};

/* -- the header -------------------------------------------------------------------------------------------
 */

static bool safetensors_take_offsets(struct json *json, int64_t range[2])
{
    return json_take(json, '[') && json_take_size(json, &range[0]) && json_take(json, ',') &&
           json_take_size(json, &range[1]) && json_take(json, ']');
}

static bool safetensors_take_tensor(struct json *json, int64_t range[2])
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    unsigned seen = 0;
    bool started = false;
    struct json_text text;
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        if (!json_take_key(json, &text))
            return false;
        unsigned key = json_text_is(&text, "dtype")          ? DTYPE
                       : json_text_is(&text, "shape")        ? SHAPE
                       : json_text_is(&text, "data_offsets") ? OFFSETS
                                                             : 0;
        if ((seen & key) || (key == SHAPE && json_peek(json) != '['))
            return json_fail(json, FORMAT_FOREIGN);
        seen |= key;
        bool fine = key == OFFSETS ? safetensors_take_offsets(json, range)
                    : key == DTYPE ? json_take_string(json, &text)
                                   : json_skip(json);
        if (!fine)
            return false;
    }
    return seen == ALL ? json->status == 0 : json_fail(json, FORMAT_FOREIGN);
}

/* One member of the header: a tensor, or the metadata. */
static bool safetensors_take_member(struct safetensors_walk *walk, bool *metadata)
{
    struct json_text name;
    if (!json_take_key(&walk->json, &name))
        return false;
    if (json_text_is(&name, "__metadata__")) {
        if (*metadata)
            return json_fail(&walk->json, FORMAT_FOREIGN);
        *metadata = true;
        return json_skip(&walk->json);
    }
    int64_t range[2] = {0};
    if (!safetensors_take_tensor(&walk->json, range))
        return false;
    if (range[0] > range[1] || range[1] > walk->source->size - walk->data)
        return json_fail(&walk->json, FORMAT_FOREIGN);
    int result = walk->visit(walk->context, &name, walk->data + range[0], walk->data + range[1]);
    return result ? json_fail(&walk->json, result) : true;
}

/* Where the tensors' bytes start. */
static int safetensors_data_start(const struct format_source *source, int64_t *data)
{
    uint8_t bytes[SAFETENSORS_LENGTH_SIZE + 1];
    if (source->size < (int64_t)sizeof bytes)
        return FORMAT_FOREIGN;
    errint error = source->read(source->context, bytes, sizeof bytes, 0);
    if (error)
        return error;
    uint64_t length = 0;
    for (unsigned i = 0; i < SAFETENSORS_LENGTH_SIZE; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    if (length > SAFETENSORS_HEADER_MAX || (int64_t)length > source->size - SAFETENSORS_LENGTH_SIZE ||
        bytes[SAFETENSORS_LENGTH_SIZE] != '{')
        return FORMAT_FOREIGN;
    *data = SAFETENSORS_LENGTH_SIZE + (int64_t)length;
    return 0;
}

static int safetensors_walk_header(struct safetensors_walk *walk)
{
    int result = safetensors_data_start(walk->source, &walk->data);
    if (result)
        return result;
    struct json *json = &walk->json;
    json_begin(json, walk->source, SAFETENSORS_LENGTH_SIZE, walk->data - SAFETENSORS_LENGTH_SIZE);
    bool started = false, metadata = false;
    if (json_take(json, '{')) {
        while (json_more(json, '}', &started) && safetensors_take_member(walk, &metadata))
            continue;
        (void)json_end(json);
    }
    return json->status;
}

/* -- segments ---------------------------------------------------------------------------------------------
 */

struct safetensors_tensors {
    struct segment_list list;
    uint64_t *names; /* hashes, also of tensors without bytes */
    size_t count, capacity;
};

static void safetensors_release(struct safetensors_tensors *tensors)
{
    segment_list_release(&tensors->list);
    free(tensors->names);
}

static int safetensors_collect(void *context, const struct json_text *name, int64_t begin, int64_t end)
{
    struct safetensors_tensors *tensors = context;
    if (!grow_reserve(tensors->names, tensors->capacity, tensors->count + 1))
        return -ENOMEM;
    tensors->names[tensors->count++] = name->hash;
    if (begin == end)
        return 0;
    return segment_list_append(&tensors->list,
                               (struct format_segment){.offset = begin, .length = end - begin});
}

static int safetensors_compare(const void *one, const void *other)
{
    const struct format_segment *a = one, *b = other;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Writers put tensors in order: nothing to sort then. */
static void safetensors_sort(struct segment_list *list)
{
    for (size_t i = 1; i < list->count; i++) {
        if (list->at[i].offset < list->at[i - 1].offset) {
            qsort(list->at, list->count, sizeof *list->at, safetensors_compare);
            return;
        }
    }
}

/* Appends the tensors, which are in order, and what is between them. */
static int safetensors_tile(const struct segment_list *tensors, int64_t data, int64_t size,
                            struct segment_list *list)
{
    int64_t at = data;
    /* All at once: to grow beside the list of tensors could cost more than the memory bound. */
    errint error = segment_list_reserve(list, 2 * tensors->count + 2);
    if (!error)
        error = segment_list_append(list, (struct format_segment){.length = data});
    for (size_t i = 0; i < tensors->count && !error; i++) {
        const struct format_segment *tensor = &tensors->at[i];
        if (tensor->offset < at)
            return FORMAT_FOREIGN;
        error = segment_list_append_gap(list, at, tensor->offset);
        if (!error)
            error = segment_list_append(list, *tensor);
        at = tensor->offset + tensor->length;
    }
    return error ? error : segment_list_append_gap(list, at, size);
}

int safetensors_find(const struct format_source *source, struct segment_list *list)
{
    __attribute__((cleanup(safetensors_release))) struct safetensors_tensors tensors = {0};
    cleanup_free struct safetensors_walk *walk = malloc(sizeof *walk);
    if (!walk)
        return -ENOMEM;
    walk->source = source;
    walk->visit = safetensors_collect;
    walk->context = &tensors;
    int result = safetensors_walk_header(walk);
    if (!result)
        result = format_check_distinct(tensors.names, tensors.count);
    if (result)
        return result;
    free(steal_pointer(tensors.names));
    safetensors_sort(&tensors.list);
    return safetensors_tile(&tensors.list, walk->data, source->size, list);
}

/* -- a name -----------------------------------------------------------------------------------------------
 */

struct safetensors_wanted {
    int64_t offset;
    char *name;
    size_t size;
    bool found;
};

static int safetensors_match(void *context, const struct json_text *name, int64_t begin, int64_t end)
{
    struct safetensors_wanted *wanted = context;
    if (wanted->offset >= begin && wanted->offset < end) {
        size_t length = name->length < sizeof name->start ? name->length : sizeof name->start;
        format_print_name(name->start, length, wanted->name, wanted->size);
        wanted->found = true;
    }
    return 0;
}

int safetensors_name(const struct format_source *source, int64_t offset, char *name, size_t size)
{
    struct safetensors_wanted wanted = {.offset = offset, .name = name, .size = size};
    cleanup_free struct safetensors_walk *walk = malloc(sizeof *walk);
    if (!walk)
        return -ENOMEM;
    walk->source = source;
    walk->visit = safetensors_match;
    walk->context = &wanted;
    int result = safetensors_walk_header(walk);
    return result || wanted.found ? result : FORMAT_FOREIGN;
}
