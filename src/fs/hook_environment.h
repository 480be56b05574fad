/* SPDX-License-Identifier: Apache-2.0 */
/* The environment of a hook: an event's facts, and what every program expects; nothing of the daemon's own.
 */
#ifndef CKPTFS_FS_HOOK_ENVIRONMENT_H
#define CKPTFS_FS_HOOK_ENVIRONMENT_H

#include <stdint.h>

#include "base/cleanup.h"

/* Read from an event's line; a fact that it does not tell is "". */
struct hook_facts {
    char *event, *sequence, *time, *path, *run, *step, *framework, *reason, *bytes;
};

/* -EINVAL: it is no such line; -ENOMEM. `out` is given to hook_facts_release in any case. */
errint hook_facts_read(const char *line, struct hook_facts *out);
void hook_facts_release(struct hook_facts *facts);

enum { HOOK_VARIABLES_MAX = 20 };
struct hook_environment {
    char *at[HOOK_VARIABLES_MAX + 1]; /* "NAME=VALUE"; NULL at the end */
};

/* Asks the user database for the home directory of `uid`. -ENOMEM; released in any case. */
errint hook_environment_make(const char *mountpoint, const struct hook_facts *facts, uint32_t uid,
                             struct hook_environment *out);
void hook_environment_release(struct hook_environment *environment);

#endif
