/* SPDX-License-Identifier: Apache-2.0 */
/* A torch.save file of either form, and its storages. */
#include "format/torch_file.h"

#include <errno.h>
#include <string.h>

#include "format/torch_storages.h"

/* -- storages ---------------------------------------------------------------------------------------------
 */

static int torch_storages_compare(const void *one, const void *other)
{
    const struct torch_storage *a = one, *b = other;
    if (a->key_length != b->key_length)
        return a->key_length < b->key_length ? -1 : 1;
    return memcmp(a->key, b->key, a->key_length);
}

int torch_storages_sort(struct torch_file *file, struct format_problem *problem)
{
    if (file->storage_count < 2)
        return 0;
    struct torch_storage *storages = file->storages;
    qsort(storages, file->storage_count, sizeof *storages, torch_storages_compare);
    for (size_t i = 1; i < file->storage_count; i++) {
        if (torch_storages_compare(&storages[i - 1], &storages[i]) == 0)
            return format_problem_set(problem, storages[i].offset,
                                      "expected one storage of each key, found two of %.60s",
                                      storages[i].key);
    }
    return 0;
}

struct torch_storage *torch_storages_find(const struct torch_file *file, const char *key, size_t length)
{
    struct torch_storage wanted = {.key = key, .key_length = length};
    if (file->storage_count == 0)
        return NULL;
    return bsearch(&wanted, file->storages, file->storage_count, sizeof wanted, torch_storages_compare);
}

bool torch_storage_type(const struct pickle_node *class, enum tensor_type *type)
{
    static const struct {
        const char *name;
        enum tensor_type type;
    } classes[] = {
        {"FloatStorage", TENSOR_F32},
        {"BFloat16Storage", TENSOR_BF16},
        {"HalfStorage", TENSOR_F16},
        {"DoubleStorage", TENSOR_F64},
        {"LongStorage", TENSOR_I64},
        {"IntStorage", TENSOR_I32},
        {"ShortStorage", TENSOR_I16},
        {"CharStorage", TENSOR_I8},
        {"ByteStorage", TENSOR_U8},
        {"BoolStorage", TENSOR_BOOL},
        {"UntypedStorage", TENSOR_U8},
        {"ComplexFloatStorage", TENSOR_C64},
        {"ComplexDoubleStorage", TENSOR_C128},
    };
    if (!class || class->kind != PICKLE_GLOBAL)
        return false;
    const char *name = memrchr(class->text, ' ', class->length);
    size_t length = name ? class->length - (size_t)(++name - class->text) : 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strlen(classes[i].name) == length && memcmp(classes[i].name, name, length) == 0) {
            *type = classes[i].type;
            return true;
        }
    }
    return false;
}

static bool torch_is_text(const struct pickle_node *node)
{
    return node && node->kind == PICKLE_TEXT;
}

int torch_storage_reference(const struct pickle_node *node, const struct pickle_node **key,
                            enum tensor_type *type, int64_t *bytes, struct format_problem *problem)
{
    if (!node || node->kind != PICKLE_PERSISTENT)
        return format_problem_set(problem, -1, "expected a tensor's storage, found %s",
                                  pickle_describe(node));
    const struct pickle_node *id = node->items[0];
    int64_t count;
    *key = pickle_item(id, 2);
    if (id->kind != PICKLE_TUPLE || !pickle_is_text(pickle_item(id, 0), "storage") || !torch_is_text(*key) ||
        !pickle_integer(pickle_item(id, 4), &count) || count < 0)
        return format_problem_set(problem, -1, "expected the id of a storage, found %s of %zu items",
                                  pickle_describe(id), pickle_count(id));
    const struct pickle_node *class = pickle_item(id, 1), *view = pickle_item(id, 5);
    if (!torch_storage_type(class, type))
        return format_problem_set(problem, -1, "expected a known class of storage, found %.80s",
                                  class->kind == PICKLE_GLOBAL ? class->text : pickle_describe(class));
    if (view && view->kind != PICKLE_NONE)
        return format_problem_set(problem, -1, "expected a whole storage, found a view of storage %.60s",
                                  (*key)->text);
    if (!tensor_bytes(*type, count, bytes))
        return format_problem_set(problem, -1, "expected the size of storage %.60s, found %lld elements",
                                  (*key)->text, (long long)count);
    return 0;
}

/* -- files ------------------------------------------------------------------------------------------------
 */

bool torch_file_is_likely(const struct format_source *source)
{
    uint8_t bytes[4];
    if (source->size < (int64_t)sizeof bytes || source->read(source->context, bytes, sizeof bytes, 0))
        return false;
    return memcmp(bytes, "PK\3\4", sizeof bytes) == 0 || torch_legacy_is_likely(source, 0, source->size);
}

int torch_file_read(const struct format_source *source, int64_t start, int64_t length, struct torch_file *out,
                    struct format_problem *problem)
{
    *out = (struct torch_file){.arena.limit = TORCH_FILE_MEMORY};
    if (start < 0 || length < 0 || length > source->size || start > source->size - length)
        return format_problem_set(problem, start,
                                  "expected a range inside a file of %lld bytes, found %lld more",
                                  (long long)source->size, (long long)length);
    out->legacy = torch_legacy_is_likely(source, start, length);
    return out->legacy ? torch_legacy_read(source, start, length, out, problem)
                       : torch_archive_read(source, start, length, out, problem);
}

void torch_file_release(struct torch_file *file)
{
    arena_release(&file->arena);
    file->root = NULL;
    file->storages = NULL;
    file->storage_count = 0;
}
