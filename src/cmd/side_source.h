/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a checkpoint's configuration, tokenizer and code are read from: its own directory, or, on a mount of
 * ours, the view of it, which has besides what others lend (fs/models.h).
 */
#ifndef CKPTFS_CMD_SIDE_SOURCE_H
#define CKPTFS_CMD_SIDE_SOURCE_H

#include "ckpt/folder.h"

struct side_source {
    struct folder folder;
    struct folder_listing listing; /* the folder's */
    char *base;                    /* the directory that the run's template was made of; NULL: none */
};

/* Of a checkpoint, a directory or a file in one; `strict`: as folder_plain_strict. 0 or -errno; the caller
 * releases it in any case. */
errint side_source_open(const char *path, bool strict, struct side_source *out);
void side_source_release(struct side_source *source);

#endif
