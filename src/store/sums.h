/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunk hashes of an object: computed once after the seal, kept in a compact table beside the object.
 *
 * An object is cut into segments (a tensor, or a run of a file that is none), and each segment into chunks:
 * every SUMS_CHUNK bytes from the segment's start where the format is known, and by content (FastCDC with a
 * gear hash, the same average; Xia et al., USENIX ATC 2016) where it is not, so that an insertion moves only
 * its neighbourhood. A run cut by content becomes segments at chunk ends that a stricter rule selects (16
 * chunks on average, at most 64), so that the index of segments stays small.
 *
 * The hash of a segment is the hash of its chunks' lengths and hashes, as the table on disk has them:
 * segments of equal bytes that were cut in the same way have equal hashes, wherever they lie. The root is the
 * same over all chunks of the object: two objects with equal roots have equal bytes and equal segments.
 *
 * On disk, objects/xx/ID.sum: magic "CKPTSUM\1", then little-endian: format version (u32), algorithm (u32: 1
 * is XXH3-128 with the store's secret), chunk count (u64), object size (i64), 16 bytes of root; then 20 bytes
 * a chunk: length (u32, bit 31: a segment starts here) and hash (16 bytes, canonical); then the hash of all
 * that. Nothing in it is trusted before it is checked. It can be computed again from the object, as long as
 * nothing of that was punched.
 */
#ifndef CKPTFS_STORE_SUMS_H
#define CKPTFS_STORE_SUMS_H

#include "store/hash.h"

enum {
    SUMS_CHUNK = 256 * 1024,
    SUMS_CHUNK_MIN = 64 * 1024,   /* cut by content: at least, except at the end */
    SUMS_CHUNK_MAX = 1024 * 1024, /* cut by content: at most */
    SUMS_SEGMENT_CHUNKS_MAX = 64, /* of a run that is cut by content */
};

struct sums_chunk {
    int64_t offset; /* in the object */
    uint32_t length;
    bool starts_segment;
    struct hash128 hash;
};

struct sums_segment {
    int64_t offset, length;
    size_t first_chunk, chunk_count;
    struct hash128 hash;
};

struct sums {
    int64_t size; /* of the object */
    struct sums_chunk *chunks;
    size_t chunk_count;
    struct sums_segment *segments;
    size_t segment_count;
    struct hash128 root;
};

/* A part of the object as the caller knows it. */
struct sums_part {
    int64_t length; /* > 0 */
    bool opaque;    /* cut by content; else one segment with chunks at fixed distances */
};

struct sums_request {
    const struct store *store;
    int fd; /* read by pread only: no second open of the object */
    int64_t size;
    const struct sums_part *parts; /* cover [0, size); NULL: all of it is opaque */
    size_t part_count;
    /* Every byte of parts[part] in order, once: for checksums that the caller keeps. NULL: not wanted. */
    void (*bytes)(void *context, size_t part, const void *data, size_t length);
    /* Asked between chunks: true ends it with -ECANCELED. NULL: never. */
    bool (*stop)(void *context);
    void *context;
};

/*
 * Reads and hashes the object, in reads that are aligned to 4096 bytes (a descriptor with O_DIRECT will do).
 * -ECANCELED; -EIO when it is shorter than `size`; -EINVAL when the parts do not add up to it. The caller
 * gives `out` to sums_release; it is not touched on an error. Memory: one buffer of a few MiB, and at most 60
 * bytes a chunk and 50 a segment. Blocks; thread-safe.
 */
errint sums_compute(const struct sums_request *request, struct sums *out);
void sums_release(struct sums *sums);

/*
 * Writes the table beside the object, whole or not at all, and brings it to stable storage. -ENOENT: the
 * object was removed meanwhile, and nothing is left. One writer at a time of one object. Blocks.
 */
errint sums_write(struct store *store, uint64_t object, const struct sums *sums);
/*
 * Reads it. -ENOENT: there is none (or no object); -EUCLEAN, with one line: damaged, or of another size than
 * the object. A newer format version is -EPROTONOSUPPORT, with one line. The caller gives `out` to
 * sums_release; it is not touched on an error. Blocks; thread-safe.
 */
errint sums_read(struct store *store, uint64_t object, struct sums *out);
/* The same without a look at the object, which may be missing or cut off. */
errint sums_read_alone(struct store *store, uint64_t object, struct sums *out);
/*
 * Removes it, before the object is written again; 0 also when there is none. It is on stable storage after
 * the object's next sync. A power loss before that may bring it back beside bytes that are not its own:
 * whoever finds the object unsynced then removes it again.
 */
errint sums_remove(struct store *store, uint64_t object);

/*
 * Whether the bytes of an object, not sealed maybe, have the hashes of another one's table: 1, 0 at the first
 * chunk that is found to differ, or a negative errno as sums_compute. Some chunks from all over it come
 * first, so that most changes are seen after a few of them; then several threads share the rest. Of the
 * request, the parts and `bytes` are not used; `stop` is asked by all threads. Blocks; thread-safe.
 */
int sums_compare(const struct sums_request *request, const struct sums *sums);

/* The chunk that holds byte `offset` (binary search); chunk_count when it is beyond the end. */
size_t sums_chunk_at(const struct sums *sums, int64_t offset);
/*
 * Hashes the bytes of one chunk anew, read as sums_compute reads: 1 equal, 0 different, or a negative errno
 * (-EIO: cannot be read, or beyond the end). Blocks; thread-safe.
 */
int sums_check_chunk(const struct store *store, int fd, const struct sums_chunk *chunk);

#define cleanup_sums __attribute__((cleanup(sums_release)))

#endif
