/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the store's objects take on the disk, for `ckptfs status`. A thread of its own adds it up a second
 * after objects were sealed, punched or removed, at most for a twentieth of the time, and does nothing else:
 * who asks gets what is known.
 */
#ifndef CKPTFS_FS_STORED_H
#define CKPTFS_FS_STORED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

errint stored_start(struct filesystem *fs);
/* Ends the thread, in the middle of its work when it is at it. */
void stored_stop(struct filesystem *fs);
/* Objects take more or less than before. Does not block. Before the start and after the end it does nothing.
 */
void stored_kick(struct filesystem *fs);
/* In bytes; negative when it is not known yet. Does not block. */
int64_t stored_bytes(struct filesystem *fs);

#endif
