/* SPDX-License-Identifier: Apache-2.0 */
/* From chunks to a table of bytes and back, and what follows from the chunks: segments and root. */
#include "store/sums_table.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SUMS_TABLE_STARTS_SEGMENT (UINT32_C(1) << 31)

static void sums_table_put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof value);
}

static void sums_table_put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof value);
}

static uint32_t sums_table_get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return le32toh(value);
}

static uint64_t sums_table_get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return le64toh(value);
}

void sums_release(struct sums *sums)
{
    free(sums->chunks);
    free(sums->segments);
    *sums = (struct sums){0};
}

size_t sums_chunk_at(const struct sums *sums, int64_t offset)
{
    if (offset < 0 || offset >= sums->size)
        return sums->chunk_count;
    size_t low = 0, high = sums->chunk_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (sums->chunks[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* -- segments and root ----------------------------------------------------------------------------------- */

static void sums_table_put_entries(const struct sums *sums, uint8_t *entries)
{
    for (size_t i = 0; i < sums->chunk_count; i++) {
        const struct sums_chunk *chunk = &sums->chunks[i];
        uint8_t *entry = entries + i * SUMS_TABLE_ENTRY;
        sums_table_put32(entry, chunk->length | (chunk->starts_segment ? SUMS_TABLE_STARTS_SEGMENT : 0));
        hash_to_bytes(chunk->hash, entry + 4);
    }
}

static errint sums_table_allocate_segments(struct sums *sums)
{
    size_t count = 0;
    for (size_t i = 0; i < sums->chunk_count; i++)
        count += sums->chunks[i].starts_segment;
    sums->segments = count ? calloc(count, sizeof *sums->segments) : NULL;
    return count && !sums->segments ? -ENOMEM : 0;
}

/* `entries` are the chunks as the table has them: the hashes are of these bytes. */
static errint sums_table_index_entries(const struct store *store, const uint8_t *entries, struct sums *sums)
{
    errint error = sums_table_allocate_segments(sums);
    if (error)
        return error;
    for (size_t i = 0; i < sums->chunk_count; i++) {
        const struct sums_chunk *chunk = &sums->chunks[i];
        if (chunk->starts_segment)
            sums->segments[sums->segment_count++] =
                (struct sums_segment){.offset = chunk->offset, .first_chunk = i};
        struct sums_segment *segment = &sums->segments[sums->segment_count - 1];
        segment->length += chunk->length;
        segment->chunk_count++;
    }
    for (size_t i = 0; i < sums->segment_count; i++) {
        struct sums_segment *segment = &sums->segments[i];
        segment->hash = hash_of(store, entries + segment->first_chunk * SUMS_TABLE_ENTRY,
                                segment->chunk_count * SUMS_TABLE_ENTRY);
    }
    sums->root = hash_of(store, entries, sums->chunk_count * SUMS_TABLE_ENTRY);
    return 0;
}

errint sums_table_index(const struct store *store, struct sums *sums)
{
    cleanup_free uint8_t *entries = reallocarray(NULL, sums->chunk_count + 1, SUMS_TABLE_ENTRY);
    if (!entries)
        return -ENOMEM;
    sums_table_put_entries(sums, entries);
    return sums_table_index_entries(store, entries, sums);
}

/* -- as bytes -------------------------------------------------------------------------------------------- */

uint8_t *sums_table_encode(const struct store *store, const struct sums *sums, size_t *length)
{
    size_t entries;
    if (__builtin_mul_overflow(sums->chunk_count, (size_t)SUMS_TABLE_ENTRY, &entries) ||
        __builtin_add_overflow(entries, (size_t)SUMS_TABLE_FIXED, length))
        return NULL;
    uint8_t *bytes = malloc(*length);
    if (!bytes)
        return NULL;
    memcpy(bytes, SUMS_TABLE_MAGIC, SUMS_TABLE_AT_VERSION);
    sums_table_put32(bytes + SUMS_TABLE_AT_VERSION, SUMS_TABLE_VERSION);
    sums_table_put32(bytes + SUMS_TABLE_AT_ALGORITHM, SUMS_TABLE_ALGORITHM);
    sums_table_put64(bytes + SUMS_TABLE_AT_COUNT, sums->chunk_count);
    sums_table_put64(bytes + SUMS_TABLE_AT_SIZE, (uint64_t)sums->size);
    hash_to_bytes(sums->root, bytes + SUMS_TABLE_AT_ROOT);
    sums_table_put_entries(sums, bytes + SUMS_TABLE_HEADER);
    size_t end = SUMS_TABLE_HEADER + entries;
    hash_to_bytes(hash_of(store, bytes, end), bytes + end);
    return bytes;
}

errint sums_table_check_header(const uint8_t *header, uint64_t length, char why[SUMS_TABLE_WHY])
{
    if (memcmp(header, SUMS_TABLE_MAGIC, SUMS_TABLE_AT_VERSION) != 0) {
        snprintf(why, SUMS_TABLE_WHY, "offset 0: expected the magic \"CKPTSUM\\1\", found other bytes");
        return -EUCLEAN;
    }
    uint32_t version = sums_table_get32(header + SUMS_TABLE_AT_VERSION);
    if (version > SUMS_TABLE_VERSION) {
        snprintf(why, SUMS_TABLE_WHY, "expected format version %d, found %" PRIu32 ", of a newer ckptfs",
                 SUMS_TABLE_VERSION, version);
        return -EPROTONOSUPPORT;
    }
    uint32_t algorithm = sums_table_get32(header + SUMS_TABLE_AT_ALGORITHM);
    if (version != SUMS_TABLE_VERSION || algorithm != SUMS_TABLE_ALGORITHM) {
        snprintf(why, SUMS_TABLE_WHY,
                 "offset %d: expected format version %d and algorithm %d, found %" PRIu32 " and %" PRIu32,
                 SUMS_TABLE_AT_VERSION, SUMS_TABLE_VERSION, SUMS_TABLE_ALGORITHM, version, algorithm);
        return -EUCLEAN;
    }
    uint64_t count = sums_table_get64(header + SUMS_TABLE_AT_COUNT);
    uint64_t entries = length - SUMS_TABLE_FIXED;
    if (length < SUMS_TABLE_FIXED || entries % SUMS_TABLE_ENTRY != 0 || entries / SUMS_TABLE_ENTRY != count) {
        snprintf(why, SUMS_TABLE_WHY,
                 "expected %d bytes and %d for each of %" PRIu64 " chunks, found %" PRIu64 " bytes",
                 SUMS_TABLE_FIXED, SUMS_TABLE_ENTRY, count, length);
        return -EUCLEAN;
    }
    return 0;
}

/* The chunk of one entry, when it may follow what is there. */
static errint sums_table_get_entry(const uint8_t *entry, int64_t offset, struct sums *sums,
                                   char why[SUMS_TABLE_WHY])
{
    uint32_t field = sums_table_get32(entry);
    uint32_t length = field & ~SUMS_TABLE_STARTS_SEGMENT;
    bool starts_segment = field & SUMS_TABLE_STARTS_SEGMENT;
    int64_t longest = sums->size - offset < SUMS_CHUNK_MAX ? sums->size - offset : SUMS_CHUNK_MAX;
    if (length == 0 || length > longest) {
        snprintf(why, SUMS_TABLE_WHY, "chunk %zu: expected a length from 1 to %" PRId64 ", found %" PRIu32,
                 sums->chunk_count, longest, length);
        return -EUCLEAN;
    }
    if (offset == 0 && !starts_segment) {
        snprintf(why, SUMS_TABLE_WHY, "chunk 0: expected the start of a segment, found none");
        return -EUCLEAN;
    }
    sums->chunks[sums->chunk_count++] = (struct sums_chunk){
        .offset = offset,
        .length = length,
        .starts_segment = starts_segment,
        .hash = hash_from_bytes(entry + 4),
    };
    return 0;
}

static errint sums_table_get_entries(const uint8_t *entries, size_t count, struct sums *sums,
                                     char why[SUMS_TABLE_WHY])
{
    sums->chunks = count ? reallocarray(NULL, count, sizeof *sums->chunks) : NULL;
    if (count && !sums->chunks)
        return -ENOMEM;
    int64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        errint error = sums_table_get_entry(entries + i * SUMS_TABLE_ENTRY, offset, sums, why);
        if (error)
            return error;
        offset += sums->chunks[i].length;
    }
    if (offset != sums->size) {
        snprintf(why, SUMS_TABLE_WHY, "expected chunks of %" PRId64 " bytes in all, found %" PRId64,
                 sums->size, offset);
        return -EUCLEAN;
    }
    return 0;
}

errint sums_table_decode(const struct store *store, const void *bytes, size_t length, struct sums *out,
                         char why[SUMS_TABLE_WHY])
{
    const uint8_t *table = bytes;
    if (length < SUMS_TABLE_FIXED) {
        snprintf(why, SUMS_TABLE_WHY, "expected at least %d bytes, found %zu", SUMS_TABLE_FIXED, length);
        return -EUCLEAN;
    }
    errint error = sums_table_check_header(table, length, why);
    if (error)
        return error;
    size_t end = length - HASH_BYTES;
    if (!hash_equal(hash_of(store, table, end), hash_from_bytes(table + end))) {
        snprintf(why, SUMS_TABLE_WHY, "offset %zu: expected the checksum of what is before, found another",
                 end);
        return -EUCLEAN;
    }
    uint64_t size = sums_table_get64(table + SUMS_TABLE_AT_SIZE);
    if (size > INT64_MAX) {
        snprintf(why, SUMS_TABLE_WHY, "offset %d: expected an object's size, found %" PRIu64,
                 SUMS_TABLE_AT_SIZE, size);
        return -EUCLEAN;
    }
    cleanup_sums struct sums sums = {.size = (int64_t)size};
    const uint8_t *entries = table + SUMS_TABLE_HEADER;
    error = sums_table_get_entries(entries, (end - SUMS_TABLE_HEADER) / SUMS_TABLE_ENTRY, &sums, why);
    if (!error)
        error = sums_table_index_entries(store, entries, &sums);
    if (error)
        return error;
    if (!hash_equal(sums.root, hash_from_bytes(table + SUMS_TABLE_AT_ROOT))) {
        snprintf(why, SUMS_TABLE_WHY, "offset %d: expected the root of the chunks, found another",
                 SUMS_TABLE_AT_ROOT);
        return -EUCLEAN;
    }
    *out = sums;
    sums = (struct sums){0};
    return 0;
}
