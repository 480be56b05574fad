/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a checkpoint: its directory, or the one file that it is, leaves its name at once, for a hidden
 * directory (meta/hidden.h), and is taken apart there. Readers see it whole or not at all; a death in between
 * is made up for at the next start. The times of the directory that it lay in stay as they were.
 */
#ifndef CKPTFS_FS_KEEP_REMOVE_H
#define CKPTFS_FS_KEEP_REMOVE_H

#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/*
 * Removes it for the reason, which is logged. -EBUSY: it is pinned, wanted for an export, a running job began
 * with it, or a file of it is open or being written; -ENOENT, also where it is in the trash by now; -EINVAL
 * for the root. Thread-safe; holds no lock for long.
 */
errint keep_remove(struct filesystem *fs, uint64_t ino, const char *reason);

/*
 * The same of what lies below a hidden directory that .ckptfs shows: it does not go to the trash, and
 * directories that are empty then go with it. `run`: the directory on the mount whose owner is told of it.
 */
errint keep_remove_for_good(struct filesystem *fs, uint64_t ino, uint64_t run, const char *reason);

/* Takes apart a directory that lies in META_HIDDEN_REMOVED, under its number. */
errint keep_remove_hidden(struct filesystem *fs, uint64_t ino);

/* Takes apart what an earlier daemon did not come to. */
errint keep_remove_rest(struct filesystem *fs);

#endif
