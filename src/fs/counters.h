/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this daemon has done since it started, counted where it happens: for the metrics (metrics.h). Each
 * number is one atomic addition; together they are no snapshot. They begin at 0 with each daemon.
 */
#ifndef CKPTFS_FS_COUNTERS_H
#define CKPTFS_FS_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

/* Upper bounds of the fsyncs' histogram, in seconds; a last bucket has those that took longer. */
#define COUNTERS_FSYNC_BOUNDS                                                                                \
    {                                                                                                        \
        0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60                                                           \
    }
enum { COUNTERS_FSYNC_BUCKETS = 9 };

struct counters {
    _Atomic uint64_t sealed_files, sealed_bytes; /* files that were written and closed, and their sizes */
    _Atomic uint64_t shared_bytes;               /* that came to be stored once, with those of another file */
    _Atomic uint64_t fsyncs[COUNTERS_FSYNC_BUCKETS];
    _Atomic uint64_t fsync_ns;
    _Atomic uint64_t refused;   /* requests refused with ENOSPC */
    _Atomic uint64_t assembled; /* models made of shards */
    _Atomic uint64_t completed; /* checkpoints found complete that were not so before */
};

void counters_add_sealed(struct counters *counters, int64_t bytes);
void counters_add_fsync(struct counters *counters, int64_t ns);

#endif
