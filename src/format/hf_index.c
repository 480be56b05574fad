/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a model in several files. */
#include "format/hf_index.h"

#include <errno.h>
#include <string.h>

#include "base/grow.h"
#include "format/json.h"

#define HF_INDEX_SIZE_MAX INT64_C(0x4000000)
#define HF_INDEX_MEMORY   ((size_t)1 << 30)

struct hf_index_reader {
    struct hf_index *index;
    struct format_problem *problem;
    struct json json;
};

static bool hf_index_is_file_name(const char *name)
{
    return name[0] != '\0' && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool hf_index_add(struct hf_index_reader *reader, struct hf_index_entry entry)
{
    struct hf_index *index = reader->index;
    if (!grow_reserve(index->entries, index->capacity, index->count + 1))
        return json_fail(&reader->json, -ENOMEM);
    index->entries[index->count++] = entry;
    return true;
}

static bool hf_index_take_map(struct hf_index_reader *reader)
{
    struct json *json = &reader->json;
    struct arena *arena = &reader->index->arena;
    bool started = false;
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        struct hf_index_entry entry;
        if (!json_take_text(json, arena, &entry.name) || !json_take(json, ':') ||
            !json_take_text(json, arena, &entry.file))
            return false;
        if (!hf_index_is_file_name(entry.file)) {
            (void)format_problem_set(reader->problem, json_tell(json),
                                     "expected the name of a file beside the index, found %.100s",
                                     entry.file);
            return json_fail(json, FORMAT_FOREIGN);
        }
        if (!hf_index_add(reader, entry))
            return false;
    }
    return json->status == 0;
}

static bool hf_index_take_metadata(struct hf_index_reader *reader)
{
    struct json *json = &reader->json;
    struct json_text key;
    bool started = false;
    if (json_peek(json) != '{')
        return json_skip(json);
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        if (!json_take_key(json, &key))
            return false;
        if (json_text_is(&key, "total_size") ? !json_take_any_size(json, &reader->index->total_size)
                                             : !json_skip(json))
            return false;
    }
    return json->status == 0;
}

static bool hf_index_take(struct hf_index_reader *reader)
{
    struct json *json = &reader->json;
    struct json_text key;
    bool started = false, mapped = false;
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        if (!json_take_key(json, &key))
            return false;
        bool map = json_text_is(&key, "weight_map");
        if (map && mapped)
            return json_fail(json, FORMAT_FOREIGN);
        mapped = mapped || map;
        bool fine = map                              ? hf_index_take_map(reader)
                    : json_text_is(&key, "metadata") ? hf_index_take_metadata(reader)
                                                     : json_skip(json);
        if (!fine)
            return false;
    }
    return json_end(json) && (mapped || json_fail(json, FORMAT_FOREIGN));
}

static int hf_index_compare(const void *one, const void *other)
{
    const struct hf_index_entry *a = one, *b = other;
    return strcmp(a->name, b->name);
}

static int hf_index_sort(struct hf_index *index, struct format_problem *problem)
{
    if (index->count > 1)
        qsort(index->entries, index->count, sizeof *index->entries, hf_index_compare);
    for (size_t i = 1; i < index->count; i++) {
        if (strcmp(index->entries[i - 1].name, index->entries[i].name) == 0)
            return format_problem_set(problem, 0,
                                      "expected each tensor once in weight_map, found %.100s twice",
                                      index->entries[i].name);
    }
    return 0;
}

int hf_index_read(const struct format_source *source, struct hf_index *out, struct format_problem *problem)
{
    *out = (struct hf_index){.arena.limit = HF_INDEX_MEMORY, .total_size = -1};
    if (source->size > HF_INDEX_SIZE_MAX)
        return format_problem_set(problem, 0, "expected an index of at most %lld bytes, found %lld",
                                  (long long)HF_INDEX_SIZE_MAX, (long long)source->size);
    cleanup_free struct hf_index_reader *reader = malloc(sizeof *reader);
    if (!reader)
        return -ENOMEM;
    reader->index = out;
    reader->problem = problem;
    json_begin(&reader->json, source, 0, source->size);
    (void)hf_index_take(reader);
    if (reader->json.status == FORMAT_FOREIGN)
        return format_problem_set(problem, json_tell(&reader->json),
                                  "expected an index with a weight_map of names, found other text");
    return reader->json.status ? reader->json.status : hf_index_sort(out, problem);
}

void hf_index_release(struct hf_index *index)
{
    free(steal_pointer(index->entries));
    index->count = index->capacity = 0;
    arena_release(&index->arena);
}
