/* SPDX-License-Identifier: Apache-2.0 */
/* What a run's policy means for its checkpoints: tried, and applied at once. */
#ifndef CKPTFS_CMD_POLICY_KEEP_H
#define CKPTFS_CMD_POLICY_KEEP_H

#include <stdbool.h>

/* Prints which checkpoints of the run would stay or go, and why, if these words (KEY=VALUE, checked, ended by
 * NULL) were set besides what is. Returns the exit code. */
int policy_try(const char *path, char **words, bool json);

/* Has the mount apply the policy, and prints what it removed. Returns the exit code. */
int policy_apply(const char *path, bool json);

#endif
