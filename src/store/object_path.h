/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an object and what belongs to it lie, below store->objects_fd: for the modules of this room that keep
 * files there. Thread-safe.
 */
#ifndef CKPTFS_STORE_OBJECT_PATH_H
#define CKPTFS_STORE_OBJECT_PATH_H

#include "store/store.h"

#define OBJECT_SUMS     ".sum"
#define OBJECT_SUMS_NEW ".sum.new"

enum { OBJECT_NAME_DIGITS = 16, OBJECT_PATH_SIZE = 3 + OBJECT_NAME_DIGITS + 1 };

struct object_path {
    char directory[3];                                        /* "xx" */
    char file[OBJECT_PATH_SIZE];                              /* "xx/ID" */
    char sums[OBJECT_PATH_SIZE + sizeof OBJECT_SUMS];         /* "xx/ID.sum" */
    char sums_new[OBJECT_PATH_SIZE + sizeof OBJECT_SUMS_NEW]; /* "xx/ID.sum.new" */
};

struct object_path object_path_of(uint64_t id);

/* An entry was made (or replaced) in the directory of that object: its next sync has to reach the disk. */
void object_directory_note(struct store *store, uint64_t id);
/* The directory of that object is on stable storage, with what object_directory_note was told. Blocks. */
errint object_directory_sync(struct store *store, uint64_t id);

#endif
