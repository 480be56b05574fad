/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the disk cannot punch, objects of which enough is dead are written anew without it, by a thread of
 * low priority: a copy takes long, and removals must not wait for it. What somebody sees is tried again
 * later. An interrupted repacking is undone by the next start, and done again.
 */
#ifndef CKPTFS_FS_REPACK_H
#define CKPTFS_FS_REPACK_H

#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* Nothing on a read-only mount. */
errint repack_start(struct filesystem *fs);
/* Ends the thread; what is under way is dropped. Kicks do nothing from then on. */
void repack_stop(struct filesystem *fs);
/* After the end of those who kick. */
void repack_release(struct filesystem *fs);

/*
 * Objects may have lost extents. `ticket`: which of the kicks that the discard queue has counted this follows
 * up; several may have the same. Does not block on I/O.
 */
void repack_kick(struct filesystem *fs, uint64_t ticket);

struct repack_progress {
    uint64_t done;   /* the ticket of the last try that has ended; UINT64_MAX: there are none to wait for */
    uint64_t failed; /* objects that it could not repack, other than for being seen */
};
struct repack_progress repack_look(struct filesystem *fs);

#endif
