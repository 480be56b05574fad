/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the files of a tree are just now: written, safe, torn, open. Each directory is read as it is when it is
 * come to; thread-safe, no lock is held for long.
 */
#ifndef CKPTFS_FS_LIFE_H
#define CKPTFS_FS_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

struct life {
    uint64_t files;
    uint64_t writing;  /* open for writing, or not sealed since they were */
    uint64_t unsynced; /* may have bytes or attributes that are not on stable storage */
    uint64_t torn;     /* lost bytes in a crash, or may have */
    uint64_t handles;  /* by which somebody has them open */
};

struct life_asked {
    uint64_t ino;
    bool of_one; /* only files of this user are counted */
    uint32_t uid;
    bool (*stops)(void *context); /* asked every few milliseconds: true ends it with -ECANCELED */
    void *context;
};

/* A file, or all below a directory. -ENOENT; -ENOMEM. */
errint life_count(struct filesystem *fs, const struct life_asked *asked, struct life *out);

#endif
