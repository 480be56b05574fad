/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of a folder as a folder of its own, or one file of it: what reads one checkpoint reads one of a
 * run.
 */
#ifndef CKPTFS_CKPT_FOLDER_BELOW_H
#define CKPTFS_CKPT_FOLDER_BELOW_H

#include "ckpt/folder.h"

struct folder_below {
    const struct folder *folder;
    const char *path; /* "": the folder itself */
    const char *only; /* the one entry that is there; NULL: all are */
};

/* `below`, which `out` refers to, its folder and its path are the caller's and outlive it. */
void folder_below(const struct folder_below *below, struct folder *out);

#endif
