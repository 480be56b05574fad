/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a torch.save file: whatever a tensor, or an optimizer's state, is said to be lies in the file.
 */
/* fuzz-sources: src/format src/base/arena.c src/base/grow.c src/base/name_table.c */
/* fuzz-libs: -lxxhash */
#include "format/torch_file.h"
#include "format/torch_optimizer.h"

#include "fuzz_source.h"

enum { FUZZ_DEPTH = 20, FUZZ_STEPS = 5000 };

struct fuzz_walk {
    struct torch_file *file;
    int64_t size;
    unsigned steps;
};

/* Where the last element of a tensor that has some ends. */
static __int128 fuzz_end(const struct tensor *tensor, int64_t count)
{
    __int128 last = count - 1;
    if (tensor->strides) {
        last = 0;
        for (uint32_t i = 0; i < tensor->shape.rank; i++)
            last += (__int128)(tensor->shape.sizes[i] - 1) * tensor->strides[i];
    }
    return tensor->offset + ((last + 1) * tensor_type_bits(tensor->type) + 7) / 8;
}

static void fuzz_tensor(struct fuzz_walk *walk, const struct pickle_node *node)
{
    struct tensor tensor;
    struct format_problem problem = {0};
    int64_t count, length, storage = torch_file_storage_offset(walk->file, node, &length);
    int result = torch_file_tensor(walk->file, node, &tensor, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0') ||
        (result == 0 && (storage < 0 || !torch_file_is_tensor(node))))
        abort();
    if (result)
        return;
    if (storage > walk->size || length < 0 || length > walk->size - storage ||
        !tensor_count(&tensor.shape, &count) || tensor.offset < storage ||
        (count > 0 && fuzz_end(&tensor, count) > storage + length))
        abort();
}

static void fuzz_look(struct fuzz_walk *walk, const struct pickle_node *node, unsigned depth)
{
    if (!node || depth == FUZZ_DEPTH || walk->steps == FUZZ_STEPS)
        return;
    walk->steps++;
    if (node->kind == PICKLE_CALL) {
        fuzz_tensor(walk, node);
        fuzz_look(walk, torch_file_attribute(node, "_local_tensor"), depth + 1);
        fuzz_look(walk, node->state, depth + 1);
        for (size_t i = 0; i < node->count; i++)
            fuzz_look(walk, node->items[i], depth + 1);
    }
    for (size_t i = 0; i < pickle_dict_count(node); i++)
        fuzz_look(walk, pickle_dict_value(node, i), depth + 1);
    for (size_t i = 0; i < pickle_count(node); i++)
        fuzz_look(walk, pickle_item(node, i), depth + 1);
}

static void fuzz_optimizer(const struct torch_file *file, int64_t size)
{
    cleanup_free struct torch_range *ranges = NULL;
    size_t count;
    int64_t end = 0;
    int result = torch_optimizer_find(file, &ranges, &count);
    if (result < 0 || (result && count > 0))
        abort();
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].offset < end || ranges[i].length <= 0 || ranges[i].length > size - ranges[i].offset)
            abort();
        end = ranges[i].offset + ranges[i].length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct format_source source = fuzz_source(&input);
    cleanup_torch_file struct torch_file file;
    struct format_problem problem = {0};
    (void)torch_file_is_likely(&source);
    int result = torch_file_read(&source, 0, source.size, &file, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0'))
        abort();
    if (result == 0) {
        struct fuzz_walk walk = {.file = &file, .size = source.size};
        fuzz_look(&walk, file.root, 0);
        fuzz_optimizer(&file, source.size);
    }
    return 0;
}
