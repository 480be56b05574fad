/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects in use: one entry an object, however many inodes and handles are behind it, with its descriptors,
 * its backing id in the kernel, and the lease that tells who else sees it.
 *
 * `fd` is O_RDONLY and lives as long as the entry: it reads, syncs, is registered for passthrough and asks
 * for the lease. `write_fd` exists only while the daemon itself writes, since it would count as a writer in
 * the lease.
 */
#ifndef CKPTFS_FS_BACKING_H
#define CKPTFS_FS_BACKING_H

#include <pthread.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "store/store.h"

enum { BACKING_BUCKETS = 1024 };

struct backing {
    uint64_t object;
    int fd;
    int write_fd;                 /* -1: none; guarded by `lock` */
    int direct_fd;                /* O_DIRECT for cold reads; -1: none, -2: the disk cannot */
    int backing_id;               /* 0: not registered; guarded by `lock` */
    unsigned passthrough_handles; /* guarded by `lock`; the id goes with the last */
    unsigned references;          /* guarded by the table's lock */
    pthread_mutex_t lock;
    struct backing *next;
};

struct backing_table {
    struct store *store;
    int fuse_fd;
    pthread_mutex_t lock;
    struct backing *buckets[BACKING_BUCKETS];
};

void backing_table_init(struct backing_table *table, struct store *store, int fuse_fd);

/* Opens the object, or takes a further reference. -ENOENT when its file is missing. */
errint backing_get(struct backing_table *table, uint64_t object, struct backing **out);
/* Makes the object first. */
errint backing_create(struct backing_table *table, uint64_t object, struct backing **out);
/* Gives a reference back; NULL is allowed. The last one closes the descriptors. */
void backing_put(struct backing_table *table, struct backing *backing);

/*
 * A descriptor that can write, which the caller closes; another is kept for the next time. While the caller
 * has it, the object has a writer for whoever asks with backing_is_free. Negative errno on failure.
 */
int backing_writer(struct backing_table *table, struct backing *backing);
void backing_close_writer(struct backing *backing);

/* A descriptor for O_DIRECT reads, which the caller closes, or -1 when the disk has none. */
int backing_direct(struct backing_table *table, struct backing *backing);

/*
 * Registers the object with the kernel, or takes the id that it has, for one more passthrough handle: the id,
 * or a negative errno (-EPERM without privilege).
 */
int backing_register(struct backing_table *table, struct backing *backing);
/* A passthrough handle is gone; the last one takes the id along. */
void backing_unregister(struct backing_table *table, struct backing *backing);
/* After a take-over: the kernel still has this id for one more handle. */
void backing_adopt(struct backing *backing, int backing_id);

enum backing_view {
    BACKING_WRITERS, /* somebody can still write it (an open file or a shared mapping) */
    BACKING_READERS, /* somebody else has it open or mapped */
};
/*
 * Whether nobody has that view of the object any more: 1 yes, 0 no, -EOPNOTSUPP where the disk has no leases.
 * Closes the descriptors that are kept; who uses one just now counts as somebody else.
 */
int backing_is_free(struct backing *backing, enum backing_view view);

#endif
