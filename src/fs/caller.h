/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the thread that a look-up is for is about to do with the name. The kernel looks a name up before it
 * makes it, fails with EEXIST by itself if there is one, and does not say what the look-up is for; the call
 * that the thread waits in tells (/proc/PID/syscall).
 */
#ifndef CKPTFS_FS_CALLER_H
#define CKPTFS_FS_CALLER_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Whether it makes something new of that name: open with O_CREAT and O_EXCL or O_TRUNC, mkdir, mknod,
 * symlink, link, rename with RENAME_NOREPLACE. False also when that cannot be told: who is not root may not
 * ask it of any process everywhere. `thread`: as fuse_req_ctx has it; 0: unknown.
 */
bool caller_makes(pid_t thread, const char *name);

#endif
