/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models without copying: a thread of low priority looks at a directory some time after a file in it, or one
 * level below it, was sealed. Where it is a whole checkpoint of a framework that is understood
 * (ckpt/framework.h) and has no model file of its own, the file that loaders want is made of ranges of the
 * shards' objects, and the view of the directory shows it (fs/models.h). The directory itself stays as it is:
 * names, times and all.
 *
 * What was assembled is withdrawn at once when a file that it was made from changes (fs/inputs.h), and when
 * such a file has another place or its name another file; it stays when they are merely removed. What was not
 * looked at before a stop or a crash is found again at the next start.
 *
 * Which directories that holds for is a policy (fs/policy.h): where it says "ask", nothing is made by itself,
 * and what there is stays; where a directory's policy says "off", what there is is withdrawn. The mount's
 * option "off" makes nothing, and keeps what there is.
 */
#ifndef CKPTFS_FS_ASSEMBLER_H
#define CKPTFS_FS_ASSEMBLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;
struct control_assemble;

/* Does nothing where the mount is read-only. */
errint assembler_start(struct filesystem *fs);
/* What is under way is dropped: the next start takes it up. */
void assembler_stop(struct filesystem *fs);

/* The file was sealed, or lies elsewhere now. */
void assembler_touch(struct filesystem *fs, uint64_t ino);
/* The directory has other names than before. */
void assembler_touch_directory(struct filesystem *fs, uint64_t directory);

/* The policy of the directory is another: it, and all below it, is to be looked at. */
void assembler_look_below(struct filesystem *fs, uint64_t directory);

/* The directory was moved from one into another: where their policies differ, as assembler_look_below. */
void assembler_move_directory(struct filesystem *fs, uint64_t directory, uint64_t from, uint64_t to);

/*
 * Somebody asks for the directory's model now, be it one that is not made unasked. -EROFS: nothing is
 * assembled here; -ENOMEM, -EBUSY.
 */
errint assembler_request(struct filesystem *fs, uint64_t directory);
/* What has become of that. -EROFS. */
errint assembler_tell(struct filesystem *fs, uint64_t directory, struct control_assemble *answer);

/* Files and directories that wait to be looked at. */
size_t assembler_waiting(struct filesystem *fs);

#endif
