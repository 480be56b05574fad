/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hidden directories: what a store keeps as files and directories that no path on the mount leads to.
 *
 * There is one of each kind. It has a name, its kind, whose parent is no inode but META_HIDDEN_PARENT, so
 * that no look-up from the root comes to it. All below it are inodes with names and links like others: they
 * are sealed, shared, synced, checked and moved as such, and count as kept. Only meta_path and the check know
 * that the way up from them ends there, and call it "(hidden)".
 *
 * Who shows what is below one to somebody (src/fs) sees to it that he may see it.
 */
#ifndef CKPTFS_META_HIDDEN_H
#define CKPTFS_META_HIDDEN_H

#include "meta/meta.h"

#define META_HIDDEN_PARENT UINT64_C(0)
/* What a path to something hidden begins with, for people; the root of the mount may have such a name, too.
 */
#define META_HIDDEN_TEXT "(hidden)"

/* Below it, a directory for each run that has a template (meta/template.h), named by the run's inode number.
 */
#define META_HIDDEN_TEMPLATES "templates"

/* What is being removed, each named by its inode number, until it is taken apart (fs/keep_remove.h). */
#define META_HIDDEN_REMOVED "removed"

/* Checkpoints that were not finished, under the paths that they had (fs/torn.h). */
#define META_HIDDEN_TORN "torn"

/* The directory of a kind, made if there is none. */
errint meta_hidden_make(struct meta *meta, const char *kind, int64_t now, uint64_t *ino);
/* The directory of a kind; -ENOENT: nothing was ever put there. */
errint meta_hidden_find(struct meta *meta, const char *kind, uint64_t *ino);

#endif
