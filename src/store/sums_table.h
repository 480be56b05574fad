/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of chunk hashes as bytes (sums.h): pure, for sums.c, sums_file.c, repacking and the fuzzer.
 * Thread-safe.
 */
#ifndef CKPTFS_STORE_SUMS_TABLE_H
#define CKPTFS_STORE_SUMS_TABLE_H

#include "store/sums.h"

#define SUMS_TABLE_MAGIC "CKPTSUM\1"

enum {
    SUMS_TABLE_VERSION = 1,
    SUMS_TABLE_ALGORITHM = 1,
    /* Where things are. */
    SUMS_TABLE_AT_VERSION = 8,
    SUMS_TABLE_AT_ALGORITHM = 12,
    SUMS_TABLE_AT_COUNT = 16,
    SUMS_TABLE_AT_SIZE = 24,
    SUMS_TABLE_AT_ROOT = 32,
    SUMS_TABLE_HEADER = 48,
    SUMS_TABLE_ENTRY = 20,
    /* Header and checksum. */
    SUMS_TABLE_FIXED = SUMS_TABLE_HEADER + HASH_BYTES,
    SUMS_TABLE_WHY = 200,
};

/*
 * From sums->size and sums->chunks, which are filled in: the segments, their hashes and the root. -ENOMEM
 * leaves what sums_release frees.
 */
errint sums_table_index(const struct store *store, struct sums *sums);

/* The whole table, with its checksum: SUMS_TABLE_FIXED + SUMS_TABLE_ENTRY * chunk_count bytes, to be freed by
 * the caller. NULL: no memory. */
uint8_t *sums_table_encode(const struct store *store, const struct sums *sums, size_t *length);

/*
 * Checks the first SUMS_TABLE_HEADER bytes of a table of `length` bytes: the count fits it. 0, -EUCLEAN or
 * -EPROTONOSUPPORT, with the reason ("expected ..., found ...") in `why`.
 */
errint sums_table_check_header(const uint8_t *header, uint64_t length, char why[SUMS_TABLE_WHY]);

/* The way back: checks everything. Errors as above, and -ENOMEM; `out` is the caller's only when it is 0. */
errint sums_table_decode(const struct store *store, const void *bytes, size_t length, struct sums *out,
                         char why[SUMS_TABLE_WHY]);

#endif
