/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-ins: how a file's bytes can be safe before they are written.
 *
 * A file that is being written, and of which an older object has all bytes on stable storage already, gets a
 * *stand-in*: an inode without a name that has the older object's extents. After a power cut, which takes the
 * file's own bytes, it has those of its stand-in instead. By its extents the stand-in keeps the older object
 * alive, whatever becomes of the older files.
 *
 * A file has at most one, and only while it is META_DIRTY, and META_OBJECT or META_EXTENTS. It is let go when
 * the file's own bytes are on stable storage (meta_synced), when the file is emptied, and with the file; it
 * goes with the names (meta_fork). What is written to the file later leaves it as it is.
 */
#ifndef CKPTFS_META_STAND_IN_H
#define CKPTFS_META_STAND_IN_H

#include "meta/meta.h"

struct meta_stand_in {
    uint64_t ino, object;       /* a META_OBJECT file, and what it is written into */
    uint32_t uid;               /* its owner */
    int64_t size, mtime, ctime; /* of the file, no younger than the bytes that were compared */
    uint64_t older;             /* the object that has its bytes, all of them and no others */
    const uint8_t *older_root;  /* META_ROOT_BYTES: what it was compared by (meta/sharing.h) */
};

/*
 * The file gets its stand-in, in place of the one that it has. After meta_sync its bytes, and its size, are
 * safe: so the shadows of its names are let go, and what was stored of it before. -EBUSY, and nothing has
 * changed, when the file is another one's or is not that object any more; or when no file of the owner that
 * has a name is all of the older object, or that is not on stable storage, is damaged, or has another root.
 */
errint meta_stand_in_put(struct meta *meta, const struct meta_stand_in *stand_in);

/*
 * After a power cut: the file becomes a META_EXTENTS file of what its stand-in has, and META_DIRTY goes.
 * `whole` tells that it was sealed as its stand-in is, so that nothing is lost; else META_TORN comes. -ENOENT
 * when it has no stand-in.
 */
errint meta_stand_in_restore(struct meta *meta, uint64_t ino, bool *whole, struct ids *freed);

#endif
