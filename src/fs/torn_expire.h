/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of what was torn (fs/torn.h): it stays below .ckptfs/torn for as long as the trash keeps removed
 * checkpoints of the directory that it was in (the policy trash-age), and where the space is needed it goes
 * before these. What somebody has open, or has pinned, waits.
 *
 * For the thread of the trash: these read the namespace, and block for long.
 */
#ifndef CKPTFS_FS_TORN_EXPIRE_H
#define CKPTFS_FS_TORN_EXPIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct filesystem;

/* Removes what is due at the time `now` (clock_wall), and returns how many that were. `*due` becomes the time
 * at which the next one is, where that is earlier. */
size_t torn_expire(struct filesystem *fs, int64_t now, int64_t *due);
/* Removes the one that was torn first. False: none can be. */
bool torn_give_up_first(struct filesystem *fs);
/* Whether there is any. */
bool torn_has_any(struct filesystem *fs);

#endif
