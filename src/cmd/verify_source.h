/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verification reads from: a store that nobody uses, or a mount, whose daemon does the reading.
 */
#ifndef CKPTFS_CMD_VERIFY_SOURCE_H
#define CKPTFS_CMD_VERIFY_SOURCE_H

#include "ckpt/verify.h"
#include "fs/control.h"

struct verify_source {
    char *mountpoint; /* NULL: a store */
    int fd;           /* of the mount's root */
    struct store *store;
    struct meta *meta;
};

/* EXIT_FINE, or the exit code after one line has been logged. The caller closes it in any case. */
int verify_source_open(const char *argument, struct verify_source *out);
void verify_source_close(struct verify_source *source);

/* The regular files that `path`, from the root, is or holds: their inodes are appended. */
errint verify_source_files(const struct verify_source *source, const char *path, struct ids *out);

/* Objects that can be verified; of the file `ino`, or all (0). Appended. */
struct verify_objects {
    struct control_object *at;
    size_t count, capacity;
};
errint verify_source_objects(const struct verify_source *source, uint64_t ino, struct verify_objects *out);

/* As verify_step: `budget` is in bytes, at most CONTROL_VERIFY_MAX. */
errint verify_source_step(const struct verify_source *source, uint64_t object, int64_t offset, int64_t budget,
                          bool repair, struct verify_answer *out);

#endif
