/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that the daemon runs for a user, as that user: with the user's id and groups, without a way to
 * get more privileges, and without the daemon's descriptors. What it starts ends with it
 * (fs/run_as_attend.h).
 *
 * It is a command line of the user's, without any capabilities and with the limits that programs expect; or
 * this program itself, with low priority, and, where the daemon is root's, in a namespace of mounts of its
 * own, so that what it has open does not keep the mount from ending.
 */
#ifndef CKPTFS_FS_RUN_AS_H
#define CKPTFS_FS_RUN_AS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"

enum { RUN_AS_GROUPS_MAX = 256 };

struct run_as_user {
    uid_t uid;
    gid_t gid;
    gid_t groups[RUN_AS_GROUPS_MAX];
    size_t group_count;
};

struct run_as {
    const struct run_as_user *user;
    const char *command;            /* for /bin/sh -c; NULL: the program itself */
    const char *const *arguments;   /* of the program itself, with its name first; NULL at the end */
    const char *const *environment; /* all of it; NULL at the end */
    const char *input;              /* what its standard input has */
    size_t input_length;
    unsigned seconds;  /* that it may take; 0: any time */
    unsigned patience; /* ms between SIGTERM and SIGKILL, when it is stopped; 0: it is killed at once */
    int stop_fd;       /* when this can be read, it is stopped; -1: nothing stops it */
    /* Called when `watch_fd` has an exceptional condition (POLLPRI): true stops it. NULL: nothing is watched.
     */
    bool (*watch)(void *context);
    int watch_fd;
    /* Each line that it writes to its standard output and error, without the end; long ones in pieces. */
    void (*line)(void *context, const char *line);
    void *context;
};

/* Whether this process can run something as this user. */
bool run_as_may(uid_t uid);

/* The user with the groups that the user database has; with the one group where it does not know him.
 * -E2BIG: too many. */
errint run_as_find_user(uid_t uid, gid_t gid, struct run_as_user *out);

/*
 * Runs it in the root directory and waits for it. `status` is what waitpid(2) says. 0; -ETIME when it took
 * too long, -ECANCELED when it was stopped: then it has ended, with all that it started; -EPERM: not as this
 * user; or another negative errno. Thread-safe; the thread must live until it returns, or the process dies.
 */
errint run_as(const struct run_as *order, int *status);

#endif
