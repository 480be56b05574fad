/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept versions: what a checkpoint was before something in it was written over.
 *
 * A kept version is a copy of the checkpoint's directory in the hidden directory META_HIDDEN_KEPT, under the
 * number of the checkpoint's inode: inodes of its own with the same attributes, and with the same extents, so
 * that it costs rows only, and that what is written later goes elsewhere. Its files are what the checkpoint's
 * were, whatever becomes of those. A checkpoint has one at most; it goes nowhere with it but back.
 *
 * Which directories are checkpoints, and when a version is kept, comes back or is dropped, is not known here.
 * Otherwise as meta.h.
 */
#ifndef CKPTFS_META_KEPT_H
#define CKPTFS_META_KEPT_H

#include "meta/meta.h"

/* The kind of hidden directory. */
#define META_HIDDEN_KEPT "kept"

struct meta_kept {
    uint64_t checkpoint; /* the directory that is being written over, or was removed since */
    uint64_t ino;        /* the directory that has what was there before */
    bool partial;        /* as the caller of meta_kept_take has said */
};

struct meta_kept_take {
    uint64_t checkpoint;
    bool partial;  /* remembered with it: it has not all that a checkpoint can have */
    int64_t bytes; /* of all its files: with fewer it is not kept */
    int64_t now;
};
/*
 * Keeps what the directory has now, and what the trash has of it from a removal that is under way; assembled
 * files are passed over. The later loss of the store's power loses no change that comes after this without
 * it. -EEXIST: it has one already; -EBUSY: a file of it may have bytes that are not on stable storage, or is
 * being written; -ENODATA: something of it is gone; -ENOENT, -ENOTDIR; -ELOOP: it is too deep.
 */
errint meta_kept_take(struct meta *meta, const struct meta_kept_take *wanted, struct meta_kept *out);

struct meta_kept_restore {
    struct meta_kept kept;
    uint64_t target; /* where the checkpoint goes, and its name there */
    const char *name;
    size_t length;
    int64_t now;
};
/*
 * What was kept takes the checkpoint's name, with what is set for that (policies, a pin), and the checkpoint
 * goes to another directory, in one step. No time of the directory that the name is in changes. -EEXIST: that
 * name is taken; -ENOENT: one of them is gone.
 */
errint meta_kept_restore(struct meta *meta, const struct meta_kept_restore *wanted);

struct meta_kept_removal {
    struct meta_kept kept;
    uint64_t parent; /* where the checkpoint was, and its name, which is free */
    const char *name;
    size_t length;
    uint32_t remover;
    int64_t now;
};
/* The checkpoint was removed: what was kept of it becomes an entry of the trash (meta/trash.h), as if it had
 * been removed instead. -ENOENT: it is gone, or `parent` is; -EEXIST: the name is taken. */
errint meta_kept_remove(struct meta *meta, const struct meta_kept_removal *removal);

/* It is needed no more: it goes to META_HIDDEN_REMOVED, under its number, for the caller to take apart. 0
 * also where it is gone. */
errint meta_kept_drop(struct meta *meta, const struct meta_kept *kept, int64_t now);

/* All of them, the oldest first. The caller frees *out. */
errint meta_kept_read(struct meta *meta, struct meta_kept **out, size_t *count);

#endif
