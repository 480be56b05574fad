/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The elements of a tensor, in order, out of its pieces.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_GATHER_H
#define CKPTFS_CKPT_ASSEMBLE_GATHER_H

#include "ckpt/assemble.h"

/* Of one thread; starts with the first four filled in. */
struct assemble_gather {
    const struct model *model;
    const struct model_tensor *tensor;
    assemble_read *read;
    void *context;
    /* What was read last: small ranges are taken from it. */
    uint8_t *window;
    uint32_t window_file;
    int64_t window_offset;
    size_t window_length;
};

/*
 * Puts elements [from, to) as they are stored to `out`: 0, -ENOMEM or what `read` returned. The more elements
 * at once, the longer the ranges that are read of pieces that are interleaved.
 */
errint assemble_gather_range(struct assemble_gather *gather, int64_t from, int64_t to, void *out);
void assemble_gather_release(struct assemble_gather *gather);

#endif
