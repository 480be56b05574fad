/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints that were not finished by processes that are gone. When a process that started after all that
 * was written there lists the run, and an older checkpoint of the run is complete, such a one moves to the
 * hidden directory META_HIDDEN_TORN, under the path that it had, before the listing is answered: so a trainer
 * that resumes from the last checkpoint finds the last complete one, and can make the same name again. It is
 * shown below .ckptfs/torn, and can be moved back from there.
 *
 * It never moves on a guess: not where structure does not tell, not while a process that wrote any checkpoint
 * of the run lives, nor when it is not known whether one does, and not what was copied (fs/writers.h).
 */
#ifndef CKPTFS_FS_TORN_H
#define CKPTFS_FS_TORN_H

#include "fs/filesystem.h"

/* Whether a listing of the directory must wait for a look. Cheap. */
bool torn_may_be_in(struct filesystem *fs, uint64_t directory);

/*
 * Looks at the run that `directory` is, on behalf of the thread `opener`, which is about to list it, and
 * moves what is torn. Blocks: reads what the checkpoints' files say, and waits a little for those that were
 * closed just now. No lock may be held. `stops` ends it early.
 */
void torn_take_away(struct filesystem *fs, uint64_t directory, pid_t opener, bool (*stops)(void *context),
                    void *context);

#endif
