/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others lend to a checkpoint (fs/models.h), as clones in its own directory beside the assembled model
 * (meta/lent.h), so that loaders take the directory as it is. Loaders that resume care for these names even
 * less than for the model's: where that is harmless (ckpt/beside.h), they are.
 */
#ifndef CKPTFS_FS_ASSEMBLE_LEND_H
#define CKPTFS_FS_ASSEMBLE_LEND_H

#include "fs/filesystem.h"

/* What the directories that were looked at last could lend: those below them are left alone while that is the
 * same. Starts as {0}. */
struct assemble_lenders {
    struct {
        uint64_t directory, lends;
    } at[64];
    size_t next;
};

/*
 * Brings the clones of the directory, and of the checkpoints right below it, to what is lent to them now.
 * -EBUSY: something that is lent is written, or not on stable storage yet; all else is done. For the
 * assembling thread alone.
 */
errint assemble_lend_around(struct filesystem *fs, struct assemble_lenders *lenders, uint64_t directory,
                            bool (*stops)(struct filesystem *fs));

#endif
