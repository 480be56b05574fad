/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which directories are complete checkpoints. Asked with no lock held, by threads that answer the kernel.
 */
#ifndef CKPTFS_FS_CHECKPOINTS_H
#define CKPTFS_FS_CHECKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

struct filesystem;

/* The directory of the complete checkpoint that a directory is, or is a part of; 0: none. */
uint64_t checkpoints_root(struct filesystem *fs, uint64_t directory);

/* Whether the directory is in a complete checkpoint. */
bool checkpoints_is_complete(struct filesystem *fs, uint64_t directory);

#endif
