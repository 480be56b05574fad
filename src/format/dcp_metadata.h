/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .metadata file of torch.distributed.checkpoint: which items a checkpoint has, and where in its files
 * the boxes lie that each tensor is cut into (torch/distributed/checkpoint/metadata.py and filesystem.py, 2.0
 * to 2.13). A pickle, read without running anything (format/pickle.h).
 */
#ifndef CKPTFS_FORMAT_DCP_METADATA_H
#define CKPTFS_FORMAT_DCP_METADATA_H

#include <stdbool.h>

#include "base/arena.h"
#include "format/problem.h"
#include "format/source.h"
#include "format/tensor.h"

enum { DCP_NO_FILE = UINT32_MAX };

/* A box of a tensor, and the range of a file that holds it: a whole torch.save archive. */
struct dcp_chunk {
    const int64_t *starts, *sizes; /* a number a dimension; inside the tensor */
    uint32_t file;                 /* index of files; DCP_NO_FILE: the metadata does not say where it is */
    int64_t offset, length;        /* each >= 0; their sum fits */
    const char *transform;         /* how the range was encoded ("zstd"); NULL: not at all */
};

struct dcp_item {
    const char *name;
    /* The keys of nested dictionaries that lead to it, outermost first; path_count is 0 when that is not
     * known. The name is these with dots between them. */
    const char **path;
    size_t path_count;
    bool is_tensor; /* else any pickled object, and nothing below is set */
    enum tensor_type type;
    const char *foreign_type; /* what torch calls an element type that has no tensor_type; else NULL */
    struct tensor_shape shape;
    struct dcp_chunk *chunks;
    size_t chunk_count;
};

struct dcp_metadata {
    struct arena arena;     /* owns everything below */
    struct dcp_item *items; /* in the order of the checkpoint; names may be equal in a hostile file */
    size_t item_count;
    const char **files; /* names without a directory; in no order */
    size_t file_count;
    int64_t *file_sizes; /* of each file, in the order as read: it has at least so many bytes */
};

/* Whether a name that a file gives is one that a directory may hold: no path, nothing that cannot be printed.
 */
bool dcp_metadata_is_file_name(const char *name, size_t length);

/*
 * Reads the whole source. 0; FORMAT_FOREIGN with `problem` filled, also where it takes too much memory: more
 * than 1 GiB for the pickle's nodes, or than 1 GiB or 64 times the source for what is returned; a negative
 * errno. That boxes overlap or leave something out is not noticed here. `out` is given to
 * dcp_metadata_release in any case.
 */
int dcp_metadata_read(const struct format_source *source, struct dcp_metadata *out,
                      struct format_problem *problem);
void dcp_metadata_release(struct dcp_metadata *metadata);

#define cleanup_dcp_metadata __attribute__((cleanup(dcp_metadata_release)))

#endif
