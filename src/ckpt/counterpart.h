/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors of a model file are in a model in pieces: which ranges of the file and of the shards hold
 * the same elements of tensors that have the same name, type and shape. Whether the bytes are the same is for
 * the caller to see: the models may be of other steps.
 *
 * Names are taken for the same, too, when one of them has a wrapper's prefix ("module.", "_orig_mod.") or the
 * base model's ("model.") that the other has not.
 */
#ifndef CKPTFS_CKPT_COUNTERPART_H
#define CKPTFS_CKPT_COUNTERPART_H

#include "ckpt/model.h"

enum {
    COUNTERPART_LENGTH_MIN = 4096,  /* shorter ranges are left out, unless they follow others in the shard: */
    COUNTERPART_PART_MIN = 256,     /* then this is the least */
    COUNTERPART_ROWS_MAX = 1 << 14, /* of all pieces that are interleaved in the file, so many rows */
    COUNTERPART_RANGES_MAX = 1 << 20, /* in all */
};

struct counterpart {
    uint32_t file;         /* of the model in pieces */
    int64_t from;          /* offset in that file */
    uint32_t whole_file;   /* of the other model */
    int64_t whole, length; /* offset in that one, bytes */
};

/*
 * `whole` has tensors of one piece each; one that is not contiguous in its file is left out. Both have passed
 * model_check. Ranges that follow each other in both files are one. A piece whose rows lie apart in the whole
 * tensor is there row by row where a row has COUNTERPART_LENGTH_MIN bytes and all of its rows fit into
 * COUNTERPART_ROWS_MAX, and not at all otherwise. Ranges that lie side by side in a shard, as in a flat
 * partition, count together: a small one that is left would keep a whole chunk of the shard alive. Sorted by
 * the shards' files and offsets. 0 or -ENOMEM; the caller frees *out.
 */
errint counterpart_find(const struct model *whole, const struct model *pieces, struct counterpart **out,
                        size_t *count);

#endif
