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
struct match;

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

/*
 * The same for ranges that were found elsewhere, whose bytes the caller has compared: what the moves say of
 * other objects and of this one, which had that root before it was read. Its bytes are on stable storage.
 * Where no file is all of the object any more it gives way to others that are whole. 0 also where nothing was
 * to do; errors as above.
 */
errint share_out_compared(struct filesystem *fs, uint64_t object, const uint8_t *root, uint32_t uid,
                          const struct match *match, bool (*stops)(struct filesystem *fs));

#endif
