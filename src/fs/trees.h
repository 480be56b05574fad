/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of directories that are to be walked by a thread some time, each directory once: a list that the
 * database has until the walk is over, so that a stop or a crash only makes it begin anew.
 */
#ifndef CKPTFS_FS_TREES_H
#define CKPTFS_FS_TREES_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ids.h"

struct filesystem;

/* trees.c's own. */
struct trees {
    pthread_mutex_t lock; /* the lists; nothing is called with it */
    struct ids roots;     /* as in the database */
    struct ids left;      /* directories whose trees are still to be walked */
    const char *setting;  /* under which the database has the roots */
    pthread_mutex_t note; /* one writes the setting at a time; taken before `lock` */
};

/* What an earlier daemon had to leave is on the list. `setting` must outlive it. A negative errno, and it
 * need not be released. */
errint trees_start(struct filesystem *fs, struct trees *trees, const char *setting);
void trees_release(struct trees *trees);

/* The directory, and all below it, is to be walked. Thread-safe. A negative errno: it is not. */
errint trees_add(struct filesystem *fs, struct trees *trees, uint64_t directory);
/*
 * The next directory; those below it will come later. 0: there is none. For one thread, which calls
 * trees_finish when it has done with them all.
 */
uint64_t trees_next(struct filesystem *fs, struct trees *trees);
void trees_finish(struct filesystem *fs, struct trees *trees);
/* Directories that are known to be left; their own are not. Thread-safe. */
size_t trees_left(struct trees *trees);

#endif
