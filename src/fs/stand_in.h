/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An fsync of a file that was saved before without a change (sharing=forward): where an older object of the
 * same owner has all of its bytes, on stable storage, they need not be written for it to be safe. Instead one
 * transaction says that a power cut leaves the older ones in their place (meta/stand_in.h). After the last
 * close the file gives way to the older one, as without an fsync (share.h), or is written after all.
 *
 * What counts is what was written before the fsync began: those bytes are hashed, from the page cache, and
 * compared with the older object's hashes. Others that come meanwhile are in it or not, each as it is; the
 * write-back looks after them, as after those that come later.
 */
#ifndef CKPTFS_FS_STAND_IN_H
#define CKPTFS_FS_STAND_IN_H

#include <stdbool.h>

struct filesystem;
struct node;

/*
 * Whether the file has a stand-in now: after meta_sync all that was written to it is safe. Else, and after
 * any error, it is to be synced. Blocks while all of it is hashed, or up to the first difference; no lock is
 * held.
 */
bool stand_in_take(struct filesystem *fs, struct node *node);

/*
 * Whether a file that is being written may still come to equal an older one (`grows`: it may become larger),
 * so that it is worth to leave its bytes in memory: false when what is there of it is in none of them. Looks
 * at a chunk or two of each. Blocks; no lock is held.
 */
bool stand_in_is_likely(struct filesystem *fs, struct node *node, bool grows);

#endif
