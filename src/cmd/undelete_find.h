/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the trash of a mount has, and which of it a path on the command line means. The path need not exist.
 */
#ifndef CKPTFS_CMD_UNDELETE_FIND_H
#define CKPTFS_CMD_UNDELETE_FIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/size_text.h"
#include "format/plain_text.h"
#include "fs/control.h"

/* Below a mountpoint: the trash as the mount shows it. */
#define UNDELETE_VIEW "/.ckptfs/trash"

struct undelete_place {
    char *mountpoint;
    char *relative; /* the path, from the root of the mount: "" or with a slash before */
    struct control_trash *entries;
    size_t count;
};

/* The mount that a path is on, and all that the asker can have back there. EXIT_FINE; or the exit code after
 * one line has been logged. undelete_place_release in any case. */
int undelete_place_find(const char *path, struct undelete_place *out);
void undelete_place_release(struct undelete_place *place);

/* The absolute path, without symbolic links as far as it exists. The caller frees it; NULL: no memory, or one
 * ".." leads through what does not exist. */
char *undelete_resolve(const char *path);

/* The entry that is meant by exactly the path: the last of that name, or the one whose number follows. NULL.
 */
const struct control_trash *undelete_find_entry(const struct undelete_place *place);
/* Only the one whose number follows the path. NULL. */
const struct control_trash *undelete_find_numbered(const struct undelete_place *place);
/* Whether the entry was at the path, or below it. */
bool undelete_is_below(const struct undelete_place *place, const struct control_trash *entry);
/* Its path, absolute. The caller frees it; NULL: no memory. */
char *undelete_path_of(const struct undelete_place *place, const struct control_trash *entry);

enum { UNDELETE_TIME_MAX = 32 };
/* The time, in ns since the epoch, for people (in their own time) or in UTC as JSON has it. */
const char *undelete_time_text(int64_t time, bool local, char out[UNDELETE_TIME_MAX]);

#endif
