/* SPDX-License-Identifier: Apache-2.0 */
/* Which policy holds for a directory. */
#include "fs/policy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/filesystem.h"

/* What the mount's options say about a key; NULL: nothing. */
static const char *policy_of_mount(const struct filesystem *fs, const struct policy_key *key)
{
    if (strcmp(key->name, POLICY_ASSEMBLE) == 0)
        return policy_assembling_text(fs->options->assemble);
    if (strcmp(key->name, POLICY_TRASH) == 0)
        return fs->options->trash;
    if (strcmp(key->name, POLICY_TRASH_AGE) == 0)
        return fs->options->trash_age;
    return NULL;
}

errint policy_find(struct filesystem *fs, uint64_t directory, const struct policy_key *key,
                   struct policy_value *out)
{
    errint error = meta_policy_find(fs->meta, directory, key->name, &out->found);
    if (!error)
        out->source = out->found.levels > 0 ? POLICY_FROM_ABOVE : POLICY_FROM_DIRECTORY;
    if (error != -ENOENT)
        return error;
    const char *value = policy_of_mount(fs, key);
    out->source = value ? POLICY_FROM_MOUNT : key->fallback ? POLICY_FROM_DEFAULT : POLICY_FROM_NOWHERE;
    snprintf(out->found.value, sizeof out->found.value, "%s",
             value           ? value
             : key->fallback ? key->fallback
                             : "");
    return 0;
}

errint policy_assemble(struct filesystem *fs, uint64_t directory, enum policy_assembling *out, bool *set)
{
    struct policy_value value;
    errint error = policy_find(fs, directory, policy_find_key(POLICY_ASSEMBLE), &value);
    if (!error && !policy_parse_assembling(value.found.value, out))
        error = -EUCLEAN;
    if (!error && set)
        *set = value.source == POLICY_FROM_DIRECTORY || value.source == POLICY_FROM_ABOVE;
    return error;
}

errint policy_trash(struct filesystem *fs, uint64_t directory, bool *keeps, int64_t *age)
{
    struct policy_value value;
    errint error = policy_find(fs, directory, policy_find_key(POLICY_TRASH), &value);
    if (!error && !policy_parse_trash(value.found.value, keeps))
        error = -EUCLEAN;
    if (error || !age)
        return error;
    error = policy_find(fs, directory, policy_find_key(POLICY_TRASH_AGE), &value);
    return error ? error : policy_parse_age(value.found.value, age) ? 0 : -EUCLEAN;
}
