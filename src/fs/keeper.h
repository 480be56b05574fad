/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: the small process that holds a mount's /dev/fuse descriptor, its state memory and the store's
 * lock, and starts one daemon after another to serve it. So the mount outlives a daemon that crashes, hangs,
 * or is replaced by a newer program.
 *
 * It never touches the mounted filesystem (it would wait for itself), and does nothing that can fail for
 * long.
 *
 *   SIGTERM, SIGINT  unmount; lazily when somebody uses the mount; wait until the daemon has finished
 *   SIGHUP           let the daemon finish what it has in work, then start the program that lies at `program`
 * now
 */
#ifndef CKPTFS_FS_KEEPER_H
#define CKPTFS_FS_KEEPER_H

#include <stdbool.h>

/* The daemon did not come up, or died too often. */
#define KEEPER_EXIT_DAEMON_FAILED 16

/* What keeper and daemon are called in the process table, by whatever name the program was run. */
#define KEEPER_PROCESS_NAME "ckptfs"

/* What a keeper leaves in the store's lock when it goes (store_lock_describe), for whoever waits for the
 * unmount. */
#define KEEPER_LAST_WORD        "nobody"
#define KEEPER_LAST_WORD_FAILED "nobody: the last daemon failed"

struct keeper_options {
    const char *program;       /* the path that is run as the daemon */
    const char *store;         /* absolute */
    const char *mountpoint;    /* absolute */
    const char *mount_options; /* as for -o; "" for none */
    int fuse_fd;               /* mounted already; these two become the keeper's */
    int lock_fd;               /* holds the store's lock */
    int report_fd;         /* gets the first daemon's "ready\n" or "error CODE MESSAGE\n"; -1: nobody waits */
    unsigned hang_timeout; /* seconds */
    bool log_to_syslog;    /* else stderr */
};

/*
 * Runs until the mount has ended. Returns 0 when it was unmounted and everything is written; the CODE of the
 * first daemon's error; or KEEPER_EXIT_DAEMON_FAILED.
 */
int keeper_run(const struct keeper_options *options);

#endif
