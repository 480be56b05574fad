/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full disk under the store. Once the reserve had to be touched so that a change could be committed, new
 * files are refused, and only what frees space goes on; until the reserve could be made whole again, which is
 * tried whenever somebody asks: space may come back by an unlink here, or by whoever else uses the disk.
 * Thread-safe.
 */
#ifndef CKPTFS_FS_SPACE_H
#define CKPTFS_FS_SPACE_H

#include "base/cleanup.h"

struct filesystem;

/* For meta_on_full: gives up a part of the reserve; `context` is the filesystem. -ENOSPC: nothing is left. */
errint space_spend(void *context);

/* The same for the opening of the database, which may take all that is left. */
errint space_spend_last(struct filesystem *fs);

/* 0, or -ENOSPC: for what takes space and can be refused. Costs a statvfs(2) while the disk is full. */
errint space_check(struct filesystem *fs);

#endif
