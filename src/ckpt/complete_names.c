/* SPDX-License-Identifier: Apache-2.0 */
/* Which files checkpoints have in common. */
#include "ckpt/complete_names.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/side_files.h"

/* How many checkpoints before it and behind it one is compared with. */
enum { NAMES_NEAR = 8 };

/* Patterns of file names that are compared, wherever in the checkpoint they lie. */
static const char *const names_compared[] = {
    "*.safetensors",
    "*pytorch_model*.bin",
    "adapter_model*.bin",
    "optimizer*",
    "scheduler.*",
    "sampler*.bin",
    "scaler.pt",
    "rng_state*.pth",
    "random_states_*.pkl",
    "trainer_state.json",
    "training_args.bin",
    "latest",
    ".metadata",
    "*.distcp",
    "*_states.pt",
    "*_world_size_*.pt",
    "custom_checkpoint_*.pkl",
    "rank*-of-*.bin",
    "rank*-of-*.pt",
};

/* Patterns that are not: people edit these, and a shard's number of digits is its own. */
static const char *const names_ignored[] = {"README.md", "LICENSE*", "*.py", "*-of-*.safetensors",
                                            "*model*-of-*.bin"};

/* Patterns of files with weights. */
static const char *const names_weights[] = {"*.safetensors", "*pytorch_model*.bin", "adapter_model*.bin"};

static bool names_match(const char *name, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

static bool names_is_compared(const struct tree_entry *entry)
{
    if (entry->directory ||
        names_match(entry->name, names_ignored, sizeof names_ignored / sizeof *names_ignored))
        return false;
    return side_file_is(entry->name) ||
           names_match(entry->name, names_compared, sizeof names_compared / sizeof *names_compared);
}

/* Whether people may have put it there later: a tokenizer, or weights, merged or converted. */
static bool names_may_be_made(const struct tree_entry *entry)
{
    return side_file_is(entry->name) ||
           names_match(entry->name, names_weights, sizeof names_weights / sizeof *names_weights);
}

/* In place. */
static void names_replace_numbers(char *name)
{
    char *to = name;
    for (const char *from = name; *from;) {
        size_t digits = strspn(from, "0123456789");
        *to++ = digits > 0 ? '#' : *from;
        from += digits > 0 ? digits : 1;
    }
    *to = '\0';
}

static int names_compare(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* Sorts, and keeps one of each. */
static void names_sort(struct complete_names *names)
{
    size_t kept = 0;
    if (names->count == 0)
        return;
    qsort(names->at, names->count, sizeof *names->at, names_compare);
    for (size_t i = 0; i < names->count; i++) {
        if (kept == 0 || strcmp(names->at[kept - 1], names->at[i]) != 0)
            names->at[kept++] = names->at[i];
    }
    names->count = kept;
}

/* Without what may have been made of the rest after `end`. */
static errint names_collect(const struct tree *tree, int64_t end, struct arena *arena,
                            struct complete_names *out)
{
    cleanup_free const char **all = calloc(tree->count + 1, sizeof *all);
    struct complete_names found = {.at = all};
    if (!all)
        return -ENOMEM;
    for (size_t i = 0; i < tree->count; i++) {
        const struct tree_entry *entry = &tree->at[i];
        if (!names_is_compared(entry) || (entry->time > end && names_may_be_made(entry)))
            continue;
        char *name = arena_copy_text(arena, entry->path, strlen(entry->path));
        if (!name)
            return -ENOMEM;
        names_replace_numbers(name);
        all[found.count++] = name;
    }
    names_sort(&found);
    out->at = arena_take_array(arena, found.count, sizeof *out->at);
    if (!out->at && found.count > 0)
        return -ENOMEM;
    if (found.count > 0)
        memcpy(out->at, all, found.count * sizeof *all);
    out->count = found.count;
    return 0;
}

errint complete_names_collect(const struct tree *tree, struct complete *out)
{
    const struct tree_entry *last = tree_find(tree, "trainer_state.json");
    errint error = names_collect(tree, INT64_MAX, &out->arena, &out->names);
    return error ? error : names_collect(tree, last ? last->time : INT64_MAX, &out->arena, &out->shared);
}

bool complete_names_has(const struct complete_names *names, const char *name)
{
    return names->count > 0 && bsearch(&name, names->at, names->count, sizeof name, names_compare);
}

bool complete_names_is_for_resume(const char *name)
{
    static const char *const patterns[] = {"optimizer*",     "scheduler.*", "scaler.pt",
                                           "rng_state*.pth", "latest",      "*_states.pt"};
    return names_match(name, patterns, sizeof patterns / sizeof *patterns);
}

bool complete_names_is_lent(const char *name)
{
    return strcmp(name, "model.safetensors") == 0 || (!strchr(name, '/') && side_file_is(name));
}

/* -- learning ---------------------------------------------------------------------------------------------
 */

static bool names_is_like(const struct complete *one, const struct complete *other)
{
    return other->state >= COMPLETE_WEIGHTS &&
           (one->config_hash == 0 || other->config_hash == 0 || one->config_hash == other->config_hash);
}

errint complete_names_learn(const struct complete *const *all, size_t count, size_t of,
                            struct complete_names *out)
{
    *out = (struct complete_names){0};
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        const struct complete *other = all[i];
        if (i == of || i + NAMES_NEAR < of || i > of + NAMES_NEAR || !names_is_like(all[of], other))
            continue;
        if (!any) {
            out->at = calloc(other->shared.count + 1, sizeof *out->at);
            if (!out->at)
                return -ENOMEM;
            if (other->shared.count > 0)
                memcpy(out->at, other->shared.at, other->shared.count * sizeof *out->at);
            out->count = other->shared.count;
            any = true;
            continue;
        }
        size_t kept = 0;
        for (size_t j = 0; j < out->count; j++) {
            if (complete_names_has(&other->shared, out->at[j]))
                out->at[kept++] = out->at[j];
        }
        out->count = kept;
    }
    return 0;
}
