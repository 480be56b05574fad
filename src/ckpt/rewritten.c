/* SPDX-License-Identifier: Apache-2.0 */
/* Two saves in one directory. */
#include "ckpt/rewritten.h"

#include <fnmatch.h>

/* What every save writes anew: not what describes the model, nor a tokenizer, nor what people add. */
static const char *const rewritten_parts[] = {
    "*.safetensors", "*.bin", "*.pt",  "*.pth", "*.ckpt",    "*.pkl",
    "*.distcp",      "*.npz", "*.npy", "*.h5",  "*.msgpack",
};

/* What a save writes when all the rest is there. */
static const char *const rewritten_ends[] = {"trainer_state.json", ".metadata"};

/* What is for people, and for the tools that they write with. Whatever is not here may be needed. */
static const char *const rewritten_for_people[] = {
    "README*", "*.md",  "LICENSE*", "NOTICE*", ".git*", "*.log",  "events.out.tfevents.*",
    "*.png",   "*.svg", "*.csv",    "*.html",  "*~",    ".*.sw?",
};

static bool rewritten_matches(const char *name, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

/* A file with tensors, or one that a save writes last. */
static bool rewritten_is_part(const struct tree_entry *entry)
{
    return !entry->directory &&
           (rewritten_matches(entry->name, rewritten_parts, sizeof rewritten_parts / sizeof(char *)) ||
            rewritten_matches(entry->name, rewritten_ends, sizeof rewritten_ends / sizeof(char *)));
}

static bool rewritten_is_same(const struct tree_entry *one, const struct tree_entry *other)
{
    return other && !other->directory && one->size == other->size && one->time == other->time;
}

/* Whether the other tree has all that a save writes of this one, as it is there. */
static bool rewritten_has_all(const struct tree *one, const struct tree *other)
{
    bool has = true;
    for (size_t i = 0; i < one->count && has; i++)
        has = !rewritten_is_part(&one->at[i]) ||
              rewritten_is_same(&one->at[i], tree_find(other, one->at[i].path));
    return has;
}

bool rewritten_is_edit(const struct tree *before, const struct tree *now)
{
    return rewritten_has_all(before, now) && rewritten_has_all(now, before);
}

bool rewritten_is_mixed(const struct tree *before, const struct tree *now)
{
    size_t same = 0, other = 0, ends_same = 0, ends_other = 0;
    for (size_t i = 0; i < before->count; i++) {
        const struct tree_entry *old = &before->at[i];
        if (!rewritten_is_part(old))
            continue;
        bool end = rewritten_matches(old->name, rewritten_ends, sizeof rewritten_ends / sizeof(char *));
        bool is_same = rewritten_is_same(old, tree_find(now, old->path));
        same += is_same;
        other += !is_same;
        ends_same += end && is_same;
        ends_other += end && !is_same;
    }
    return same > 0 && other > 0 && (ends_same > 0 || ends_other == 0);
}

bool rewritten_is_needed(const char *name)
{
    return !rewritten_matches(name, rewritten_for_people, sizeof rewritten_for_people / sizeof(char *));
}

bool rewritten_is_added_to(const struct tree *before, const struct tree *now)
{
    bool has = true;
    for (size_t i = 0; i < before->count && has; i++) {
        const struct tree_entry *old = &before->at[i];
        has = old->directory || !rewritten_is_needed(old->name) ||
              rewritten_is_same(old, tree_find(now, old->path));
    }
    return has;
}
