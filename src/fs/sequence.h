/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether meta.db is the one that the store was last used with. An older copy of it knows nothing of the
 * objects made since, which a mount would take for the rests of a crash and remove.
 *
 * A number in the database, and in the file STORE/sequence, goes up at each mount, after each backup and at
 * each unmount: on stable storage first in the database and its journal, then in the file. So a database with
 * a smaller number than the file's is an older copy, and none that was cut off by a crash ever is.
 */
#ifndef CKPTFS_FS_SEQUENCE_H
#define CKPTFS_FS_SEQUENCE_H

#include "meta/meta.h"
#include "store/store.h"

/* What is said of one, behind its path. */
#define SEQUENCE_OLDER "is an older copy, which does not know what was stored after it"

/* -ESTALE for an older copy. A store without the file (made by an earlier version) passes. */
errint sequence_check(struct store *store, struct meta *meta);

/* Makes every copy that exists of the database an older one. Blocks for two syncs. */
errint sequence_advance(struct store *store, struct meta *meta);

/* The database's own number; 0: none. */
errint sequence_of(struct meta *meta, uint64_t *out);

#endif
