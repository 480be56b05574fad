/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: the inodes in use. A node exists while somebody holds a reference (an open handle, a queue, a
 * request in work); everything durable is in the namespace, so dropping one loses nothing.
 *
 * A node knows what its file is made of (the namespace's kind, kept equal to the row), who has it open and
 * how: the mode is fixed while any handle is open, because the kernel allows one mode at a time for an inode.
 */
#ifndef CKPTFS_FS_NODE_H
#define CKPTFS_FS_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/backing.h"
#include "meta/meta.h"

struct filesystem;

enum { NODE_BUCKETS = 4096 };

enum node_mode {
    NODE_IDLE,        /* no handle is open */
    NODE_PASSTHROUGH, /* the kernel reads and writes the object */
    NODE_DAEMON,      /* the daemon serves every read and write */
};

/* A range that was copied into the file from another: where its bytes may be given back at the seal. */
struct node_copy {
    uint64_t from;
    int64_t from_offset, offset, length;
};

struct node {
    uint64_t ino;
    struct node *next;   /* in its bucket */
    unsigned references; /* guarded by the table's lock */

    pthread_rwlock_t lock; /* guards all below unless said otherwise */
    bool loaded;
    bool gone;         /* removed from the namespace, or about to be */
    bool unlinked;     /* has no name left; the node is held until the kernel forgets the inode */
    bool outlived;     /* was to be removed while a handle was open: the last one's end does it */
    bool assembled;    /* META_ASSEMBLED: once loaded */
    bool shed;         /* META_SHED: likewise; what no extent covers cannot be read. It cannot be written, but
                        * made empty */
    uint64_t moved_to; /* the inode that took its names over, for the sake of passthrough readers; 0: none */
    enum meta_kind kind;
    int64_t size; /* of META_INLINE and META_EXTENTS */
    struct backing
        *backing; /* META_OBJECT: the object; META_EXTENTS: the object, where one object is the file */
    struct backing *overlay;     /* META_EXTENTS: where this daemon writes changed ranges */
    struct meta_extent *extents; /* META_EXTENTS: read when first needed; NULL after a change */
    size_t extent_count, extent_capacity;

    enum node_mode mode;
    unsigned handles;     /* open handles of any sort */
    unsigned writers;     /* those that can write */
    unsigned passthrough; /* those with a backing id */
    bool was_passthrough; /* somebody outside the daemon may have written or mapped the object */
    bool look_again;      /* what is damaged changed under passthrough: the row is adopted anew at idle */
    struct node_copy copy;

    bool
        stale_pages; /* the kernel's cache may hold pages from before the object was written by passthrough */
    bool dirty;      /* the row has META_DIRTY */
    _Atomic int64_t sync_after; /* clock_monotonic() until which the write-back leaves it alone; 0: none */
    _Atomic int write_error;    /* to be reported once, at the next FLUSH or FSYNC (negative errno) */

    uint64_t changes; /* counts what made the file dirty: a sync covers what it saw begin */
    uint64_t marked;  /* the commit that marked the file before its object was changed in place */
    int64_t synced_mtime, synced_size; /* of the object at its last sync; -1: none yet */
    int64_t synced_at;                 /* clock_monotonic() of that, or of the first write */
    int64_t stood_at; /* clock_monotonic() of when it got a stand-in (stand_in.h); 0: it has none from here */
    bool told_apart;  /* an fsync found that it equals no older file: the next ones need not look */
    atomic_bool unlike; /* what was written of it is in none of them: the write-back need not wait */

    /* Guarded by the write-back's lock. */
    bool in_writeback;
    struct node *writeback_next;
    /* Guarded by the sealer's lock. */
    bool in_sealer;
    struct node *sealer_next;
    int64_t seal_due;
};

struct node_table {
    pthread_mutex_t lock;
    struct node *buckets[NODE_BUCKETS];
    atomic_uint count;
};

void node_table_init(struct node_table *table);
/* At the end, when no other thread is left: frees the nodes that are still held. */
void node_table_release(struct filesystem *fs);

/* The node of an inode, made when there is none, with one more reference. NULL: no memory. */
struct node *node_get(struct filesystem *fs, uint64_t ino);
/* The node if it is in use, with one more reference; else NULL. */
struct node *node_find(struct filesystem *fs, uint64_t ino);
/* Calls `visit` for every node in use, with its lock held shared. */
void node_each(struct filesystem *fs, void (*visit)(struct node *node, void *context), void *context);
struct node *node_hold(struct filesystem *fs, struct node *node);
/* Gives a reference back; NULL is allowed. No lock of the node is held. */
void node_put(struct filesystem *fs, struct node *node);

void node_lock(struct node *node);
void node_lock_shared(struct node *node);
void node_unlock(struct node *node);
/* Locks two nodes in the order of their numbers; they may be the same. */
void node_lock_two(struct node *a, struct node *b);
void node_unlock_two(struct node *a, struct node *b);

/*
 * Learns what the file is made of, once. The lock is held exclusively. -ENOENT when the inode is gone.
 */
errint node_load(struct filesystem *fs, struct node *node);
/* Takes over a row as what the node is now. The lock is held exclusively. */
errint node_adopt_row(struct filesystem *fs, struct node *node, const struct meta_inode *row);

/*
 * The attributes as stat(2) shows them. A row of a file that is being written is completed from its object;
 * the node's lock is held (shared is enough), or node is NULL when nobody uses the inode.
 */
void node_fill_stat(struct filesystem *fs, struct node *node, const struct meta_inode *row,
                    struct stat *status);
/* The same for a row just read: finds and locks the node itself. */
void node_stat_row(struct filesystem *fs, const struct meta_inode *row, struct stat *status);
/* Whether the last sync has covered the file as the row says it is. The lock is held. */
bool node_is_as_synced(const struct node *node, const struct meta_inode *row);
/* Size and times of the object of a META_OBJECT file, put into the row. The lock is held. */
errint node_refresh_row(struct node *node, struct meta_inode *row);

/*
 * The inode has lost its last name. It stays as it is, for those who have it open or are about to, until the
 * kernel forgets it. The lock is held exclusively.
 */
void node_await_forget(struct filesystem *fs, struct node *node);
/* The inode has a name again. The lock is held exclusively; the caller has a reference of its own. */
void node_relink(struct filesystem *fs, struct node *node);
/* Removes the inode unless it has a name: when the last handle and the last map of it have ended, now or
 * later. Takes the lock itself. */
void node_reap(struct filesystem *fs, struct node *node);
/* The kernel has forgotten the inode: it is removed if that is what it waited for. Takes the lock itself. */
void node_forgotten(struct filesystem *fs, struct node *node);
/* node_reap of each inode on the list. */
void node_reap_all(struct filesystem *fs, const struct ids *inodes);
/* Forgets what the node was made of (after it is gone or made anew). The lock is held exclusively. */
void node_drop_content(struct filesystem *fs, struct node *node);

#endif
