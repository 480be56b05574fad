/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a daemon (its store, its queues, its threads), in the order in which they start and end. For
 * serve.c, which serves requests in between.
 */
#ifndef CKPTFS_FS_SERVE_PARTS_H
#define CKPTFS_FS_SERVE_PARTS_H

#include <stdbool.h>

#include "base/cleanup.h"

struct filesystem;

/* Everything before the first request. An error leaves it to serve_finish to end what was started. */
errint serve_prepare(struct filesystem *fs);
/*
 * Ends everything, after a start that failed, too: what was not started has nothing to end. `unmounted`:
 * there is no successor. An error: the store was not closed in order, and the next mount looks after it.
 */
errint serve_finish(struct filesystem *fs, bool unmounted);

#endif
