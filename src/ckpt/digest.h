/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashing a sealed object along the tensors of the file that it is: where the formats (format/segments.h)
 * meet the chunk hashes (store/sums.h).
 */
#ifndef CKPTFS_CKPT_DIGEST_H
#define CKPTFS_CKPT_DIGEST_H

#include <stdbool.h>

#include "format/segments.h"
#include "store/sums.h"

struct digest_request {
    const struct store *store;
    int fd; /* of the object; read by pread only */
    int64_t size;
    bool whole; /* the object is a whole file, so that its format can be looked for */
    /* Asked between chunks: true ends it with -ECANCELED. NULL: never. */
    bool (*stop)(void *context);
    /*
     * An entry of a torch zip whose bytes have another CRC-32 than the archive says: its name, its offset,
     * what the archive says and what was found. NULL: nobody wants to know.
     */
    void (*mismatch)(void *context, const char *name, int64_t offset, uint32_t expected, uint32_t found);
    void *context;
};

/*
 * Reads the object once or, where it has a known format, its headers besides. Errors as sums_compute. `kind`
 * tells which format was found. The caller gives `out` to sums_release. Thread-safe.
 */
errint digest_object(const struct digest_request *request, struct sums *out, enum format_kind *kind);

#endif
