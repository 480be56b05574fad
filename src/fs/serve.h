/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: serves one mounted store from a /dev/fuse descriptor that a keeper opened, until it is
 * unmounted, told to hand over, or dies. Everything that a successor needs is in the store or in the keeper's
 * state memory.
 */
#ifndef CKPTFS_FS_SERVE_H
#define CKPTFS_FS_SERVE_H

#include <stdbool.h>
#include <stddef.h>

#include "ckpt/policy.h"
#include "fs/room.h"

enum fs_passthrough {
    FS_PASSTHROUGH_AUTO, /* where kernel, library and privilege allow */
    FS_PASSTHROUGH_OFF,
};

enum fs_sharing {
    FS_SHARING_BACKWARD, /* older files give way to newer ones */
    FS_SHARING_FORWARD,  /* the same; but a new file that equals an older one gives way to that, unwritten */
    FS_SHARING_OFF,
};

struct fs_options {
    const char *store_path; /* absolute */
    const char *mountpoint; /* absolute; for messages only */
    int fuse_fd;            /* /dev/fuse, already mounted */
    int state_fd;           /* from state_create() */
    int lock_fd;            /* holds the store's lock */
    int ready_fd;           /* receives "ready\n" or "error CODE MESSAGE\n"; -1: nobody waits */
    bool allow_other;
    bool read_only;
    enum fs_passthrough passthrough;
    enum fs_sharing sharing;
    bool hooks;                      /* commands that users have set for events are run */
    bool verify_on_share;            /* compare bytes, not only hashes */
    bool share_owners;               /* share between owners too, always after a compare */
    enum policy_assembling assemble; /* where no directory has a policy of its own */
    const char *trash;               /* where no directory has a policy of its own; NULL: none was given */
    const char *trash_age;           /* likewise */
    struct room_least min_free;      /* to be kept free on the disk under the store */
    unsigned full_timeout;           /* seconds that a request waits for room; 0: it does not */
    size_t inline_limit;             /* bytes; a closed file of at most this many lives in the database */
    unsigned threads;                /* that answer the kernel; 0: by the number of processors */
    unsigned backup_interval;        /* seconds; 0: no backup of the database for this alone */
    unsigned read_ahead_kib;         /* 0: leave the kernel's */
};

enum {
    FS_EXIT_UNMOUNTED = 0, /* everything is written and the store is closed */
    FS_EXIT_FAILED = 1,
    FS_EXIT_STORE_NEWER = 21, /* the database was made by a newer version */
    FS_EXIT_STORE_DAMAGED = 25,
    FS_EXIT_NO_SPACE = 26,
    FS_EXIT_DATABASE_OLD = 27, /* an older copy of meta.db is in its place */
    FS_EXIT_HANDOVER = 75,     /* asked by SIGUSR1: requests are finished, a successor may start */
};

/*
 * Runs the daemon in this process: blocks SIGTERM, SIGINT and SIGHUP (the keeper decides when to unmount),
 * drains at SIGUSR1. Returns one of the exit codes above.
 */
int fs_serve(const struct fs_options *options);

#endif
