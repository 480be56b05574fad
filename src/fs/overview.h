/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What whoever asks may know of saves under way, of runs and of space: of one moment, for the status and for
 * the metrics.
 */
#ifndef CKPTFS_FS_OVERVIEW_H
#define CKPTFS_FS_OVERVIEW_H

#include "ckpt/forecast.h"
#include "fs/report.h"
#include "fs/saves.h"

struct overview {
    struct filesystem *fs;
    bool everything;                 /* root, or whoever mounted, asks */
    const struct outlook *outlook;   /* NULL: nothing is known yet */
    const struct outlook_run **runs; /* that may be told; the outlook's */
    size_t run_count;
    struct saves saves; /* that may be told */
    int64_t available;  /* bytes on the disk under the store */
};

/* For a thread of reports. -ECANCELED: nobody waits any more. The caller gives `out` to overview_release in
 * any case. */
errint overview_look(struct report *report, struct overview *out);
void overview_release(struct overview *overview);

/* When the run will fill the disk; the run has a last completed checkpoint. */
void overview_forecast(const struct overview *overview, const struct outlook_run *run, struct forecast *out);

/* What will be given back to the disk, the first first. */
enum { OVERVIEW_FREED_MAX = 8 };
struct overview_freed {
    const char *what, *when;
    int64_t bytes;
};
/* Returns how many there are. */
size_t overview_list_freed(const struct overview *overview, struct overview_freed out[OVERVIEW_FREED_MAX]);

#define cleanup_overview __attribute__((cleanup(overview_release)))

#endif
