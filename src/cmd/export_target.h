/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an export goes: the directory, the name in it, what has that name already, and the links.
 */
#ifndef CKPTFS_CMD_EXPORT_TARGET_H
#define CKPTFS_CMD_EXPORT_TARGET_H

#include "ckpt/export_facts.h"
#include "ckpt/export_place.h"

enum { EXPORT_LINKS_MAX = 16 };

/* Starts with `path` and `name`, the links, and -1 for each descriptor. */
struct export_target {
    struct export_place place;
    bool force, wait, quiet;
    const char *links[EXPORT_LINKS_MAX];
    size_t link_count;
};

/* These return EXIT_FINE, or the exit code after one line. */

/* Makes the directory, and those above it, where they are missing, and opens it. One on a mount of ours is
 * none: its files would not be on the plain disk. */
int export_target_open(struct export_target *target);
/* Waits for another export of the name, if it may, and has it alone until export_target_close. */
int export_target_lock(struct export_target *target);
/* Whether the name may be taken, and the links can be made. `*there`: it is an export of the same files, and
 * they are all there. */
int export_target_check(const struct export_target *target, const struct export_job *job,
                        const struct export_facts *facts, bool *there);
/*
 * Makes the links. "latest" is left out, with a line, where it leads to a later step of the same run whose
 * checkpoint is still there, unless `force`: it is taken off the list then.
 */
int export_target_link(struct export_target *target, const struct export_facts *facts);
void export_target_close(struct export_target *target);

#endif
