/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start finds: the rests of a daemon that died, or of a power cut.
 *
 * As long as the page cache that the store was written through is the same (the epoch tells), nothing that
 * was written is lost, and what was left open is sealed. Otherwise every file that was not known to be on
 * stable storage is torn: it keeps the beginning that was certainly written (one that was synced before and
 * then changed: all but what the change lost, which reads as zeros), and names whose new file is torn get
 * their old file back.
 */
#ifndef CKPTFS_FS_RECOVER_H
#define CKPTFS_FS_RECOVER_H

#include "fs/filesystem.h"

/* Before the first request of a new mount; the queues need not run yet. */
errint recover_at_mount(struct filesystem *fs);
/* After the handles are restored (or at a new mount): gives every unfinished file to its queue. */
errint recover_unfinished(struct filesystem *fs, bool takeover);
/* Removes inodes without a name that nobody has open: at a start, and when the kernel has let go of all. */
errint recover_orphans(struct filesystem *fs);
/* At the end: everything is written, the next mount need not look. */
errint recover_mark_clean(struct filesystem *fs);

#endif
