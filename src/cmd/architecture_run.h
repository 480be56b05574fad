/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks transformers of a model's architecture: runs the program that stands beside ckptfs for that
 * (ckptfs-architecture.py), as the caller, with limits of time and memory. Nothing of the checkpoint but the
 * text of its config and the list of its tensors gets there, and nothing of it is run.
 */
#ifndef CKPTFS_CMD_ARCHITECTURE_RUN_H
#define CKPTFS_CMD_ARCHITECTURE_RUN_H

#include "ckpt/architecture.h"

struct architecture_request {
    const char *python; /* NULL: $CKPTFS_PYTHON, else python3 */
    unsigned seconds;
    const char *config; /* the text of config.json */
    size_t config_length;
    struct model *model;
    bool names_tied;
    enum tensor_type type;
};

/* Fills the verdict, or says the reason why there is none: no library, too much time or memory. 0, -ENOMEM,
 * or -EINTR after a signal that has a handler. */
errint architecture_run(const struct architecture_request *request, struct loadable *out);

#endif
