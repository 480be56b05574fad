/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing: what happens to a file after its last writer has closed it. Its object becomes immutable and the
 * file's size and times move into the namespace; a small file moves there whole. One thread does it, soon
 * after the close and never before nobody can write the object any more: a mapping outlives its handle, so
 * the lease on the object decides, not the count of handles.
 */
#ifndef CKPTFS_FS_SEAL_H
#define CKPTFS_FS_SEAL_H

#include "fs/node.h"

errint seal_start(struct filesystem *fs);
/* Ends the thread; `finish`: after sealing what can be sealed now. What is left is sealed by the next daemon.
 */
void seal_stop(struct filesystem *fs, bool finish);

/* The node may be ready for its seal. Its lock may be held. */
void seal_add(struct filesystem *fs, struct node *node);

/*
 * Seals the file before the thread comes to it, if nobody can write it: for who can share its ranges only
 * then. What else a seal is followed by is the thread's. The node is loaded, its lock held exclusively.
 */
void seal_now(struct filesystem *fs, struct node *node);

#endif
