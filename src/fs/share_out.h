/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Older files give way to a new object that has the same bytes, so that the newest file stays whole. An
 * object whose turn comes late, after that of one that was made later, gives way to it. Where an older object
 * equals all of the new one and is many files already, the new one gives way to that: else each save of a
 * file that all checkpoints have (a tokenizer) would change the rows of all of them.
 */
#ifndef CKPTFS_FS_SHARE_OUT_H
#define CKPTFS_FS_SHARE_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/*
 * Shares the object that is all of the file `ino` with other files of `uid`, its owner; with share-owners=yes
 * with everybody's, after a compare. -EBUSY: some of them cannot be touched now; -ECANCELED: `stops` said so.
 */
errint share_out(struct filesystem *fs, uint64_t ino, uint32_t uid, uint64_t object,
                 bool (*stops)(struct filesystem *fs));

/*
 * Lets the file `ino`, which is all of this object and may not be on stable storage yet, give way to an older
 * object that is and has the same bytes. 1: it has; 0: there is none; or an error, as above.
 */
int share_forward(struct filesystem *fs, uint64_t ino, uint32_t uid, uint64_t object,
                  bool (*stops)(struct filesystem *fs));

#endif
