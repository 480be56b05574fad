/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranges that a META_EXTENTS file is made of, kept with its node as long as they hold: sorted, without an
 * overlap. A file may have hundreds of thousands: one is found by bisection, and one that is appended does
 * not make the others be read again.
 */
#ifndef CKPTFS_FS_NODE_EXTENTS_H
#define CKPTFS_FS_NODE_EXTENTS_H

#include "fs/node.h"

/* Reads them from the namespace unless they are known. The node's lock is held exclusively. */
errint node_extents(struct filesystem *fs, struct node *node);

/* The index of the first one that ends behind `offset`; the number of all where there is none. They are
 * known; the lock is held, shared is enough. */
size_t node_find_extent(const struct node *node, int64_t offset);

/* Whether they cover all of the range: of a file that was shed, what they do not cannot be read. Likewise. */
bool node_extents_cover(const struct node *node, int64_t offset, int64_t length);

/*
 * The namespace has this range for the file now. It is appended where it lies behind all others; else what is
 * known is forgotten. The lock is held exclusively.
 */
void node_note_extent(struct node *node, const struct meta_extent *extent);

void node_forget_extents(struct node *node);

#endif
