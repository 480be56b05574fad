/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 sums of files that were computed once and are kept.
 *
 * A sum is kept with its basis: a digest of what the file was made of, which extents of which objects, and
 * the hash of all chunks of each of these. Object ids are never reused, and an object that is opened for
 * writing loses its hash: so a basis that is found again stands for the same bytes, and whatever changes a
 * file need not know of its sum. Only bytes that were damaged when the sum was made, and come right by a
 * repair, keep their basis: what is recorded of damage removes the sums. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_CHECKSUM_H
#define CKPTFS_META_CHECKSUM_H

#include "meta/meta.h"

enum { META_SUM_BYTES = 32 };

/*
 * Calls `see` with pieces of what the basis of the file is the digest of, with the lock held: it calls
 * nothing of meta. -ENODATA, perhaps after some calls, when the file has no basis: its bytes are not all in
 * sealed, hashed objects without damage.
 */
errint meta_checksum_basis(struct meta *meta, uint64_t ino,
                           void (*see)(void *context, const void *bytes, size_t length), void *context);
/* The sum that was kept for the file and this basis; -ENODATA. */
errint meta_checksum_get(struct meta *meta, uint64_t ino, const uint8_t basis[META_SUM_BYTES],
                         uint8_t sum[META_SUM_BYTES]);
/*
 * Keeps a sum, instead of what was kept for the file before; nothing when the inode is gone. The file's bytes
 * are on stable storage: a power cut must not leave the sum without them.
 */
errint meta_checksum_put(struct meta *meta, uint64_t ino, const uint8_t basis[META_SUM_BYTES],
                         const uint8_t sum[META_SUM_BYTES]);

#endif
