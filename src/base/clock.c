/* SPDX-License-Identifier: Apache-2.0 */
/* The clock that a test can set. */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

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
