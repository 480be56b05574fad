/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `.ckptfs/latest` and `.ckptfs/best`: a tree of the directories that lead to runs, and for each run a
 * symbolic link, with the run's own path, to its latest or best checkpoint (fs/checkpoints.h). A run without
 * such a checkpoint has no link. Where the mount's root is the run itself, `latest` is the link.
 */
#ifndef CKPTFS_FS_VIEW_LINKS_H
#define CKPTFS_FS_VIEW_LINKS_H

#include "fs/checkpoints.h"
#include "fs/listing.h"

/* What the tree has at an inode of the namespace. */
enum view_link_kind {
    VIEW_LINK_NONE,
    VIEW_LINK_DIRECTORY, /* it leads to runs */
    VIEW_LINK,           /* it is a run with such a checkpoint */
};

/* Looks through the runs. */
enum view_link_kind view_links_look(struct filesystem *fs, enum checkpoint_mark mark, uint64_t ino);

/* The path that the link of a run has as its target, relative to where it lies. The caller frees *out.
 * -ENOENT: it has none any more. */
errint view_links_target(struct filesystem *fs, enum checkpoint_mark mark, uint64_t run, char **out);

/* The entries of a directory of the tree that come after the cookie, until `entry` returns false. The
 * cookies are inode numbers. No lock is held. */
errint view_links_list(struct filesystem *fs, enum checkpoint_mark mark, uint64_t directory, uint64_t after,
                       bool (*entry)(void *context, const char *name, size_t length, uint64_t ino,
                                     enum view_link_kind kind),
                       void *context);

#endif
