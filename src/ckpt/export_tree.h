/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of files of an export: removed, or brought to stable storage, never through a symbolic link.
 */
#ifndef CKPTFS_CKPT_EXPORT_TREE_H
#define CKPTFS_CKPT_EXPORT_TREE_H

#include <stdbool.h>

#include "base/cleanup.h"

/* Removes what lies in a directory, except what `keeps` names by its path in it; NULL: everything. 0 or
 * -errno. */
errint export_tree_clear(int directory, bool (*keeps)(const void *context, const char *path),
                         const void *context);
/* Removes a name of the directory, with all below it. -ENOENT. */
errint export_tree_remove(int directory, const char *name);
/* Brings the names of a directory and of all below it to stable storage. 0 or -errno. */
errint export_tree_sync(int directory);

#endif
