/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program itself, run by the daemon as another user: with that user's rights and groups only, a clean
 * environment, none of the daemon's files. Where the daemon is root's, it sees the mounts in a namespace of
 * its own, so that its open files do not keep the mount from ending.
 */
#ifndef CKPTFS_FS_EXPORT_CHILD_H
#define CKPTFS_FS_EXPORT_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"

enum { EXPORT_GROUPS_MAX = 256, EXPORT_ARGUMENTS_MAX = 24 };

/* Whose rights it has. */
struct export_user {
    uid_t uid;
    gid_t gid;
    gid_t groups[EXPORT_GROUPS_MAX];
    size_t group_count;
};

struct export_child {
    pid_t pid;
    int output; /* what it says; the caller's to close */
};

/* Whether this process may run something as that user. */
bool export_child_may_be(const struct export_user *user);

/*
 * Starts it, in a process group of its own, with low priority. `arguments` are those behind the program's
 * name, NULL behind the last. 0 or -errno. It dies with the thread that starts it.
 */
errint export_child_start(const struct export_user *user, const char *const *arguments,
                          struct export_child *out);
/* Ends it and all that it started: by SIGTERM first, so that it can note how far it is. */
void export_child_stop(const struct export_child *child);
/* Waits for its end. The exit status; 128 and the signal that ended it; -errno. */
int export_child_wait(const struct export_child *child);

#endif
