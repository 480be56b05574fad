/* SPDX-License-Identifier: Apache-2.0 */
/* The times that files get, and the clock that a test can set. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* The latest time that was noted. */
static _Atomic int64_t clock_noted;

int64_t clock_file_time(void)
{
    int64_t now = clock_read_ns(CLOCK_REALTIME_COARSE), noted = atomic_load(&clock_noted);
    /* The clock may have been set back since. */
    return noted > now && noted <= clock_read_ns(CLOCK_REALTIME) ? noted : now;
}

void clock_note_file_time(int64_t time)
{
    int64_t noted = atomic_load(&clock_noted);
    if (time <= noted || time > clock_read_ns(CLOCK_REALTIME))
        return;
    while (time > noted && !atomic_compare_exchange_weak(&clock_noted, &noted, time))
        continue;
}

bool clock_is_test(void)
{
    return getenv("CKPTFS_TEST_CLOCK") != NULL;
}

int64_t clock_wall(void)
{
    const char *path = getenv("CKPTFS_TEST_CLOCK");
    FILE *file = path ? fopen(path, "re") : NULL;
    long long seconds = 0;
    if (file && fscanf(file, "%lld", &seconds) != 1)
        seconds = 0;
    if (file)
        fclose(file);
    return clock_read_ns(CLOCK_REALTIME) + seconds * CLOCK_NS_PER_SECOND;
}
