/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store says about itself: ckptfs.json and the secret. Part of store/store.h, which is what others
 * use.
 *
 * Both files are replaced as a whole (written beside, synced, renamed), so that a crash leaves the old one or
 * the new one.
 */
#ifndef CKPTFS_STORE_IDENTITY_H
#define CKPTFS_STORE_IDENTITY_H

#include "store/store.h"

#define IDENTITY_FILE   "ckptfs.json"
#define IDENTITY_SECRET "secret"
/* What a write that did not finish leaves behind. */
#define IDENTITY_FILE_NEW   IDENTITY_FILE ".new"
#define IDENTITY_SECRET_NEW IDENTITY_SECRET ".new"

/* Gives `store` a new id and, unless one is there already, a new secret; writes both. Nothing is logged. */
errint identity_create(struct store *store);

/* Reads both into `store`. One line is logged for each problem. */
enum store_problem identity_read(struct store *store);

/* Notes in ckptfs.json that the database was made: from now on a missing one is a loss, not a new store. */
errint identity_mark_used(struct store *store);

#endif
