/* SPDX-License-Identifier: Apache-2.0 */
/* The storages that only an optimizer's state uses. */
#include "format/torch_optimizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

bool torch_optimizer_is_copy(const char *key, size_t length)
{
    static const char *const words[] = {"master", "param", "weight", "fp32", "shadow", "slow"};
    static const char *const keys[] = {"ax", "ema", "z"};
    bool copy = false;
    for (size_t i = 0; i < sizeof words / sizeof *words && !copy; i++)
        copy = memmem(key, length, words[i], strlen(words[i])) != NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !copy; i++)
        copy = length == strlen(keys[i]) && memcmp(key, keys[i], length) == 0;
    return copy;
}

/* torch.load makes a text of any key: of one that is none it is not known which storage it means. */
static int optimizer_note(struct optimizer_walk *walk, const struct pickle_node *reference, uint8_t user)
{
    const struct pickle_node *key = pickle_item(reference->items[0], 2);
    if (!key || key->kind != PICKLE_TEXT)
        return FORMAT_FOREIGN;
    const struct torch_storage *storage = torch_storages_find(walk->file, key->text, key->length);
    if (storage)
        walk->users[storage - walk->file->storages] |= user;
    return 0;
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

static int optimizer_visit_items(struct optimizer_walk *walk, const struct pickle_node *node, unsigned depth,
                                 uint8_t user)
{
    int result = 0;
    for (size_t i = 0; i < node->count && !result; i++)
        result = optimizer_visit(walk, node->items[i], depth, user);
    return result;
}

/* All that an object was made of, but for a dict's entries. */
static int optimizer_visit_object(struct optimizer_walk *walk, const struct pickle_node *call, unsigned depth,
                                  uint8_t user)
{
    bool entries = pickle_is_dict(call) && call->added && call->added->kind == PICKLE_DICT;
    const struct pickle_node *const parts[] = {call->function, call->keywords, call->state,
                                               entries ? NULL : call->added};
    int result = optimizer_visit_items(walk, call, depth, user);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !result; i++)
        result = optimizer_visit(walk, parts[i], depth, user);
    return result;
}

/* What an optimizer keeps of one parameter. */
static int optimizer_visit_parameter(struct optimizer_walk *walk, const struct pickle_node *dict,
                                     unsigned depth)
{
    int result = 0;
    if (dict->kind == PICKLE_CALL)
        result = optimizer_visit_object(walk, dict, depth, OPTIMIZER_OTHERS);
    for (size_t i = 0; i < pickle_dict_count(dict) && !result; i++) {
        const struct pickle_node *key = pickle_dict_key(dict, i);
        bool copy = key && key->kind == PICKLE_TEXT && torch_optimizer_is_copy(key->text, key->length);
        result = optimizer_visit(walk, key, depth, OPTIMIZER_OTHERS);
        if (!result)
            result = optimizer_visit(walk, pickle_dict_value(dict, i), depth,
                                     copy ? OPTIMIZER_OTHERS : OPTIMIZER_STATE);
    }
    return result;
}

static int optimizer_visit_state(struct optimizer_walk *walk, const struct pickle_node *state, unsigned depth)
{
    int result = 0;
    if (state->kind == PICKLE_CALL)
        result = optimizer_visit_object(walk, state, depth, OPTIMIZER_OTHERS);
    for (size_t i = 0; i < pickle_dict_count(state) && !result; i++) {
        result = optimizer_visit(walk, pickle_dict_key(state, i), depth, OPTIMIZER_OTHERS);
        if (!result)
            result = optimizer_visit_parameter(walk, pickle_dict_value(state, i), depth);
    }
    return result;
}

static int optimizer_visit_dict(struct optimizer_walk *walk, const struct pickle_node *dict, unsigned depth,
                                uint8_t user)
{
    const struct pickle_node *state = optimizer_state_of(dict);
    int result = 0;
    for (size_t i = 0; i < pickle_dict_count(dict) && !result; i++) {
        const struct pickle_node *key = pickle_dict_key(dict, i), *value = pickle_dict_value(dict, i);
        result = optimizer_visit(walk, key, depth, user);
        if (!result && state && value == state && pickle_is_text(key, "state"))
            result = optimizer_visit_state(walk, state, depth);
        else if (!result)
            result = optimizer_visit(walk, value, depth, user);
    }
    return result;
}

static int optimizer_visit_call(struct optimizer_walk *walk, const struct pickle_node *call, unsigned depth,
                                uint8_t user)
{
    int result = optimizer_visit_object(walk, call, depth, user);
    return result || !pickle_is_dict(call) ? result : optimizer_visit_dict(walk, call, depth, user);
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
    case PICKLE_PERSISTENT: return optimizer_note(walk, node, user);
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
