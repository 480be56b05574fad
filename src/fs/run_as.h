/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command line that the daemon runs for a user, as that user: with the user's id, group and groups (as the
 * user database has them), without capabilities, without a way to get more privileges, without the daemon's
 * descriptors, and with an environment of its own. In a process group that ends with it.
 */
#ifndef CKPTFS_FS_RUN_AS_H
#define CKPTFS_FS_RUN_AS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct run_as {
    const char *command; /* for /bin/sh -c */
    uid_t uid;
    gid_t gid;
    char *const *environment; /* all of it; NULL at the end */
    const char *input;        /* what its standard input has */
    size_t input_length;
    unsigned seconds; /* that it may take */
    int stop_fd;      /* when this can be read, it is killed; -1: nothing stops it */
    /* Each line that it writes to its standard output and error, without the end; long ones in pieces. */
    void (*line)(void *context, const char *line);
    void *context;
};

/* Whether this process can run something as this user. */
bool run_as_may(uid_t uid);

/*
 * Runs it in the root directory and waits for it. `status` is what waitpid(2) says. 0; -ETIME when it took
 * too long, -ECANCELED when it was stopped, and was killed with all of its group; -EPERM: not as this user;
 * or another negative errno. Thread-safe; the thread must live until it returns, or the command dies.
 */
errint run_as(const struct run_as *order, int *status);

#endif
