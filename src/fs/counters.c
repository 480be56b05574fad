/* SPDX-License-Identifier: Apache-2.0 */
/* Counting. */
#include "fs/counters.h"

#include <stddef.h>

#include "base/clock.h"

void counters_add_sealed(struct counters *counters, int64_t bytes)
{
    atomic_fetch_add(&counters->sealed_files, 1);
    atomic_fetch_add(&counters->sealed_bytes, (uint64_t)bytes);
}

void counters_add_fsync(struct counters *counters, int64_t ns)
{
    static const double bounds[] = COUNTERS_FSYNC_BOUNDS;
    double seconds = (double)ns / (double)CLOCK_NS_PER_SECOND;
    size_t bucket = 0;
    while (bucket < sizeof bounds / sizeof *bounds && seconds > bounds[bucket])
        bucket++;
    atomic_fetch_add(&counters->fsyncs[bucket], 1);
    atomic_fetch_add(&counters->fsync_ns, (uint64_t)(ns > 0 ? ns : 0));
}
