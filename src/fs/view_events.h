/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file .ckptfs/events: a stream of what the daemon tells (fs/events.h) from the open on. A read without
 * O_NONBLOCK waits for the next line; it takes no thread meanwhile, and ends by a signal, by the end of the
 * mount, and when that is taken out of the mount table under its readers, with the end of the file.
 *
 * A reader's place is in its handle (fs/state.h), so that a daemon that takes over goes on there.
 */
#ifndef CKPTFS_FS_VIEW_EVENTS_H
#define CKPTFS_FS_VIEW_EVENTS_H

#include "fs/filesystem.h"

errint view_events_start(struct filesystem *fs);
/* When no more requests are served: those that wait are left to a successor. */
void view_events_stop(struct filesystem *fs);

/* These answer their requests, perhaps later. */
void view_events_open(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi);
void view_events_read(fuse_req_t request, size_t size, const struct fuse_file_info *fi);
void view_events_poll(fuse_req_t request, uint64_t fh);
void view_events_close(struct filesystem *fs, uint64_t fh);

/* Something came, or somebody was interrupted: answers whom it can. Called by the events' thread, at least
 * once a second, without a lock. */
void view_events_wake(struct filesystem *fs);

#endif
