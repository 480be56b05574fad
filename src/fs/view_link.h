/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inodes of the links below `latest` and `best`: their numbers, and what stands behind each. Which links
 * there are is fs/view_links.h's.
 */
#ifndef CKPTFS_FS_VIEW_LINK_H
#define CKPTFS_FS_VIEW_LINK_H

#include "fs/checkpoints.h"
#include "fs/view.h"

/* The mark of the checkpoints that a link, or a directory of links, of this kind leads to. */
enum checkpoint_mark view_link_mark(enum view_kind kind);
/* The number of what a directory of links, of this kind, has for an inode: a link or a directory; 0: nothing.
 */
uint64_t view_link_find(struct filesystem *fs, enum view_kind directory, uint64_t ino);
/* The target as the number has it, for free(); -ENOENT: it is another one by now. */
errint view_link_target(struct filesystem *fs, uint64_t number, char **out);
/* A link has its run's owner, and as its size the length of its target. Errors as of view_link_target. */
errint view_link_row(struct filesystem *fs, uint64_t number, struct meta_inode *row);

#endif
