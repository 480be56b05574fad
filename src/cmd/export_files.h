/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a checkpoint are exported: its weights, as they are where they are standard files already
 * and nothing else is asked for, else as a plan makes them; what lies beside them; on request all the rest.
 */
#ifndef CKPTFS_CMD_EXPORT_FILES_H
#define CKPTFS_CMD_EXPORT_FILES_H

#include "ckpt/export.h"
#include "ckpt/tree.h"
#include "ckpt/weights.h"
#include "cmd/model_source.h"

/* Starts as {0}; owns what its job points to, except the source. */
struct export_files {
    struct assemble_plan plan;
    struct tree tree;
    char index[WEIGHTS_NAME_MAX]; /* of weights that are copied */
    struct export_job job;
    char form[128]; /* how planned files are made, for export_identify */
    size_t capacity;
};

/*
 * Fills the job, with its fingerprint. `all`: everything in the checkpoint's directory. EXIT_FINE, or the
 * exit code after one line. The caller gives it to export_files_release in any case.
 */
int export_files_choose(const struct model_source *source, const struct model_source_wish *wish, bool all,
                        struct export_files *out);
/* Whether the sources are what they were when they were chosen. */
bool export_files_are_unchanged(const struct export_files *files);
void export_files_release(struct export_files *files);

#endif
