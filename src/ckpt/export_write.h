/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the files of an export into the directory that it is built in, from where an earlier one has
 * stopped. Every byte is hashed as it is read from its source. Where the disk can share blocks between
 * files, whole blocks are not copied.
 */
#ifndef CKPTFS_CKPT_EXPORT_WRITE_H
#define CKPTFS_CKPT_EXPORT_WRITE_H

#include "ckpt/export.h"
#include "ckpt/export_state.h"

/* Bytes, by how they came there. */
struct export_written {
    int64_t cloned;  /* blocks that are shared with the source */
    int64_t copied;  /* as they are */
    int64_t made;    /* gathered, cast, headers */
    int64_t resumed; /* were there from an earlier export */
};

/*
 * Writes and syncs all files, and the directories that they lie in; fills the job's sums. `directory` is a
 * descriptor, `name` the directory's for messages. 0 or -errno, after one line that says why: -ENOSPC,
 * -EDQUOT, -EBADMSG when what is read back differs, -ECANCELED (which is not logged).
 */
errint export_write(struct export_job *job, int directory, const char *name, const struct export_state *state,
                    struct export_written *out);

#endif
