/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The place of an export: its names in the target directory, who may work on them, and the moment at which
 * the new directory takes the old one's name.
 *
 * A reader that has a shared flock(2) on an exported directory keeps it from being removed: when another
 * takes its name, it stays under a hidden one until an export of the same name finds it unlocked.
 */
#ifndef CKPTFS_CKPT_EXPORT_PLACE_H
#define CKPTFS_CKPT_EXPORT_PLACE_H

#include "ckpt/export_state.h"

/* Starts as {.directory = -1, .lock = -1, .building = -1}. */
struct export_place {
    int directory; /* DIR; the caller's */
    const char *path, *name;
    int lock;
    int building; /* the directory that is built */
};

/* Takes the lock of the name. -EWOULDBLOCK: another export has it and `wait` is false; -EINTR: a signal came
 * while it was waited for. Errors of these functions are not logged, unless it is said. */
errint export_place_lock(struct export_place *place, bool wait);

/*
 * Makes or finds the directory that is built, and the state that belongs to it; all that is there and is none
 * of the job's files is removed. -EPERM: it is another user's.
 */
errint export_place_begin(struct export_place *place, const struct export_job *job,
                          struct export_state *state);
/* Removes both again. 0 or -errno. */
errint export_place_drop(const struct export_place *place);

/*
 * Gives the built directory its name, in one step where the disk can exchange names (all local ones can), and
 * removes what had it. `*replaced`: something had. Afterwards the name is on stable storage. An error after
 * that is logged, and is none.
 */
errint export_place_publish(struct export_place *place, bool *replaced);

/* Removes directories that readers had locked, and have not any more. */
void export_place_sweep(const struct export_place *place);

/* Makes DIR/LINK lead to the name, by a rename. -EEXIST: something that is no symbolic link has it. */
errint export_place_link(const struct export_place *place, const char *link);
/* The name that DIR/LINK leads to, or -errno; -ENOENT also when it leads out of DIR. */
errint export_place_read_link(const struct export_place *place, const char *link,
                              char name[EXPORT_NAME_MAX + 1]);

/* Ends it, and gives the lock up. */
void export_place_end(struct export_place *place);

#endif
