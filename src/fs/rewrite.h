/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints that are written over in their place. Before the first change of one that is complete its rows
 * are kept (meta/kept.h): before one of its files is opened for writing, cut, or gives its name to another,
 * and before something new is made in it. When the rewrite is finished the kept version is dropped; when who
 * wrote is gone before, it comes back, and the rewrite goes to where torn checkpoints go (fs/torn.h).
 *
 * Whether a rewrite is finished is a matter of fs/rewrite_judge.h; fs/checkpoints.h asks that at its looks.
 *
 * A checkpoint whose directory is the run's own is not kept, nor one that was copied: neither is ever torn.
 * What only loses files is a matter of the trash.
 */
#ifndef CKPTFS_FS_REWRITE_H
#define CKPTFS_FS_REWRITE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "meta/kept.h"

struct filesystem;

/* Reads what earlier daemons have kept; nothing where the mount is read-only. Before checkpoints_start. */
errint rewrite_prepare(struct filesystem *fs);
/* Has the checkpoints looked at that they were writing over. After it. */
void rewrite_start(struct filesystem *fs);
void rewrite_release(struct filesystem *fs);

/* -- before a change --------------------------------------------------------------------------------------
 *
 * For the thread (of fuse_req_ctx) that asks for it. No node's lock is held. The change may be made in any
 * case: what cannot be kept is logged.
 */

enum rewrite_change {
    REWRITE_ADDS,    /* a name is made that was not there */
    REWRITE_EDITS,   /* a file is changed, or its name becomes another's, that nobody needs (ckpt/rewritten.h)
                      */
    REWRITE_CHANGES, /* or one that somebody may need: the checkpoint is complete no more */
};

/* The bytes of a file. */
void rewrite_before_file(struct filesystem *fs, uint64_t ino, pid_t thread);
/* A name is made in a directory. Costs a look in memory where the last change there was in no complete
 * checkpoint. */
void rewrite_before_addition(struct filesystem *fs, uint64_t directory, pid_t thread);
/* The name, which is the file's, becomes another's. The same. */
void rewrite_before_replacement(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino,
                                pid_t thread);

/* Checkpoints, or where directories lie, are others than before: what is remembered of directories goes. */
void rewrite_forget_directories(struct filesystem *fs);

/* -- looks ------------------------------------------------------------------------------------------------
 */

struct rewrite_seen {
    struct meta_kept kept; /* checkpoint 0: there is none */
    uint64_t touches;      /* how often somebody was about to change something */
    bool lives;            /* one of those who changed something lives still */
    bool ended_well;       /* all who changed something have ended by themselves, with the status 0 */
};

/* The kept version of a checkpoint; false, and a checkpoint of 0: there is none. */
bool rewrite_find(struct filesystem *fs, uint64_t checkpoint, struct rewrite_seen *out);
/* The directory that the kept version is; 0: there is none. What has a higher number was made since. */
uint64_t rewrite_kept(struct filesystem *fs, uint64_t checkpoint);
/* Whether there is one in the run. */
bool rewrite_is_in(struct filesystem *fs, uint64_t run);
/* The rewrite is finished: what was kept is dropped, unless somebody was about to change something since. */
void rewrite_finish(struct filesystem *fs, const struct rewrite_seen *seen);
/* The kept version has come back: it is none any more. */
void rewrite_returned(struct filesystem *fs, uint64_t checkpoint);
/* The directory is no checkpoint any more: what was kept of it is dropped, if it is not on the mount. */
void rewrite_check(struct filesystem *fs, uint64_t checkpoint);
/* Somebody has removed the checkpoint, which had this name: what was kept goes to the trash, where there is
 * one. */
void rewrite_removed(struct filesystem *fs, uint64_t checkpoint, uint64_t parent, const char *name,
                     uint32_t remover);
/* Takes apart what was dropped. Only for the thread that looks at checkpoints. */
void rewrite_tidy(struct filesystem *fs);

/* -- space ------------------------------------------------------------------------------------------------
 */

bool rewrite_has_any(struct filesystem *fs);
/* Drops the oldest one, and gives its space back, since nothing else can be. False: there is none. */
bool rewrite_give_up(struct filesystem *fs);

#endif
