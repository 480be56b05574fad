/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that read requests from /dev/fuse and answer them. They wait for nothing but the kernel and the
 * locks of the moment; each notes in the state memory what it works on.
 */
#ifndef CKPTFS_FS_LOOP_H
#define CKPTFS_FS_LOOP_H

#include "fs/filesystem.h"

struct loop;

/*
 * Does the INIT exchange on the calling thread: with the kernel at the first start of a mount, with the
 * remembered message after a take-over.
 */
errint loop_initialise(struct filesystem *fs);

/* Starts the threads. `ended_fd`, an eventfd, is written when the kernel ended the connection (unmount). */
errint loop_start(struct filesystem *fs, unsigned threads, int ended_fd, struct loop **out);

/* Makes the threads finish what they work on and end. Frees the loop. */
void loop_stop(struct loop *loop);

#endif
