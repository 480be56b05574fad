/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving back what no file covers: the dead chunks of objects that lost extents are punched. What is dead
 * follows from the extents alone, and is asked anew each time.
 */
#ifndef CKPTFS_FS_RECLAIM_H
#define CKPTFS_FS_RECLAIM_H

#include "base/cleanup.h"

struct filesystem;

/*
 * Looks after every object that is marked as shrunk. One that somebody has open or mapped is left for later.
 * The number of objects that are left, or a negative errno. For the thread that discards; blocks.
 */
int reclaim_run(struct filesystem *fs);

#endif
