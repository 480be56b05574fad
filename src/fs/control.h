/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands ask a mounted filesystem: ioctls on the mount's root directory. The kernel says who asks.
 */
#ifndef CKPTFS_FS_CONTROL_H
#define CKPTFS_FS_CONTROL_H

#include <sys/ioctl.h>

/* A restricted ioctl of FUSE moves less than 16 KiB. */
struct control_text {
    char text[16000]; /* NUL-terminated */
};

/* The mount's state as one JSON document. Anyone who can open the root may ask. */
#define CKPTFS_IOCTL_STATUS _IOR('k', 1, struct control_text)

#endif
