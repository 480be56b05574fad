/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: files and directories that no policy removes. A pin is the inode's: it survives renames and restarts,
 * and goes with the inode. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_PIN_H
#define CKPTFS_META_PIN_H

#include "meta/meta.h"

/* Pins it, or takes the pin away; 0 also where it is so already. -ENOENT when the inode has no name. */
errint meta_pin_set(struct meta *meta, uint64_t ino, bool pinned);
/* Whether it is pinned: 1, 0 or an error. */
int meta_pin_has(struct meta *meta, uint64_t ino);

#endif
