/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form of torch.save without a zip (PyTorch, torch/serialization.py, _legacy_save, 2.13): pickles of a
 * magic number, a version, the system, the object and the keys of its storages; then each storage as its
 * number of elements and its bytes. How large an element is, the first reference to the storage says.
 */
#include <errno.h>
#include <string.h>

#include "format/torch_storages.h"

enum { TORCH_LEGACY_VERSION = 1001, TORCH_LEGACY_START = 64, TORCH_COUNT_SIZE = 8 };

/* 0x1950a86a20f9469cfc6c */
static const uint8_t torch_legacy_magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

struct torch_legacy {
    const struct format_source *source;
    struct torch_file *file;
    struct format_problem *problem;
    int64_t at, end;
};

static bool torch_legacy_is_magic(const struct pickle_node *node)
{
    return node && node->kind == PICKLE_LARGE && node->length == sizeof torch_legacy_magic &&
           memcmp(node->text, torch_legacy_magic, sizeof torch_legacy_magic) == 0;
}

bool torch_legacy_is_likely(const struct format_source *source, int64_t start, int64_t length)
{
    cleanup_arena struct arena arena = {.limit = 64 * 1024};
    const struct pickle_node *root;
    int64_t end;
    if (length > TORCH_LEGACY_START)
        length = TORCH_LEGACY_START;
    return pickle_read(source, start, length, &pickle_default_limits, &arena, &root, &end, NULL) == 0 &&
           torch_legacy_is_magic(root);
}

/* The next pickle. `last` is its last persistent id. */
static int torch_legacy_next(struct torch_legacy *legacy, const struct pickle_node **root,
                             const struct pickle_node **last)
{
    return pickle_read_references(legacy->source, legacy->at, legacy->end - legacy->at,
                                  &pickle_default_limits, &legacy->file->arena, root, last, &legacy->at,
                                  legacy->problem);
}

static int torch_legacy_read_start(struct torch_legacy *legacy)
{
    const struct pickle_node *magic, *version, *system, *last;
    int64_t number = 0, offset;
    int result = torch_legacy_next(legacy, &magic, &last);
    offset = legacy->at;
    if (!result)
        result = torch_legacy_next(legacy, &version, &last);
    if (result)
        return result;
    if (!pickle_integer(version, &number) || number != TORCH_LEGACY_VERSION)
        return format_problem_set(legacy->problem, offset, "expected torch.save's version %d, found %lld",
                                  TORCH_LEGACY_VERSION, (long long)number);
    offset = legacy->at;
    result = torch_legacy_next(legacy, &system, &last);
    if (result)
        return result;
    const struct pickle_node *little = pickle_get(system, "little_endian");
    if (little && (little->kind != PICKLE_BOOL || little->integer != 1))
        return format_problem_set(legacy->problem, offset, "expected little-endian bytes, found big-endian");
    return 0;
}

/* -- storages ---------------------------------------------------------------------------------------------
 */

/* A storage that the object refers to, with what the reference says; later ones of the same key after it. */
struct torch_reference {
    const struct pickle_node *key;
    size_t number;
    enum tensor_type type;
};

static int torch_reference_compare_key(const struct torch_reference *a, const struct torch_reference *b)
{
    if (a->key->length != b->key->length)
        return a->key->length < b->key->length ? -1 : 1;
    return memcmp(a->key->text, b->key->text, a->key->length);
}

static int torch_reference_compare(const void *one, const void *other)
{
    const struct torch_reference *a = one, *b = other;
    int order = torch_reference_compare_key(a, b);
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

/* Lists them from the last one backwards. What is no storage (a module's class) is left out. */
static errint torch_legacy_list(const struct pickle_node *last, struct torch_reference **out, size_t *count)
{
    size_t total = 0;
    for (const struct pickle_node *node = last; node; node = node->function)
        total++;
    *count = 0;
    *out = reallocarray(NULL, total + 1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    for (const struct pickle_node *node = last; node; node = node->function) {
        struct torch_reference *reference = &(*out)[*count];
        int64_t bytes;
        reference->number = total--;
        if (torch_storage_reference(node, &reference->key, &reference->type, &bytes, NULL) == 0)
            (*count)++;
    }
    qsort(*out, *count, sizeof **out, torch_reference_compare);
    return 0;
}

static const struct torch_reference *torch_legacy_find(const struct torch_reference *references, size_t count,
                                                       const struct pickle_node *key)
{
    const struct torch_reference wanted = {.key = key};
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (torch_reference_compare(&references[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && torch_reference_compare_key(&references[low], &wanted) == 0 ? &references[low]
                                                                                      : NULL;
}

/* The storage whose count stands at legacy->at. */
static int torch_legacy_read_storage(struct torch_legacy *legacy, const struct torch_reference *reference)
{
    uint8_t bytes[TORCH_COUNT_SIZE];
    int64_t length;
    uint64_t count = 0;
    if (legacy->end - legacy->at < TORCH_COUNT_SIZE)
        return format_problem_set(legacy->problem, legacy->at, "expected storage %.60s, found the end",
                                  reference->key->text);
    errint error = legacy->source->read(legacy->source->context, bytes, sizeof bytes, legacy->at);
    if (error)
        return error;
    for (unsigned i = 0; i < TORCH_COUNT_SIZE; i++)
        count |= (uint64_t)bytes[i] << (8 * i);
    if (count > INT64_MAX || !tensor_bytes(reference->type, (int64_t)count, &length) ||
        length > legacy->end - legacy->at - TORCH_COUNT_SIZE)
        return format_problem_set(
            legacy->problem, legacy->at, "expected storage %.60s in the %lld bytes left, found %llu elements",
            reference->key->text, (long long)(legacy->end - legacy->at), (unsigned long long)count);
    legacy->file->storages[legacy->file->storage_count++] = (struct torch_storage){
        .key = reference->key->text,
        .key_length = reference->key->length,
        .offset = legacy->at + TORCH_COUNT_SIZE,
        .length = length,
    };
    legacy->at += TORCH_COUNT_SIZE + length;
    return 0;
}

static int torch_legacy_read_storages(struct torch_legacy *legacy, const struct pickle_node *last)
{
    const struct pickle_node *keys, *none;
    int64_t offset = legacy->at;
    size_t count;
    int result = torch_legacy_next(legacy, &keys, &none);
    if (result)
        return result;
    if (keys->kind != PICKLE_LIST)
        return format_problem_set(legacy->problem, offset, "expected a list of storages, found %s",
                                  pickle_describe(keys));
    cleanup_free struct torch_reference *references = NULL;
    errint error = torch_legacy_list(last, &references, &count);
    legacy->file->storages =
        arena_take_array(&legacy->file->arena, keys->count + 1, sizeof(struct torch_storage));
    if (error || !legacy->file->storages)
        return -ENOMEM;
    for (size_t i = 0; i < keys->count; i++) {
        const struct pickle_node *key = keys->items[i];
        const struct torch_reference *reference =
            key->kind == PICKLE_TEXT ? torch_legacy_find(references, count, key) : NULL;
        if (!reference)
            return format_problem_set(legacy->problem, offset,
                                      "expected a storage that the object refers to, found %.60s",
                                      key->kind == PICKLE_TEXT ? key->text : pickle_describe(key));
        result = torch_legacy_read_storage(legacy, reference);
        if (result)
            return result;
    }
    return torch_storages_sort(legacy->file, legacy->problem);
}

int torch_legacy_read(const struct format_source *source, int64_t start, int64_t length,
                      struct torch_file *file, struct format_problem *problem)
{
    struct torch_legacy legacy = {
        .source = source, .file = file, .problem = problem, .at = start, .end = start + length};
    const struct pickle_node *last;
    int result = torch_legacy_read_start(&legacy);
    if (!result)
        result = torch_legacy_next(&legacy, &file->root, &last);
    return result ? result : torch_legacy_read_storages(&legacy, last);
}
