/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies: settings of directories, a text for a key. What a directory has not itself comes from the nearest
 * directory above it that has it. They stay with their directory when that is renamed, and go with it.
 *
 * What a key or a value means is not known here (ckpt/policy.h). Otherwise as meta.h.
 */
#ifndef CKPTFS_META_POLICY_H
#define CKPTFS_META_POLICY_H

#include "meta/meta.h"

/* Bytes of a key or a value, with the NUL behind them. */
enum { META_POLICY_KEY_MAX = 64, META_POLICY_VALUE_MAX = 4096 };

struct meta_policy_change {
    const char *key;
    const char *value; /* NULL: the directory has none of its own any more, if it had one */
};

/* All of them, or none. -ENOENT when the directory is gone; -ENOTDIR; -EINVAL for a key or value that is
 * empty or too long. */
errint meta_policy_change(struct meta *meta, uint64_t directory, const struct meta_policy_change *changes,
                          size_t count);

/* The same, and who has set them is kept. */
errint meta_policy_change_by(struct meta *meta, uint64_t directory, const struct meta_policy_change *changes,
                             size_t count, uint32_t uid, uint32_t gid);

/* Where a value comes from. */
struct meta_policy_found {
    uint64_t directory; /* that has it */
    unsigned levels;    /* it is so many above the one that was asked for; 0: it is that */
    uint32_t uid, gid;  /* who has set it; UINT32_MAX: not known */
    char value[META_POLICY_VALUE_MAX];
};

/* The nearest one. -ENOENT when neither the directory nor one above it has the key. */
errint meta_policy_find(struct meta *meta, uint64_t directory, const char *key,
                        struct meta_policy_found *out);

/* The directories that have the key themselves; appended, those that are there already too. */
errint meta_policy_find_directories(struct meta *meta, const char *key, struct ids *out);

/* The directories that have this very value for the key themselves: appended. */
errint meta_policy_holders(struct meta *meta, const char *key, const char *value, struct ids *out);

#endif
