/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding which ranges of older objects have the bytes of a new one.
 *
 * A segment that the index knows is a seed. From each seed the match grows over neighbouring chunks for as
 * long as both objects agree, so that what is too small for the index (a bias, a zip's local header) does not
 * tear a run of equal tensors apart. What the seeds leave of an older object is compared chunk by chunk, at
 * any offset. What would take only a little from an older object is left out.
 *
 * Everything is decided on hashes of one store (store/hash.h): between files of one owner, or also between
 * those of different ones, which the caller then compares.
 */
#ifndef CKPTFS_CKPT_MATCH_H
#define CKPTFS_CKPT_MATCH_H

#include "meta/sharing.h"
#include "store/sums.h"

enum {
    MATCH_LENGTH_MIN = 4096,     /* shorter ranges are not shared by hash */
    MATCH_PART_MIN = 64,         /* an older object is left as it is when less than 1/64 of it would go, */
    MATCH_BYTES_ENOUGH = 1 << 20 /* and that is less than this */
};

struct match_request {
    struct store *store;
    struct meta *meta;
    uint64_t object; /* the new one, sealed and hashed */
    const struct sums *sums;
    uint64_t ino; /* the file that it is: names its predecessor */
    uint32_t uid; /* its owner */
    bool anyone;  /* look at other owners' objects too */
};

struct match {
    struct meta_move *moves; /* sorted by object and offset, without overlap */
    size_t move_count;
    struct ids objects; /* the older objects that have moves, each once */
    /* match.c's own */
    struct match_source *sources;
    size_t source_count;
};

/*
 * 0, also when nothing was found; a negative errno of the database or -ENOMEM. An older object whose table of
 * hashes is missing or damaged is left out. The caller gives `out` to match_release, whatever is returned.
 * Thread-safe.
 */
errint match_find(const struct match_request *request, struct match *out);
void match_release(struct match *match);

/*
 * Whether it pays to re-point files to get rid of so many bytes of an older object of that size. Without
 * this, files of one layout that have nothing but their header in common would all be changed by each new
 * one, and none would stay whole.
 */
bool match_pays(int64_t size, int64_t bytes);

/*
 * What the index is to know of a hashed object: the segments that are long enough, and the object as a whole.
 * The caller frees the rows. NULL: no memory.
 */
struct meta_segment *match_rows(const struct sums *sums, size_t *count);

#define cleanup_match __attribute__((cleanup(match_release)))

#endif
