/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects: the backing files. An object is made under its final id, written by one file, and never changes
 * once it is sealed. Which files use it is the namespace's knowledge, not this module's.
 *
 * The id is a number; its file is objects/xx/ID (16 hexadecimal digits; xx are the two digits above the
 * lowest two, so that 256 objects made one after another share a directory and its sync).
 */
#ifndef CKPTFS_STORE_OBJECT_H
#define CKPTFS_STORE_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/ids.h"
#include "store/store.h"

/* Makes an empty object, O_RDWR, mode 0600: the descriptor or a negative errno; -EEXIST: it is there. */
int object_create(struct store *store, uint64_t id);
/* Opens one with `flags` (O_RDONLY, O_RDWR, O_DIRECT): the descriptor; -ENOENT when it is missing. */
int object_open(struct store *store, uint64_t id, int flags);
/* Removes it and its table of chunk hashes (store/sums.h). 0 also when it is gone already. */
errint object_remove(struct store *store, uint64_t id);

/*
 * The object's bytes and its own directory entry are on stable storage when this returns. `fd` is any
 * descriptor of it. Blocks.
 */
errint object_sync(struct store *store, uint64_t id, int fd);

/*
 * The offset where the run of written bytes that starts at `from` ends: the first hole, or the end of the
 * object; `from` itself when no written byte is there. A negative errno.
 */
int64_t object_data_end(int fd, int64_t from);

/*
 * Gives the disk's blocks of a range back: it reads as zeros from then on, and the object keeps its size.
 * Whole blocks of 4096 bytes only; what the range covers of its first and last block stays, unless it reaches
 * the object's end. `fd` is writable. 0 also when no whole block is in it; -EOPNOTSUPP: the disk cannot.
 * Blocks.
 */
errint object_punch(int fd, int64_t offset, int64_t length);
/* Whether the store's disk can do that: 1 or 0, found out once by trying; a negative errno. Thread-safe. */
int object_can_punch(struct store *store);
/* The length of its file, without an open that others would notice; -ENOENT when it is missing. */
int64_t object_file_size(const struct store *store, uint64_t id);
/* The bytes that the disk keeps for an object, or a negative errno; by its number also as object_file_size.
 */
int64_t object_stored_bytes(int fd);
int64_t object_file_stored_bytes(const struct store *store, uint64_t id);

/*
 * The bytes that the disk keeps for all objects and their tables. Reads all directories of objects: blocks
 * for long. `stop` is asked between the files: true ends it with -ECANCELED.
 */
errint object_total_stored(struct store *store, bool (*stop)(void *context), void *context, int64_t *out);

/*
 * Every object file that is there, appended to `out`. Tables of chunk hashes are skipped; other names that
 * are no object's are skipped and logged.
 */
errint object_list(struct store *store, struct ids *out);

#endif
