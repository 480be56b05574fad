/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose bytes, all or some, were given up while their name, size and times stay (META_SHED): what no
 * extent covers of such a file is no hole, and cannot be read, which is what tells whoever needs it. Nothing
 * is written into such a file; truncated to nothing, it is like any other.
 */
#ifndef CKPTFS_META_SHED_H
#define CKPTFS_META_SHED_H

#include "meta/meta.h"

/* What of a file is to be given up. */
struct meta_shed {
    const struct meta_inode *file; /* as it was when the ranges were chosen */
    const struct meta_shed_range {
        int64_t offset, length; /* in the file */
    } * ranges;                 /* sorted; they do not touch each other */
    size_t count;               /* 0: all of it */
};

/*
 * How many bytes meta_shed would give up. Of ranges those count that no other file has, and whose objects
 * were hashed: else nothing would be given back. 0 also for what meta_shed refuses.
 */
errint meta_shed_measure(struct meta *meta, const struct meta_shed *shed, int64_t *bytes);
/*
 * Gives these bytes up; objects that no file needs any more are appended to *freed. -EBUSY where the file is
 * not sealed, not on stable storage, or is not as it was; -ENODATA where there is nothing to give up: it has
 * no bytes outside the database, or has holes, so that these and what is given up could not be told apart, or
 * it has given something up before; or it has other names, too.
 */
errint meta_shed(struct meta *meta, const struct meta_shed *shed, struct ids *freed);

#endif
