/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model files and shards of the same model: a thread of low priority looks, some time after a file was hashed
 * and settled (share.h), whether its directory, the one above, those below or the newest ones beside it hold
 * a whole model file and a model in pieces. Tensor by tensor, the bytes are compared that the pieces put at
 * the same place (ckpt/counterpart.h), and what is equal is stored once. Which of the two was saved first
 * does not matter.
 *
 * A pair that was looked at is not looked at again before a file of it changes. What was not done before a
 * stop or a crash is found again at the next start.
 */
#ifndef CKPTFS_FS_SHARE_MODELS_H
#define CKPTFS_FS_SHARE_MODELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* Does nothing where sharing is off, or the mount is read-only. */
errint share_models_start(struct filesystem *fs);
/* What is under way is dropped: the next start takes it up. */
void share_models_stop(struct filesystem *fs);

/* The file is hashed, on stable storage, and was looked at for equal chunks. */
void share_models_touch(struct filesystem *fs, uint64_t ino);
/* The file is too small to be compared with any: the next start need not look at it for that. */
void share_models_pass(struct filesystem *fs, uint64_t ino);
/* What is made of the directory's shards has changed. */
void share_models_touch_directory(struct filesystem *fs, uint64_t directory);

/* Files and directories that wait to be looked at. */
size_t share_models_waiting(struct filesystem *fs);

#endif
