/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting by content: where a chunk ends depends on the bytes just before its end, so that an insertion moves
 * the cuts of its neighbourhood only (FastCDC: Xia et al., USENIX ATC 2016, with a gear hash, no cut in the
 * first SUMS_CHUNK_MIN bytes and normalised chunking).
 *
 * The gear hash of a position is that of the 64 bytes before it. A chunk ends where its highest bits are all
 * zero: 20 of them up to CHUNKER_NORMAL bytes, 16 from there on, which gives 256 KiB on average. A segment
 * ends with it where 4 lower bits are zero too, and never with a chunk that only its length ended. The gear
 * values are the first 256 outputs of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) from CHUNKER_SEED. Cuts
 * must stay the same for ever: what was stored is recognised by them.
 */
#ifndef CKPTFS_STORE_CHUNKER_H
#define CKPTFS_STORE_CHUNKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHUNKER_SEED   UINT64_C(0x636b7074667331) /* "ckptfs1" */
#define CHUNKER_NORMAL (208 * 1024)

struct chunker {
    uint64_t gear[256];
};

struct chunker_cut {
    size_t length;
    bool ends_segment;
};

/* Computes the gear values: a microsecond. */
void chunker_init(struct chunker *chunker);

/*
 * The chunk that starts at `bytes`. `length` > 0 is what is left of the run, or at least SUMS_CHUNK_MAX bytes
 * of it. Thread-safe.
 */
struct chunker_cut chunker_cut(const struct chunker *chunker, const uint8_t *bytes, size_t length);

#endif
