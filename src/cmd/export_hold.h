/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping a checkpoint while it is exported: a file of it stays open, so that no policy of a mount removes
 * it. Its owner may, and that is noticed.
 */
#ifndef CKPTFS_CMD_EXPORT_HOLD_H
#define CKPTFS_CMD_EXPORT_HOLD_H

#include <stdbool.h>

struct export_hold {
    int checkpoint; /* -1: nothing is held */
    int file;       /* of it; -1: it has none that can be read */
};

/* Holds the checkpoint, a directory or one file. What cannot be held is none to wait for: whoever reads it
 * says why. */
void export_hold_take(const char *path, struct export_hold *hold);
/* Whether what is held has the path no more. */
bool export_hold_is_gone(const struct export_hold *hold, const char *path);
void export_hold_release(struct export_hold *hold);

#endif
