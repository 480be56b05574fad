/* SPDX-License-Identifier: Apache-2.0 */
/* Where on the mount an event belongs: its paths, whose policies hold for it, and who may see it. */
#ifndef CKPTFS_FS_EVENT_WHEREABOUTS_H
#define CKPTFS_FS_EVENT_WHEREABOUTS_H

#include "fs/event.h"

struct filesystem;

struct event_whereabouts {
    char *path, *run;   /* NULL: not known */
    uint64_t directory; /* at the path, or the nearest above it that is there still */
    uint32_t uid; /* the checkpoint's owner's; where it is gone, that directory's; UINT32_MAX for the root's,
                     which says nothing */
};

/* Reads the namespace. What cannot be found out stays unknown. */
void event_whereabouts_find(struct filesystem *fs, const struct event *event, struct event_whereabouts *out);
void event_whereabouts_release(struct event_whereabouts *where);

#endif
