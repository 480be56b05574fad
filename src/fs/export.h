/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exports by policy: checkpoints go to a directory of the plain disk, those of each user one after the other,
 * by the program's own `export` command, which runs as the user who set the policy and reads through the
 * mount as anybody does. A few threads start it and wait for it; nothing else waits, and no lock is held
 * meanwhile.
 *
 * That a checkpoint is to be exported is recorded with its directory until it is done, so that a stop, a
 * crash or an export that fails loses nothing: it is tried again, after a minute first, then less often. An
 * event tells of the first failure, and of each with another reason.
 */
#ifndef CKPTFS_FS_EXPORT_H
#define CKPTFS_FS_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;
struct control_export;

enum { EXPORT_PROBLEM_MAX = 1000 };

/* Takes up what was left. Does nothing where the mount is read-only. */
errint export_start(struct filesystem *fs);
/* Ends what is under way: the next start takes it up. */
void export_stop(struct filesystem *fs);

/* These may be called with any lock held but the namespace's; `ino` is the checkpoint's directory. */

/* It has become complete, perhaps once more: exports it if a policy says so. */
void export_checkpoint(struct filesystem *fs, uint64_t ino);
/* Something was added to it since: the same, not at once, so that what is added to for ever is not exported
 * all the time. Reads the namespace. */
void export_added(struct filesystem *fs, uint64_t ino);
/* It was pinned. */
void export_pinned(struct filesystem *fs, uint64_t ino);

/* Whether it is to be exported and is not yet. Reads the namespace. */
bool export_is_pending(struct filesystem *fs, uint64_t ino);

/* Somebody asks for the export now. -EROFS; -ENOENT: no policy says where to; -EPERM; -ENOMEM. */
errint export_request(struct filesystem *fs, uint64_t ino);
/* What has become of it. */
errint export_tell(struct filesystem *fs, uint64_t ino, struct control_export *answer);

/* Has what is under way end, which takes a moment, and begins nothing for some seconds. Whether there
 * is something. */
bool export_halt(struct filesystem *fs);

/* Checkpoints that are to be exported. */
size_t export_waiting(struct filesystem *fs);

/* One of them, as it is told to people. */
struct export_told {
    uint64_t ino;
    bool running;
    unsigned failures;
    char problem[EXPORT_PROBLEM_MAX]; /* of the last one; "": none */
};
/* The first ones, at most `room`: how many there are of these. */
size_t export_list(struct filesystem *fs, struct export_told *out, size_t room);

#endif
