/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that wrote checkpoints of a run, so that a daemon knows after its predecessor's end whether
 * they live. The rows of a run go with its directory. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_WRITER_H
#define CKPTFS_META_WRITER_H

#include "meta/meta.h"

enum { META_WRITER_BOOT_MAX = 64 };

struct meta_writer {
    int64_t pid; /* 0: of another pid namespace */
    uint64_t started;
    char boot[META_WRITER_BOOT_MAX]; /* which start of the machine that was */
};

/* All of them, or none; what is there already stays. At most the newest `limit` of the run are kept. */
errint meta_writers_put(struct meta *meta, uint64_t run, const struct meta_writer *writers, size_t count,
                        size_t limit);
/* The caller frees *out. */
errint meta_writers(struct meta *meta, uint64_t run, struct meta_writer **out, size_t *count);

#endif
