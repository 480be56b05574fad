/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that users have set for events (the policies hook-complete, hook-best, ...), run as the user
 * who set them (fs/run_as.h), a few at a time, and of one user fewer. An event reaches a hook when that user
 * may see it (fs/events.h). Each gets the event's facts in its environment and its line of JSON on standard
 * input; what it writes is logged; after its time, and at the end of the mount, it is killed. What was not
 * run to its end then, or when the daemon died, is run again by the next daemon. How it ends changes nothing
 * but the log.
 */
#ifndef CKPTFS_FS_HOOKS_H
#define CKPTFS_FS_HOOKS_H

#include "fs/event.h"

struct filesystem;

/*
 * Runs none where the mount is read-only or says so; nor out of a store that another user owns or can write:
 * what is set there need not have been set by whom it says.
 */
errint hooks_start(struct filesystem *fs);
/* Kills those that run. */
void hooks_stop(struct filesystem *fs);

/* Whether a hook is set for this event of the directory, by somebody who may see what is `owner`'s. Reads the
 * namespace. */
bool hooks_want(struct filesystem *fs, uint64_t directory, uint32_t owner, enum event_kind kind);
/* Runs it when its turn comes, in the order of each user's. `text`: the event as event_print has it; copied.
 * Reads the namespace. */
void hooks_add(struct filesystem *fs, uint64_t sequence, uint64_t directory, const char *text);

/* Kills those that run, which are run again when the pause is over, and starts none before; 0 s: for ever. */
void hooks_pause(struct filesystem *fs, unsigned seconds);
unsigned hooks_running(struct filesystem *fs);

/* Whether this user's hooks are run here. */
bool hooks_may_run_as(const struct filesystem *fs, uint32_t uid);

#endif
