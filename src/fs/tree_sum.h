/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a directory of the namespace, added up from the names alone: sizes, times, how safe the files
 * are. No file is opened. What the mount shows by itself (assembled files) does not count: nobody saved it.
 */
#ifndef CKPTFS_FS_TREE_SUM_H
#define CKPTFS_FS_TREE_SUM_H

#include "fs/filesystem.h"

struct tree_sum {
    uint64_t files;
    uint64_t writing, dirty, torn; /* of these: not sealed yet; not on stable storage; with lost bytes */
    int64_t bytes;                 /* the sum of the sizes */
    int64_t written;        /* the same; of a file that is being written what the disk has of it, since it
                               may have got its size first */
    int64_t begun, changed; /* the oldest birth and the newest mtime of a file, ns; 0: no files */
    uint64_t print;         /* of all names, sizes and times: another one says that something changed */
};

struct tree_sum_asked {
    uint64_t ino;  /* a directory, or a file alone */
    bool own_only; /* without what is in directories below */
    /* Asked every few milliseconds: true ends it with -ECANCELED. NULL: never. */
    bool (*stops)(struct filesystem *fs);
};

/* -ENOENT; -ECANCELED; -ENOMEM. Thread-safe; takes locks of nodes. Not for a thread that answers the kernel.
 */
errint tree_sum_add_up(struct filesystem *fs, const struct tree_sum_asked *asked, struct tree_sum *out);

#endif
