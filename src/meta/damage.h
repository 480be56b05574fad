/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of objects whose bytes are not what their hashes say, and what a verification asks of the namespace.
 *
 * A damaged object is never written in place again, never the one that others are re-pointed to, and not
 * hashed anew: its wrong bytes must not become right ones. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_DAMAGE_H
#define CKPTFS_META_DAMAGE_H

#include "meta/sharing.h"

/*
 * What is known to be damaged of `within` becomes `found` (ranges of the same object, inside `within`).
 * `changed` tells whether that is news. -EBUSY: the object has not the given root any more.
 */
errint meta_damage_replace(struct meta *meta, const struct meta_range *within,
                           const uint8_t root[META_ROOT_BYTES], const struct meta_range *found, size_t count,
                           bool *changed);
/* Whether something of the object is known to be damaged: 1, 0 or an error. */
int meta_object_damaged(struct meta *meta, uint64_t object);
/* All of it, by object and offset; neighbours are joined. The caller frees *out. */
errint meta_damage_list(struct meta *meta, struct meta_range **out, size_t *count);

/* A part of a file that an object's range is used for. */
struct meta_use {
    uint64_t ino;
    int64_t offset, length; /* in the file */
    int64_t object_offset;
};

/* Who uses the range, and for what; the file that writes the object is one that uses all of it. The caller
 * frees *out. */
errint meta_find_uses(struct meta *meta, const struct meta_range *range, struct meta_use **out,
                      size_t *count);
/*
 * Objects that are not empty, behind `after` in the order of their ids, as ranges from 0 to their recorded
 * size: at most `limit` of them. `ino`: only those of this file; 0: all. The caller frees *out.
 */
errint meta_find_to_verify(struct meta *meta, uint64_t ino, uint64_t after, size_t limit,
                           struct meta_range **out, size_t *count);
/* Where else a segment of this hash and length is, whoever owns it: not at `except`. The caller frees *out.
 */
errint meta_find_copies(struct meta *meta, const struct meta_segment *segment,
                        const struct meta_range *except, struct meta_range **out, size_t *count);

#endif
