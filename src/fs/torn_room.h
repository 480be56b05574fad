/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torn checkpoints that lie out of the way (fs/torn.h) stay until somebody removes them, or until their space
 * is needed: then the oldest goes first, for good. Thread-safe.
 */
#ifndef CKPTFS_FS_TORN_ROOM_H
#define CKPTFS_FS_TORN_ROOM_H

#include <stdbool.h>

struct filesystem;

/* One was put out of the way. */
void torn_room_note(struct filesystem *fs);
/* Whether there may be one. Cheap. */
bool torn_room_has_any(struct filesystem *fs);

/* Removes one, which nobody has open. False: there is none. Blocks; `stops` ends it early. */
bool torn_room_make(struct filesystem *fs, bool (*stops)(struct filesystem *fs));

#endif
