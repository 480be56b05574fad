/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small files that make a directory of weights a model that loaders take: configuration, tokenizer, code.
 */
#ifndef CKPTFS_CKPT_SIDE_FILES_H
#define CKPTFS_CKPT_SIDE_FILES_H

#include "ckpt/folder.h"
#include "format/tensor.h"

/* Whether save_pretrained and its kin write a file of that name beside weights. */
bool side_file_is(const char *name);

/* What config.json says. */
struct side_config {
    bool found;    /* there is one, and it is JSON */
    bool has_type; /* it names a type that is known: "dtype", older "torch_dtype" */
    enum tensor_type type;
    bool quantized; /* it has a quantization_config */
};

/* 0 also when there is none, or it cannot be understood; a negative errno of reading. */
errint side_config_read(const struct folder *folder, const struct folder_listing *listing,
                        struct side_config *out);

#endif
