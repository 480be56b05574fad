/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands ask a mounted filesystem: ioctls on the mount's root directory. The kernel says who asks.
 */
#ifndef CKPTFS_FS_CONTROL_H
#define CKPTFS_FS_CONTROL_H

#include <sys/ioctl.h>

#include "ckpt/verify.h"

/* A restricted ioctl of FUSE moves less than 16 KiB. */
struct control_text {
    char text[16000]; /* NUL-terminated */
};

/* The mount's state as one JSON document. Anyone who can open the root may ask. */
#define CKPTFS_IOCTL_STATUS _IOR('k', 1, struct control_text)

enum { CONTROL_OBJECTS_MAX = 900 };

struct control_object {
    uint64_t id;
    int64_t size; /* bytes, as recorded */
};

/* The objects behind `after` that can be verified: of the file `ino`, or all (0). */
struct control_objects {
    uint64_t ino, after;
    uint64_t count; /* the answer: 0 at the end */
    struct control_object at[CONTROL_OBJECTS_MAX];
};

/* A step of verification: what is asked, and the answer. */
struct control_verify {
    uint64_t object;
    int64_t offset;
    int64_t budget; /* at most CONTROL_VERIFY_MAX */
    uint32_t repair;
    uint32_t reserved;
    struct verify_answer answer;
};

#define CONTROL_VERIFY_MAX (INT64_C(256) << 20)

/* Both tell paths and read much: only for root and for the user who mounted (else EPERM). */
#define CKPTFS_IOCTL_OBJECTS _IOWR('k', 2, struct control_objects)
#define CKPTFS_IOCTL_VERIFY  _IOWR('k', 3, struct control_verify)

#endif
