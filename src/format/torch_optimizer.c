/* SPDX-License-Identifier: Apache-2.0 */
/* The storages that only an optimizer's state uses. */
#include "format/torch_optimizer.h"

#include <errno.h>
#include <stdlib.h>

#include "format/nodes.h"
#include "format/torch_storages.h"

/* Nodes that are met by several ways count each time: far more than any file has. */
enum { OPTIMIZER_DEPTH_MAX = 64, OPTIMIZER_STEPS_MAX = 1 << 24 };

/* Who uses a storage. */
enum { OPTIMIZER_STATE = 1, OPTIMIZER_OTHERS = 2 };

struct optimizer_walk {
    const struct torch_file *file;
    uint8_t *users; /* of each storage */
    size_t left;    /* steps */
};

static int optimizer_visit(struct optimizer_walk *walk, const struct pickle_node *node, unsigned depth,
                           uint8_t user);

static void optimizer_note(struct optimizer_walk *walk, const struct pickle_node *reference, uint8_t user)
{
    const struct pickle_node *key = pickle_item(reference->items[0], 2);
    if (!key || key->kind != PICKLE_TEXT)
        return;
    const struct torch_storage *storage = torch_storages_find(walk->file, key->text, key->length);
    if (storage)
        walk->users[storage - walk->file->storages] |= user;
}

/* What is under "state", if the dict is what an optimizer gives to be saved; else NULL. */
static const struct pickle_node *optimizer_state_of(const struct pickle_node *dict)
{
    const struct pickle_node *state = pickle_get(dict, "state"), *groups = pickle_get(dict, "param_groups");
    if (!pickle_is_dict(state) || !node_is_sequence(groups) || groups->count == 0)
        return NULL;
    for (size_t i = 0; i < groups->count; i++) {
        if (!pickle_get(groups->items[i], "params"))
            return NULL;
    }
    for (size_t i = 0; i < pickle_dict_count(state); i++) {
        if (!pickle_is_dict(pickle_dict_value(state, i)))
            return NULL;
    }
    return state;
}

static int optimizer_visit_dict(struct optimizer_walk *walk, const struct pickle_node *dict, unsigned depth,
                                uint8_t user)
{
    const struct pickle_node *state = optimizer_state_of(dict);
    int result = 0;
    for (size_t i = 0; i < pickle_dict_count(dict) && !result; i++) {
        const struct pickle_node *value = pickle_dict_value(dict, i);
        result = optimizer_visit(walk, pickle_dict_key(dict, i), depth, user);
        if (!result)
            result = optimizer_visit(walk, value, depth, value == state ? OPTIMIZER_STATE : user);
    }
    return result;
}

static int optimizer_visit_items(struct optimizer_walk *walk, const struct pickle_node *node, unsigned depth,
                                 uint8_t user)
{
    int result = 0;
    for (size_t i = 0; i < node->count && !result; i++)
        result = optimizer_visit(walk, node->items[i], depth, user);
    return result;
}

/* All that an object was made of. */
static int optimizer_visit_call(struct optimizer_walk *walk, const struct pickle_node *call, unsigned depth,
                                uint8_t user)
{
    bool is_dict = pickle_is_dict(call);
    const struct pickle_node *const parts[] = {call->function, call->keywords, call->state,
                                               is_dict ? NULL : call->added};
    int result = optimizer_visit_items(walk, call, depth, user);
    if (!result && is_dict)
        result = optimizer_visit_dict(walk, call, depth, user);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !result; i++)
        result = optimizer_visit(walk, parts[i], depth, user);
    return result;
}

static int optimizer_visit(struct optimizer_walk *walk, const struct pickle_node *node, unsigned depth,
                           uint8_t user)
{
    if (!node)
        return 0;
    if (depth == OPTIMIZER_DEPTH_MAX || walk->left == 0)
        return FORMAT_FOREIGN;
    walk->left--;
    switch (node->kind) {
    case PICKLE_PERSISTENT: optimizer_note(walk, node, user); return 0;
    case PICKLE_TUPLE:
    case PICKLE_LIST:
    case PICKLE_SET: return optimizer_visit_items(walk, node, depth + 1, user);
    case PICKLE_DICT: return optimizer_visit_dict(walk, node, depth + 1, user);
    case PICKLE_CALL: return optimizer_visit_call(walk, node, depth + 1, user);
    default: return 0;
    }
}

static int optimizer_compare(const void *one, const void *other)
{
    const struct torch_range *a = one, *b = other;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

int torch_optimizer_find(const struct torch_file *file, struct torch_range **out, size_t *count)
{
    *out = NULL;
    *count = 0;
    if (file->legacy)
        return FORMAT_FOREIGN;
    cleanup_free uint8_t *users = calloc(file->storage_count + 1, sizeof *users);
    cleanup_free struct torch_range *ranges = calloc(file->storage_count + 1, sizeof *ranges);
    struct optimizer_walk walk = {.file = file, .users = users, .left = OPTIMIZER_STEPS_MAX};
    if (!users || !ranges)
        return -ENOMEM;
    int result = optimizer_visit(&walk, file->root, 0, OPTIMIZER_OTHERS);
    for (size_t i = 0; i < file->storage_count && !result; i++) {
        const struct torch_storage *storage = &file->storages[i];
        if (users[i] == OPTIMIZER_STATE && storage->offset >= 0 && storage->length > 0)
            ranges[(*count)++] = (struct torch_range){storage->offset, storage->length};
    }
    if (result)
        return result;
    qsort(ranges, *count, sizeof *ranges, optimizer_compare);
    *out = steal_pointer(ranges);
    return 0;
}
