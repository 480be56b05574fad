/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this kernel, this libfuse and these privileges allow: asked for at INIT, then tried.
 */
#ifndef CKPTFS_FS_FEATURES_H
#define CKPTFS_FS_FEATURES_H

#include "fs/filesystem.h"

/* The `init` operation: chooses capabilities. `userdata` is the filesystem. */
void features_negotiate(void *userdata, struct fuse_conn_info *connection);

/* After INIT: tries to register a file for passthrough. */
void features_probe(struct filesystem *fs);

/* Once requests are served: raises the kernel's read-ahead for this mount, which only root may. */
void features_raise_read_ahead(struct filesystem *fs);

/* One line with what is on, and what each missing part costs. */
void features_log(const struct filesystem *fs);

#endif
