/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands ask a mounted filesystem: ioctls on the mount's root directory. The kernel says who asks.
 */
#ifndef CKPTFS_FS_CONTROL_H
#define CKPTFS_FS_CONTROL_H

#include <stdint.h>
#include <sys/ioctl.h>

/* A restricted ioctl of FUSE moves less than 16 KiB. */
struct control_text {
    char text[16000]; /* NUL-terminated */
};

/* The mount's state as one JSON document. Anyone who can open the root may ask. */
#define CKPTFS_IOCTL_STATUS _IOR('k', 1, struct control_text)

/* What a file or the tree below a directory costs, as in meta/usage.h. Counts the asker's files; root's all.
 */
struct control_usage {
    uint64_t files, extents;
    uint64_t logical_bytes, stored_bytes, unique_bytes;
    uint64_t reserved[3]; /* 0 */
};

/* On any file or directory that the asker can open. */
#define CKPTFS_IOCTL_USAGE _IOR('k', 10, struct control_usage)

/* What waits to be given back to the disk. */
struct control_reclaim {
    uint64_t now;                          /* in: 1: try now */
    uint64_t asked, done;                  /* tries asked for so far; those that have been made */
    uint64_t punch_objects, punch_bytes;   /* dead chunks of objects that are still used */
    uint64_t held_objects, held_bytes;     /* of those, what an open file or a mapping still sees */
    uint64_t remove_objects, remove_bytes; /* objects that no file uses */
    uint64_t unhashed_objects;       /* lost bytes and have no hashes yet: the dead chunks are not known */
    uint64_t open_files, open_bytes; /* deleted files that are still open, and what only they have */
    uint64_t can_punch;              /* 0: the disk gives back whole objects only */
    uint64_t reserved[3];            /* 0 */
};

/* On the root; for root and whoever mounted. */
#define CKPTFS_IOCTL_RECLAIM _IOWR('k', 11, struct control_reclaim)

#endif
