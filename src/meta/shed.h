/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose bytes were given up while their name, size and times stay (META_SHED): they cannot be read,
 * which is what tells whoever needs them. Truncated to nothing, such a file is like any other.
 */
#ifndef CKPTFS_META_SHED_H
#define CKPTFS_META_SHED_H

#include "meta/meta.h"

/*
 * Gives the file's bytes up; objects that no file needs any more are appended to *freed. -EBUSY where the
 * file is not sealed, or not on stable storage; -ENODATA where it has no bytes outside the database, or none
 * any more.
 */
errint meta_shed(struct meta *meta, uint64_t ino, struct ids *freed);

#endif
