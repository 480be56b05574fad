/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `ckptfs inspect` has found out, and telling it as JSON.
 */
#ifndef CKPTFS_CMD_INSPECT_H
#define CKPTFS_CMD_INSPECT_H

#include "ckpt/framework.h"
#include "ckpt/side_files.h"
#include "cmd/inspect_source.h"
#include "cmd/loadable_check.h"

/* Tensors of one type. */
struct inspect_type {
    int64_t tensors, elements, bytes;
};

struct inspect {
    const char *path;
    bool tensors; /* they are listed */
    struct folder folder;
    struct model model;
    struct side_source side;
    struct side_config config;                    /* of that */
    struct inspect_source source;                 /* of the configuration */
    struct inspect_type types[TENSOR_TYPE_COUNT]; /* of tensors that are not tied */
    int64_t elements, bytes;
    int64_t parameters; /* elements that are no buffer's */
    size_t tied;
    struct loadable_options check;
    struct loadable loadable;
};

/* Prints one JSON document. -ENOMEM. */
errint inspect_print_json(const struct inspect *inspect);

#endif
