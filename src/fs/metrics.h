/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file `.ckptfs/metrics`: what the mount is and does, in Prometheus' text format. Series of runs carry
 * the label `run`; of so many runs at most (METRICS_RUNS_MAX), those that were saved to last.
 */
#ifndef CKPTFS_FS_METRICS_H
#define CKPTFS_FS_METRICS_H

#include "base/text.h"
#include "fs/report.h"

enum { METRICS_RUNS_MAX = 100 };

/* As far as whoever asks may know. -ENOMEM; -ECANCELED: nobody waits any more. For a thread of reports. */
errint metrics_write(struct report *report, struct text *out);

#endif
