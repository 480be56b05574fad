/* SPDX-License-Identifier: Apache-2.0 */
/* Which items of a torch.distributed.checkpoint are the model. */
#include "ckpt/dcp_names.h"

#include <errno.h>
#include <string.h>

/* Keys that a model is kept under, beside others. */
static const char *const model_keys[] = {"model", "module", "model_state_dict", "state_dict", "model_state"};

/* Keys of what is kept beside a model: accelerate, torchtitan, torch's examples, Lightning, Megatron. */
static const char *const other_keys[] = {
    "optimizer",           "optim",
    "optimizers",          "optimizer_state_dict",
    "optimizer_states",    "optim_state",
    "lr_scheduler",        "lr_schedulers",
    "scheduler",           "dataloader",
    "train_state",         "loops",
    "callbacks",           "rng_state",
    "grad_scaler",         "ema",
    "opt_param_scheduler", "rerun_state_machine",
};

struct dcp_names {
    const struct dcp_metadata *metadata;
    bool *taken;  /* the items that are still thought to be the model's */
    size_t depth; /* keys that are left away */
};

static bool dcp_is_one_of(const char *key, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

static bool dcp_is_model(const char *key)
{
    return dcp_is_one_of(key, model_keys, sizeof model_keys / sizeof *model_keys);
}

/* The key of an item at a depth; *nested: more keys follow. An item without a path has its name as only key.
 */
static const char *dcp_key_at(const struct dcp_item *item, size_t depth, bool *nested)
{
    *nested = depth + 1 < item->path_count;
    return item->path_count == 0 ? item->name : item->path[depth];
}

/* A flat name may hide the same nesting. */
static bool dcp_is_other(const char *key)
{
    static const char *const prefixes[] = {"optimizer.", "optim.", "optimizer_state."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return dcp_is_one_of(key, other_keys, sizeof other_keys / sizeof *other_keys) ||
           strstr(key, ".optimizer.state.") != NULL;
}

/* What the level at names->depth looks like. */
struct dcp_level {
    const char *only;  /* the key of all items, when more keys follow in each; NULL: there are several */
    const char *model; /* the key that the model is under; NULL: none */
};

static struct dcp_level dcp_look_at_level(const struct dcp_names *names)
{
    struct dcp_level level = {0};
    bool several = false;
    for (size_t i = 0; i < names->metadata->item_count; i++) {
        if (!names->taken[i])
            continue;
        bool nested;
        const char *key = dcp_key_at(&names->metadata->items[i], names->depth, &nested);
        if (!nested || (level.only && strcmp(level.only, key) != 0))
            several = true;
        if (!level.only)
            level.only = key;
        if (nested && !level.model && dcp_is_model(key))
            level.model = key;
    }
    if (several)
        level.only = NULL;
    return level;
}

/* Takes the items under this key alone, whose other keys then count. */
static void dcp_enter(struct dcp_names *names, const char *wanted)
{
    for (size_t i = 0; i < names->metadata->item_count; i++) {
        bool nested;
        if (names->taken[i] &&
            (strcmp(dcp_key_at(&names->metadata->items[i], names->depth, &nested), wanted) != 0 || !nested))
            names->taken[i] = false;
    }
    names->depth++;
}

/* Down to the level whose keys are the model's own. Whether they are nothing else: below the model's key. */
static bool dcp_find_level(struct dcp_names *names)
{
    bool found = false;
    while (!found) {
        struct dcp_level level = dcp_look_at_level(names);
        const char *key = level.only && names->depth == 0 ? level.only : level.model;
        if (!key || dcp_is_other(key))
            return false;
        found = dcp_is_model(key);
        dcp_enter(names, key);
    }
    return true;
}

/* The keys from a depth on, with dots between them. */
static char *dcp_join(struct arena *arena, const struct dcp_item *item, size_t depth)
{
    if (item->path_count == 0)
        return arena_copy_text(arena, item->name, strlen(item->name));
    size_t length = 0;
    for (size_t i = depth; i < item->path_count; i++)
        length += strlen(item->path[i]) + 1;
    char *name = arena_take(arena, length);
    char *end = name;
    for (size_t i = depth; name && i < item->path_count; i++) {
        if (i > depth)
            *end++ = '.';
        end = stpcpy(end, item->path[i]);
    }
    return name;
}

errint dcp_names_choose(const struct dcp_metadata *metadata, struct arena *arena, const char ***out)
{
    const char **chosen = arena_take_array(arena, metadata->item_count, sizeof *chosen);
    struct dcp_names names = {
        .metadata = metadata,
        .taken = arena_take_array(arena, metadata->item_count, sizeof *names.taken),
    };
    *out = chosen;
    if (!chosen || !names.taken)
        return -ENOMEM;
    for (size_t i = 0; i < metadata->item_count; i++)
        names.taken[i] = metadata->items[i].is_tensor;
    bool own = dcp_find_level(&names);
    for (size_t i = 0; i < metadata->item_count; i++) {
        bool nested;
        if (!names.taken[i] || (!own && dcp_is_other(dcp_key_at(&metadata->items[i], names.depth, &nested))))
            continue;
        chosen[i] = dcp_join(arena, &metadata->items[i], names.depth);
        if (!chosen[i])
            return -ENOMEM;
    }
    return 0;
}
