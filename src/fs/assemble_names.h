/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names under which a directory shows a model that it has not as such: model.safetensors, or
 * adapter_model.safetensors; and where SageMaker's loader looks for it (user_content.pt is there),
 * pytorch_model.bin too.
 */
#ifndef CKPTFS_FS_ASSEMBLE_NAMES_H
#define CKPTFS_FS_ASSEMBLE_NAMES_H

#include "fs/filesystem.h"

#define ASSEMBLE_TORCH_NAME "pytorch_model.bin"

/* What the directory has no file of its own for. */
struct assemble_names {
    bool safetensors;
    bool torch;
};

errint assemble_names_look(struct filesystem *fs, uint64_t directory, struct assemble_names *out);

/* Whether what the directory shows is what its names ask for: 1, 0 or an error. It shows something. */
int assemble_names_hold(struct filesystem *fs, uint64_t directory);

/* Whether a name is one of these. */
bool assemble_names_has(const char *name);

#endif
