/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the policies of runs are applied: some time after a file in a run was written and is safe, when a
 * policy was changed, and for ages once a minute. A thread of low priority does it, one run after the other.
 *
 * Each function returns at once; none does anything where the mount is read-only.
 */
#ifndef CKPTFS_FS_KEEP_WATCH_H
#define CKPTFS_FS_KEEP_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct filesystem;

/* Takes apart what an earlier daemon had begun to remove, and looks at all runs that have a policy. */
errint keep_watch_start(struct filesystem *fs);
/* Ends the thread, while requests are still served; a second call does nothing. */
void keep_watch_stop(struct filesystem *fs);
/* Frees it, when nobody calls what is below any more. */
void keep_watch_release(struct filesystem *fs);

/* The file was sealed, or has become another's: the runs that it may belong to are looked at soon. */
void keep_watch_file(struct filesystem *fs, uint64_t ino);
/* The thread (as fuse_req_ctx has it) has opened the file to read it. */
void keep_watch_opened(struct filesystem *fs, uint64_t ino, pid_t thread);
/* Whether some directory has a policy that may remove something. Takes no lock. */
bool keep_watch_is_used(struct filesystem *fs);
/* The checkpoints of the directory are others than before. */
void keep_watch_run(struct filesystem *fs, uint64_t directory);
/* The policy of the directory, and of all below it, is another. */
void keep_watch_below(struct filesystem *fs, uint64_t directory);

#endif
