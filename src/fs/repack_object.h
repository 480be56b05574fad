/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repacking one object, where the disk cannot punch or little is alive of it: what is alive of it is
 * written into a new object, all its files are re-pointed there in one transaction, and the old object is
 * removed.
 *
 * The new object has its row before its file, and its bytes are on stable storage before the files are
 * re-pointed: whatever interrupts it, the files have the one object or the other, whole, and the next start
 * removes the one that no file has.
 */
#ifndef CKPTFS_FS_REPACK_OBJECT_H
#define CKPTFS_FS_REPACK_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* Whether an object that the disk keeps `kept` bytes of is worth writing anew for the `dead` ones of them. */
bool repack_is_worth(int64_t dead, int64_t kept);

/*
 * The same where the disk can punch, of an object that has given back its dead chunks: whether a few `live`
 * bytes, each of which keeps its chunk, are little of the `kept` ones. So are the shards of a model
 * that was saved in one file, too: archives' headers, and the padding of partitions.
 */
bool repack_is_remnant(int64_t live, int64_t kept);

/*
 * Whether nobody is in the way: 0; -EBUSY: somebody sees the object, or writes a file that has something of
 * it; -EUCLEAN: a live range of it is known to be damaged, so that it stays as it is.
 */
errint repack_check(struct filesystem *fs, uint64_t object);

/*
 * Repacks the object, where that is worth it. 0 also when it is not, and when the object is damaged: found so
 * here, that is recorded and logged. -EBUSY: not now; -ENOSPC: the disk has no room for both, and both must
 * be there for a moment; -ECANCELED: `stops` said so. For a thread that serves no request; blocks for long.
 */
errint repack_object(struct filesystem *fs, uint64_t object, bool (*stops)(struct filesystem *fs));

/* The same for a remnant, which is copied in a moment: 1 when it was written anew, 0 when it is none. */
int repack_remnant(struct filesystem *fs, uint64_t object, bool (*stops)(struct filesystem *fs));

#endif
