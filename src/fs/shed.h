/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up a part of a checkpoint for its space: the optimizer's state, in files of its own or in ranges of
 * files that hold weights, too (ckpt/optimizer_parts.h). The files stay, with their sizes and times, and
 * reading what was given up is EIO, never zeros: a resume that begins with it fails loudly. Which checkpoints
 * may be shed is the policy's matter (ckpt/keep.h).
 *
 * Thread-safe; not for a thread that answers the kernel, and no lock is held.
 */
#ifndef CKPTFS_FS_SHED_H
#define CKPTFS_FS_SHED_H

#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* How many bytes there are to shed; 0: none. Reads headers and pickles of files that hold more. */
int64_t shed_bytes(struct filesystem *fs, uint64_t checkpoint);

/* Sheds it, or some of its files, when others are in use by then; the reason is logged, and told. -EBUSY as
 * keep_remove, or a file is in use, or was changed meanwhile; -ENODATA: there is nothing. */
errint shed_checkpoint(struct filesystem *fs, uint64_t checkpoint, const char *reason);

#endif
