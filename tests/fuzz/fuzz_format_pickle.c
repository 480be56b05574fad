/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a pickle: an inert tree in bounded memory, or one line that says why not. */
/* fuzz-sources: src/format src/base/arena.c src/base/grow.c src/base/name_table.c */
/* fuzz-libs: -lxxhash */
#include "format/pickle.h"

#include "fuzz_source.h"

/* A tree may share and repeat its nodes: only so many steps of it are walked. */
enum { FUZZ_DEPTH = 40, FUZZ_STEPS = 20000, FUZZ_NODE_BYTES = 80 };

static void fuzz_look(const struct pickle_node *node, unsigned depth, unsigned *steps);

static void fuzz_look_inside(const struct pickle_node *node, unsigned depth, unsigned *steps)
{
    for (size_t i = 0; i < pickle_dict_count(node); i++) {
        fuzz_look(pickle_dict_key(node, i), depth, steps);
        fuzz_look(pickle_dict_value(node, i), depth, steps);
    }
    for (size_t i = 0; i < pickle_count(node); i++)
        fuzz_look(pickle_item(node, i), depth, steps);
    fuzz_look(pickle_get(node, "key"), depth, steps);
    fuzz_look(pickle_attribute(node, "key"), depth, steps);
}

static void fuzz_look(const struct pickle_node *node, unsigned depth, unsigned *steps)
{
    int64_t number;
    if (!node || depth == FUZZ_DEPTH || *steps == FUZZ_STEPS)
        return;
    ++*steps;
    if (!pickle_describe(node)[0] || pickle_integer(node, &number) != (node->kind == PICKLE_INTEGER))
        abort();
    switch (node->kind) {
    case PICKLE_TEXT:
    case PICKLE_BYTES:
    case PICKLE_LARGE:
    case PICKLE_GLOBAL:
        if (node->text[node->length] != '\0')
            abort();
        break;
    case PICKLE_CALL:
        fuzz_look(node->function, depth + 1, steps);
        fuzz_look(node->keywords, depth + 1, steps);
        fuzz_look(node->state, depth + 1, steps);
        fuzz_look(node->added, depth + 1, steps);
        for (size_t i = 0; i < node->count; i++)
            fuzz_look(node->items[i], depth + 1, steps);
        break;
    case PICKLE_PERSISTENT: fuzz_look(node->items[0], depth + 1, steps); break;
    default: break;
    }
    fuzz_look_inside(node, depth + 1, steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct format_source source = fuzz_source(&input);
    cleanup_arena struct arena arena = {.limit = 256 << 20};
    struct format_problem problem = {0};
    const struct pickle_node *root = NULL, *last;
    int64_t end = 0;
    unsigned steps = 0;
    int result = pickle_read_references(&source, 0, source.size, &pickle_default_limits, &arena, &root, &last,
                                        &end, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0') ||
        arena.taken > FUZZ_NODE_BYTES * (size + 1))
        abort();
    if (result == 0) {
        if (end < 1 || end > source.size)
            abort();
        fuzz_look(root, 0, &steps);
        fuzz_look(last, 0, &steps);
    }
    return 0;
}
