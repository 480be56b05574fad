/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular file's bytes: reading and changing them whatever the file is made of, and turning one kind into
 * another. Knows nothing of handles' modes or of the kernel's requests.
 *
 * "Exclusive" and "shared" say how the caller holds the node's lock. Every function expects a loaded node.
 */
#ifndef CKPTFS_FS_CONTENT_H
#define CKPTFS_FS_CONTENT_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs/node.h"

enum { CONTENT_ALIGNMENT = 4096 };

/*
 * After it the file is META_OBJECT (written in place), or META_EXTENTS where its object is shared with other
 * files or it has several (written by copy on write). A small content moves to a new object. Exclusive.
 */
errint content_make_writable(struct filesystem *fs, struct node *node);

/* Sets the size; what grows is a hole. mtime and ctime become now. Exclusive. -EFBIG. */
errint content_truncate(struct filesystem *fs, struct node *node, int64_t size);

/*
 * Reads up to `size` bytes at `offset`: the number of bytes (0 at the end), or a negative errno. `buffer` has
 * room for size + 2 * CONTENT_ALIGNMENT bytes and is aligned to CONTENT_ALIGNMENT; the bytes start at *data,
 * inside it. Takes the lock itself.
 */
ssize_t content_read(struct filesystem *fs, struct node *node, char *buffer, size_t size, int64_t offset,
                     char **data);
/*
 * Reads all of a range into `to`, through a buffer as content_read wants it. Before each part `stops` is
 * asked: true ends it with -ECANCELED. -EIO: the file ends before.
 */
errint content_read_all(struct filesystem *fs, struct node *node, char *scratch, char *to, size_t length,
                        int64_t offset, bool (*stops)(struct filesystem *fs));

/* Writes all of it, or fails with a negative errno (then a part may be written). Takes the lock itself. */
errint content_write(struct filesystem *fs, struct node *node, const char *bytes, size_t size,
                     int64_t offset);

/* fallocate(2) with mode 0, KEEP_SIZE, PUNCH_HOLE or ZERO_RANGE; -EOPNOTSUPP for others. Exclusive. */
errint content_allocate(struct filesystem *fs, struct node *node, int mode, int64_t offset, int64_t length);

/* lseek(2) with SEEK_DATA or SEEK_HOLE: the offset, or -ENXIO. Exclusive. */
int64_t content_seek(struct filesystem *fs, struct node *node, int64_t offset, int whence);

/*
 * Objects that a change of the file let go: they are removed, and the file stops writing into one of them.
 * The node's lock is held exclusively.
 */
void content_release(struct filesystem *fs, struct node *node, const struct ids *freed);

/* The file's ranges get a second user: it stops writing in place. The node's lock is held exclusively. */
void content_freeze(struct filesystem *fs, struct node *node);

/* Whether somebody outside the daemon has the file's only object open or mapped. The lock is held
 * exclusively. */
bool content_is_mapped(struct node *node);

/*
 * Whether the file may be re-pointed to another place of its bytes: it is sealed, nobody writes it, and
 * nobody sees its object itself. The lock is held exclusively.
 */
bool content_may_repoint(struct node *node);

/* The current size in bytes, or a negative errno. The lock is held. */
int64_t content_size(const struct node *node);

#endif
