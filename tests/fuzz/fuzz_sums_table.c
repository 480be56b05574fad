/* SPDX-License-Identifier: Apache-2.0 */
/* The table of chunk hashes, from any bytes: no crash, and what is accepted is encoded to the same bytes. */
/* fuzz-sources: src/store/hash.c src/store/sums_table.c */
/* fuzz-libs: -lxxhash */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/sums_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static struct store store;

static void fuzz_decode(const uint8_t *table, size_t length)
{
    char why[SUMS_TABLE_WHY] = "";
    struct sums sums;
    errint error = sums_table_decode(&store, table, length, &sums, why);
    if (error) {
        if (error != -ENOMEM && !*why)
            abort();
        return;
    }
    size_t again_length;
    uint8_t *again = sums_table_encode(&store, &sums, &again_length);
    if (!again || again_length != length || memcmp(again, table, length) != 0)
        abort();
    for (size_t i = 0; i < sums.chunk_count; i++) {
        if (sums_chunk_at(&sums, sums.chunks[i].offset) != i)
            abort();
    }
    free(again);
    sums_release(&sums);
}

/* The first byte says what is repaired before: magic and version (1), count (2), root (4), checksum (8). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    if (length == 0)
        return 0;
    uint8_t repairs = *data++;
    length--;
    if (length < SUMS_TABLE_FIXED) {
        fuzz_decode(data, length);
        return 0;
    }
    uint8_t *table = malloc(length);
    if (!table)
        return 0;
    memcpy(table, data, length);
    size_t end = length - HASH_BYTES, entries = end - SUMS_TABLE_HEADER;
    if (repairs & 1)
        memcpy(table, SUMS_TABLE_MAGIC "\1\0\0\0\1\0\0", SUMS_TABLE_AT_COUNT);
    for (size_t i = 0; repairs & 2 && i < 8; i++)
        table[SUMS_TABLE_AT_COUNT + i] = (uint8_t)(entries / SUMS_TABLE_ENTRY >> 8 * i);
    if (repairs & 4)
        hash_to_bytes(hash_of(&store, table + SUMS_TABLE_HEADER, entries), table + SUMS_TABLE_AT_ROOT);
    if (repairs & 8)
        hash_to_bytes(hash_of(&store, table, end), table + end);
    fuzz_decode(table, length);
    free(table);
    return 0;
}
