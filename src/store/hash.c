/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3-128 with the store's secret. */
#include "store/hash.h"

#include <string.h>
#include <xxhash.h>

_Static_assert(STORE_SECRET_SIZE >= XXH3_SECRET_SIZE_MIN, "the secret is too short for XXH3");
_Static_assert(sizeof(XXH128_canonical_t) == HASH_BYTES, "XXH3-128 has 16 bytes");

struct hash128 hash_of(const struct store *store, const void *bytes, size_t length)
{
    XXH128_hash_t hash = XXH3_128bits_withSecret(bytes, length, store->secret, STORE_SECRET_SIZE);
    return (struct hash128){.low = hash.low64, .high = hash.high64};
}

void hash_to_bytes(struct hash128 hash, uint8_t bytes[HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, (XXH128_hash_t){.low64 = hash.low, .high64 = hash.high});
    memcpy(bytes, canonical.digest, HASH_BYTES);
}

struct hash128 hash_from_bytes(const uint8_t bytes[HASH_BYTES])
{
    XXH128_canonical_t canonical;
    memcpy(canonical.digest, bytes, HASH_BYTES);
    XXH128_hash_t hash = XXH128_hashFromCanonical(&canonical);
    return (struct hash128){.low = hash.low64, .high = hash.high64};
}
