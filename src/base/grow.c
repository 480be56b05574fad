/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays that grow as items are appended. */
#include "base/grow.h"

#include <stdlib.h>

enum { GROW_LEAST = 8 };

bool grow_array(void **at, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity)
        return true;
    /* By half, not double: what is not used yet counts against the parsers' bounds of memory. */
    size_t larger = *capacity + *capacity / 2 + GROW_LEAST;
    if (larger < count) /* or it has wrapped */
        larger = count;
    size_t bytes;
    void *grown = __builtin_mul_overflow(larger, size, &bytes) ? NULL : realloc(*at, bytes);
    if (!grown)
        return false;
    *at = grown;
    *capacity = larger;
    return true;
}
