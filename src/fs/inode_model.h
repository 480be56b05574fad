/* SPDX-License-Identifier: Apache-2.0 */
/* One file of the mount, found by its number, as a model: a file of weights that may have no name. */
#ifndef CKPTFS_FS_INODE_MODEL_H
#define CKPTFS_FS_INODE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "ckpt/model.h"

struct filesystem;

/*
 * Reads the file as safetensors or torch.save's, through the daemon's own objects. What cannot be read is a
 * note of the model, which has passed model_check. The caller gives it to model_release in any case. 0,
 * -ENOENT, -ENOMEM, -EIO, or -ECANCELED: `stops` said so. Takes the node's lock for each read; the caller
 * holds none.
 */
errint inode_model_load(struct filesystem *fs, uint64_t ino, bool (*stops)(struct filesystem *fs),
                        struct model *out);

#endif
