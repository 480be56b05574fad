/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the exit code of a ckptfs command says. Numbers never change their meaning; scripts depend on them.
 * (mount.ckptfs answers in mount(8)'s own codes instead: cmd/mount_helper.c.)
 */
#ifndef CKPTFS_CMD_EXIT_H
#define CKPTFS_CMD_EXIT_H

#include "fs/export_order.h"
#include "fs/keeper.h"
#include "fs/mount.h"
#include "store/store.h"

enum {
    EXIT_FINE = 0,
    EXIT_FAILED = 1, /* anything that has no number of its own; the line says what */
    EXIT_USAGE = 2,  /* the command line */

    /* verify; 4 as fsck(8) has it */
    EXIT_DAMAGE_LEFT = 4,    /* damage was found and is still there */
    EXIT_NOT_VERIFIABLE = 5, /* no damage was found, but something has no hashes that can be used */

    EXIT_MOUNTPOINT_MISSING = 10,
    EXIT_MOUNTPOINT_NOT_DIRECTORY = 11,
    EXIT_MOUNTPOINT_BUSY = 12,  /* something is mounted on it already */
    EXIT_MOUNTPOINT_DEAD = 13,  /* a mount whose daemon is gone */
    EXIT_FUSE_UNAVAILABLE = 14, /* /dev/fuse or fusermount3 missing or not permitted */
    EXIT_MOUNT_REFUSED = 15,    /* by the kernel or fusermount3 */
    EXIT_DAEMON_FAILED =
        KEEPER_EXIT_DAEMON_FAILED, /* 16: the daemon did not come up, or died five times in a minute */

    EXIT_NOT_A_STORE = 20,
    EXIT_STORE_NEWER = 21, /* made by a newer version */
    EXIT_STORE_NOT_WRITABLE = 22,
    EXIT_STORE_IN_USE = 23, /* mounted already, or another command works on it */
    EXIT_NO_DATABASE = 24,  /* objects without their meta.db */
    EXIT_STORE_DAMAGED = 25,
    EXIT_NO_SPACE = 26,
    EXIT_DATABASE_OLD = 27, /* an older copy of meta.db is in its place */

    EXIT_NOT_MOUNTED = 30,
    EXIT_UMOUNT_BUSY = 31,   /* a process uses the mount */
    EXIT_TIMED_OUT = 32,     /* no answer, or not finished, within the time allowed */
    EXIT_NOT_PERMITTED = 33, /* the mount belongs to another user */
    EXIT_NEVER = 34,         /* wait: the checkpoint is torn, or was removed */

    EXIT_EXPORT_BUSY = 36,                      /* another export of the same name is under way */
    EXIT_NONE_PICKED = EXPORT_EXIT_NONE_PICKED, /* 37: the run has no checkpoint that is to be exported */
};

static inline int exit_code_of_store(enum store_problem problem)
{
    switch (problem) {
    case STORE_FINE: return EXIT_FINE;
    case STORE_NOT_A_STORE: return EXIT_NOT_A_STORE;
    case STORE_NEWER: return EXIT_STORE_NEWER;
    case STORE_NOT_WRITABLE: return EXIT_STORE_NOT_WRITABLE;
    case STORE_IN_USE: return EXIT_STORE_IN_USE;
    case STORE_NO_DATABASE: return EXIT_NO_DATABASE;
    case STORE_DAMAGED: return EXIT_STORE_DAMAGED;
    case STORE_NO_SPACE: return EXIT_NO_SPACE;
    case STORE_FAILED: break;
    }
    return EXIT_FAILED;
}

static inline int exit_code_of_mount(enum mount_problem problem)
{
    switch (problem) {
    case MOUNT_FINE: return EXIT_FINE;
    case MOUNT_NO_FUSE: return EXIT_FUSE_UNAVAILABLE;
    case MOUNT_REFUSED: return EXIT_MOUNT_REFUSED;
    case MOUNT_FAILED: break;
    }
    return EXIT_FAILED;
}

#endif
