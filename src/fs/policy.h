/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for a directory of the mount: its own policy, else that of the nearest directory above it, else
 * the mount's option, else the default of the key (ckpt/policy.h). Thread-safe; reads the namespace only.
 */
#ifndef CKPTFS_FS_POLICY_H
#define CKPTFS_FS_POLICY_H

#include "ckpt/policy.h"
#include "meta/policy.h"

struct filesystem;

enum policy_source {
    POLICY_FROM_NOWHERE, /* there is no value */
    POLICY_FROM_DIRECTORY,
    POLICY_FROM_ABOVE, /* `levels` says how far */
    POLICY_FROM_MOUNT,
    POLICY_FROM_DEFAULT,
};

struct policy_value {
    enum policy_source source;
    struct meta_policy_found found; /* `value` in any case; the rest where a directory has it */
};

errint policy_find(struct filesystem *fs, uint64_t directory, const struct policy_key *key,
                   struct policy_value *out);

/* When the shards in a directory become a model. `set` (may be NULL): by a directory's policy, not only by
 * the mount or the default. -EUCLEAN: what was set is none of the words. */
errint policy_assemble(struct filesystem *fs, uint64_t directory, enum policy_assembling *out, bool *set);

/* Whether the trash keeps what is removed in the directory, and (unless NULL) for how long, in ns. -EUCLEAN
 * as above. */
errint policy_trash(struct filesystem *fs, uint64_t directory, bool *keeps, int64_t *age);

#endif
