/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3-128 with the store's secret. */
#include "store/hash.h"

#include <pthread.h>
#include <string.h>
#include <xxhash.h>

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#ifdef HAVE_XXH3_128BITS_WITHSECRET_DISPATCH
/* AVX2 and AVX-512 where the processor has them: three times as fast. */
#include <xxh_x86dispatch.h>
#endif

_Static_assert(STORE_SECRET_SIZE >= XXH3_SECRET_SIZE_MIN, "the secret is too short for XXH3");
_Static_assert(sizeof(XXH128_canonical_t) == HASH_BYTES, "XXH3-128 has 16 bytes");

static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

/* The first call chooses the code for this processor, and the library does not do that safely in two threads.
 */
static void hash_choose(void)
{
    static const uint8_t zeros[512];
    (void)XXH3_128bits_withSecret(zeros, sizeof zeros, zeros, STORE_SECRET_SIZE);
}

struct hash128 hash_of(const struct store *store, const void *bytes, size_t length)
{
    pthread_once(&hash_once, hash_choose);
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
