/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a plan, written into a directory of any disk. They are written beside the names that they get,
 * synced, and renamed when all are there: after an error, a full disk or a signal there is nothing new.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_WRITE_H
#define CKPTFS_CKPT_ASSEMBLE_WRITE_H

#include "ckpt/assemble.h"
#include "ckpt/folder.h"

struct assemble_output {
    const struct model *model;
    const struct assemble_plan *plan;
    const struct folder *folder;        /* that the model was read from */
    const struct folder *beside_folder; /* it, or another one */
    const char *const *beside; /* files of that one that are copied as they are, by their names in it */
    size_t beside_count;
    int directory;    /* where to; a descriptor */
    const char *name; /* the directory's, for messages */
    bool force;       /* files that are there already are replaced */
    /* The disk can map ranges of files that it serves itself, not of those that were opened to write first.
     */
    bool maps;
    /* Told how many bytes of all are done; false ends it with -ECANCELED. NULL: nobody wants to know. */
    bool (*progress)(void *context, int64_t done, int64_t total);
    void *context;
};

/* Bytes, by how they came there. */
struct assemble_written {
    int64_t cloned; /* blocks that are shared with the source */
    int64_t copied; /* ranges as they are */
    int64_t made;   /* gathered, cast, headers */
};

/*
 * 0 or -errno, after one line that says why: -EEXIST when a file is there already, -ENOSPC, -ECANCELED (which
 * is not logged). Modes are those of the process's umask. `model` and `plan` are whole. Not for two threads
 * and one directory.
 */
errint assemble_write(const struct assemble_output *output, struct assemble_written *out);

#endif
