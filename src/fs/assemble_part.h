/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints whose shards lie one level below them: both directories look like a checkpoint, and the upper
 * one is it.
 */
#ifndef CKPTFS_FS_ASSEMBLE_PART_H
#define CKPTFS_FS_ASSEMBLE_PART_H

#include "ckpt/model.h"
#include "fs/filesystem.h"

/*
 * Whether the directory is a part of a checkpoint that the one above it is, which is then assembled there: 1,
 * 0 or an error. -EBUSY: that cannot be told yet. Reads; for the assembling thread alone.
 */
int assemble_is_part(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs));
/* Withdraws what the parts of the directory's model show: an earlier version has assembled them too. */
void assemble_withdraw_parts(struct filesystem *fs, uint64_t directory, const struct model *model);

#endif
