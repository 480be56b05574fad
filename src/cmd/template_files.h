/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a template: found in a directory on any disk, and copied into a run as files without a name,
 * which the mount then takes over.
 */
#ifndef CKPTFS_CMD_TEMPLATE_FILES_H
#define CKPTFS_CMD_TEMPLATE_FILES_H

#include "fs/control.h"

/* Larger files are no configuration, tokenizer or code. */
#define TEMPLATE_FILE_MAX (INT64_C(256) << 20)

struct template_file {
    char *name;
    int64_t size; /* bytes; of a copy: as copied */
    int copy;     /* descriptor of the copy; -1: none yet */
};

/* Starts with `directory`, which lives as long, and all else 0. */
struct template_files {
    const char *directory;
    int fd; /* of it */
    struct template_file at[CONTROL_TEMPLATE_FILES];
    size_t count;
};

/*
 * Opens the directory and finds what configures a model in it, in the order of the names. Symbolic links are
 * followed. What has such a name and cannot be lent is left out with a line. False: one line was logged.
 */
bool template_files_find(struct template_files *files);
/* Copies all into the directory that `run` is open on, for its owner: by sharing bytes where both are on one
 * mount. False: one line was logged. */
bool template_files_copy(struct template_files *files, int run);
/* Brings the copies to stable storage. False: one line was logged. */
bool template_files_sync(const struct template_files *files);
void template_files_release(struct template_files *files);

#endif
