/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file or a tree costs: the bytes that its files show, the bytes of the store that they cover, and
 * those that nothing outside covers. Computed from the extents each time, in small pieces between which the
 * lock is given up: what changes meanwhile is counted as it was or as it is.
 *
 * Assembled files (meta/assembled.h) of a directory that have no name are stored bytes of it, and none of its
 * files; so is its template (meta/template.h).
 *
 * Bytes of an object count as far as extents cover them, each once, holes that were written as such included;
 * what punching then really gives back are whole chunks.
 */
#ifndef CKPTFS_META_USAGE_H
#define CKPTFS_META_USAGE_H

#include "meta/sharing.h"

struct meta_usage {
    uint64_t files;        /* regular files, each once however many names it has */
    uint64_t extents;      /* of these files; a file that is being written is one */
    int64_t logical_bytes; /* the sum of their sizes */
    int64_t stored_bytes;  /* distinct bytes of objects, and bytes inside the namespace */
    int64_t unique_bytes;  /* of these, what no other file with a name, or assembled, covers */
};

struct meta_usage_request {
    uint64_t ino; /* a file: one of its names; or a directory: all below it */
    /* Whose files count, inside and outside: those of `uid`, as if there were no others; or everybody's. */
    uint32_t uid;
    bool everybody;
    /* Asked between the pieces: true ends it with -ECANCELED. */
    bool (*stop)(void *context);
    /* The present size of a META_OBJECT file; called without the lock. NULL: the one recorded. */
    int64_t (*size)(void *context, const struct meta_inode *row);
    /* Told of each sealed object that they lie in, once; called without the lock. NULL: nobody asks. */
    void (*object)(void *context, uint64_t id);
    void *context;
};

/*
 * A hard link outside keeps a file's bytes: they are stored, and not unique. Files without a name count only
 * when they are asked for. -ENOENT; -ECANCELED; -ENOMEM: it takes 16 bytes a file, and 8 an object and a
 * directory that waits to be read. Thread-safe; blocks for long: not for a thread that answers the kernel.
 */
errint meta_usage_compute(struct meta *meta, const struct meta_usage_request *request,
                          struct meta_usage *out);

/* The root of the object that the META_EXTENTS file is, whole; -ENODATA when it is not one, or not hashed. */
errint meta_usage_root(struct meta *meta, uint64_t ino, uint8_t root[META_ROOT_BYTES]);

/*
 * Looks at the next few hundred objects after `after`, which goes to the last of them, and appends those that
 * nothing refers to. 1: there may be more objects; 0: that was all.
 */
int meta_find_unreferenced_after(struct meta *meta, uint64_t *after, struct ids *out);
/* Sealed objects that have lost extents and were not hashed yet. */
errint meta_count_unhashed(struct meta *meta, uint64_t *count);

#endif
