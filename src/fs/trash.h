/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trash of a mount: what is removed of complete checkpoints goes there (meta/trash.h), where the policy
 * of the directory allows it, and is given up by a thread of its own: when its time is up, when the policy
 * says "off", and when the space is wanted.
 *
 * Space: as much of the disk is kept free as the next save needs (fs/room.h), and as the largest checkpoint
 * in the trash had: below that the oldest entries are given up. While there is little more, new files are not
 * written by passthrough, so that their writers can wait for more to be given up (fs/retry.h).
 *
 * What was torn (fs/torn_expire.h) goes likewise, and before it where the space is wanted.
 *
 * Thread-safe. Where the mount is read-only nothing is done, and nothing can be removed either.
 */
#ifndef CKPTFS_FS_TRASH_H
#define CKPTFS_FS_TRASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;

/* Takes up what an earlier daemon has left. */
errint trash_start(struct filesystem *fs);
void trash_stop(struct filesystem *fs);

/* -- what operations tell it; no lock is held -------------------------------------------------------------
 */

/* The checkpoint whose entry a file goes to that is removed from `directory`; 0: it is removed for good. */
uint64_t trash_find_checkpoint(struct filesystem *fs, uint64_t directory);
/* The same, where something of the checkpoint was removed already. Costs nothing where nothing was. */
uint64_t trash_find_begun(struct filesystem *fs, uint64_t directory);
/* A name went to the entry of the checkpoint. */
void trash_note_removal(struct filesystem *fs, uint64_t checkpoint);
/* A directory was removed. */
void trash_note_directory_removal(struct filesystem *fs, uint64_t directory);
/* A name was made in the directory: what is removed later from a checkpoint there is none of its entry. */
void trash_note_creation(struct filesystem *fs, uint64_t directory);
/* A directory was moved: where directories belong to is looked up anew. */
void trash_note_move(struct filesystem *fs);

/*
 * A whole directory goes to the trash at once, with what was removed of it before; for good, where the policy
 * says so. `reason`: for people. The kernel is told by the caller's thread, which must not answer it. 0 or a
 * negative errno.
 */
errint trash_take_directory(struct filesystem *fs, uint64_t directory, const char *reason);

/* There is an entry that others have made. */
void trash_note_entry(struct filesystem *fs);

/* A policy was changed, an entry was given back. */
void trash_kick(struct filesystem *fs);

/* -- space ------------------------------------------------------------------------------------------------
 */

/* Bytes of the disk that only the trash has, as of its last count. */
int64_t trash_bytes(struct filesystem *fs);
/* What is kept free on the disk; 0 while nothing may be given up. */
int64_t trash_kept(struct filesystem *fs);
/* Whether what is written now must be able to wait for space: it must not go by passthrough. */
bool trash_is_short(struct filesystem *fs);
/* Whether something can be given up. */
bool trash_has_any(struct filesystem *fs);
/* Whether there is something that may be given up for space: in the trash, or by a policy. */
bool trash_may_give(struct filesystem *fs);
/* Whether there may be soon, after trash_make_room has found nothing. */
bool trash_may_give_later(struct filesystem *fs);
/* How many entries were given up so far for want of space, or else. */
uint64_t trash_given(struct filesystem *fs);
/*
 * Returns when an entry was given up since there had been `given`, the oldest if need be, and its space is
 * free; false: there was none, or `stops`, which is asked every few milliseconds, has ended it. Blocks for
 * long: never call it from a thread that answers the kernel.
 */
bool trash_make_room(struct filesystem *fs, uint64_t given, bool (*stops)(void *context), void *context);

/* What an entry costs. */
struct trash_size {
    uint64_t ino, files;
    int64_t bytes;        /* the sum of the files' sizes */
    int64_t save_bytes;   /* that had to be written for it */
    int64_t unique_bytes; /* of the disk, that no other file has */
    bool closed;          /* it gets no more files */
};
/* As of the last count. False: it was not counted yet. */
bool trash_find_size(struct filesystem *fs, uint64_t ino, struct trash_size *out);

#endif
