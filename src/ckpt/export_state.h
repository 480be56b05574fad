/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far an export is: a text file, a line for each part of a file that is on stable storage. Only the last
 * line of a file counts; what is behind the last line's end is not read. A line is only believed as far as
 * the file that it is about bears it out.
 */
#ifndef CKPTFS_CKPT_EXPORT_STATE_H
#define CKPTFS_CKPT_EXPORT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "ckpt/export.h"

struct export_mark {
    bool whole;                /* the file is written */
    uint64_t ino;              /* of the file */
    int64_t length;            /* bytes from its start that are there */
    int64_t mtime;             /* of a whole one, ns */
    uint8_t sum[SHA256_BYTES]; /* of these bytes */
};

/* Starts as {.fd = -1}. */
struct export_state {
    int fd;                    /* lines are added here */
    struct export_mark *marks; /* one for each file of the job; `ino` is 0 where nothing is known */
};

/*
 * Reads what is there, and opens it to add to it; `*fresh`: nothing is known of this job, and the file is
 * begun anew. 0 or -errno. The caller gives it to export_state_release in any case.
 */
errint export_state_open(int directory, const char *name, const struct export_job *job,
                         struct export_state *out, bool *fresh);
/* Adds a line about a file of the job. 0 or -errno: what is written cannot be gone on from. */
errint export_state_add(const struct export_state *state, const struct export_job *job, size_t file,
                        const struct export_mark *mark);
void export_state_release(struct export_state *state);

#endif
