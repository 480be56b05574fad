/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing bytes before they are shared (verify-on-share=yes, and always between owners): equal hashes are
 * taken for a hint only.
 */
#ifndef CKPTFS_FS_SHARE_COMPARE_H
#define CKPTFS_FS_SHARE_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;
struct ids;
struct match;

/*
 * Of the older objects in `which`, takes those moves off the match whose bytes differ from the object's, or
 * cannot be read; a line is logged for each. Only what some file still needs of an older object is looked at.
 * Reads both sides: for a thread that may wait. -ECANCELED: `stops` said so.
 */
errint share_compare(struct filesystem *fs, uint64_t object, const struct ids *which, struct match *match,
                     bool (*stops)(struct filesystem *fs));

#endif
