/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint that a command makes files of: its directory, its model, and what lies beside it.
 */
#ifndef CKPTFS_CMD_MODEL_SOURCE_H
#define CKPTFS_CMD_MODEL_SOURCE_H

#include "ckpt/framework.h"
#include "ckpt/side_files.h"
#include "cmd/assemble_type.h"
#include "cmd/side_source.h"

struct model_source {
    const char *path; /* as it was given */
    bool strict;      /* the caller's: no symbolic link is followed (folder_plain_strict) */
    struct folder folder;
    struct side_source side;
    struct side_config config; /* of that */
    struct model model;
};

/* What is wished of the parameters' type, and what comes of it. */
struct model_source_wish {
    struct framework_wish framework;
    enum assemble_type_wish type;
    struct assemble_wish form;
    bool as_config_says; /* the form casts for that reason */
};

/*
 * Reads it, and logs what is worth knowing of it. EXIT_FINE, or the exit code after a line that says why,
 * which ends with `outcome` ("nothing is assembled"). `source` starts with its first two filled in; the
 * caller gives it to model_source_release in any case.
 */
int model_source_open(struct model_source *source, const struct framework_wish *wish, const char *outcome);
void model_source_release(struct model_source *source);

/* Completes the form. EXIT_FINE, or the exit code after a line. */
int model_source_choose_type(const struct model_source *source, struct model_source_wish *wish);

#endif
