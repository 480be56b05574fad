/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's hash: XXH3-128 with the store's 192 secret bytes (xxHash 0.8, XXH3_128bits_withSecret). Two
 * stores hash the same bytes differently, and nobody without the secret can make two contents collide on
 * purpose. It is not a cryptographic hash.
 */
#ifndef CKPTFS_STORE_HASH_H
#define CKPTFS_STORE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

enum { HASH_BYTES = 16 };

struct hash128 {
    uint64_t low, high;
};

static inline bool hash_equal(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

/* Thread-safe. */
struct hash128 hash_of(const struct store *store, const void *bytes, size_t length);
/* As 16 bytes, the canonical (big-endian) form, and back: what is stored on disk. */
void hash_to_bytes(struct hash128 hash, uint8_t bytes[HASH_BYTES]);
struct hash128 hash_from_bytes(const uint8_t bytes[HASH_BYTES]);

#endif
