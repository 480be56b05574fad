/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ckptfs status --watch`: a mount's saves, runs and space again and again, until SIGINT, SIGTERM or the end
 * of the mount.
 */
#ifndef CKPTFS_CMD_STATUS_WATCH_H
#define CKPTFS_CMD_STATUS_WATCH_H

#include <stdbool.h>

#include "fs/mount_table.h"

struct status_watch {
    const char *mountpoint; /* NULL: every mount in sight, looked for anew each time */
    bool json;              /* an object a mount and a look, each on a line of its own */
    double interval;        /* seconds */
    unsigned timeout;       /* seconds that an answer may take */
};

/* The exit code: EXIT_FINE when a signal ended it. */
int status_watch_run(const struct status_watch *watch);

#endif
