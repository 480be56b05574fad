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

static bool rewritten_matches(const char *name, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

bool rewritten_is_mixed(const struct tree *before, const struct tree *now)
{
    size_t same = 0, other = 0, ends_same = 0, ends_other = 0;
    for (size_t i = 0; i < before->count; i++) {
        const struct tree_entry *old = &before->at[i], *new = tree_find(now, old->path);
        bool end = rewritten_matches(old->name, rewritten_ends, sizeof rewritten_ends / sizeof(char *));
        if (old->directory ||
            (!end && !rewritten_matches(old->name, rewritten_parts, sizeof rewritten_parts / sizeof(char *))))
            continue;
        bool is_same = new && !new->directory &&new->size == old->size &&new->time == old->time;
        same += is_same;
        other += !is_same;
        ends_same += end && is_same;
        ends_other += end && !is_same;
    }
    return same > 0 && other > 0 && (ends_same > 0 || ends_other == 0);
}
