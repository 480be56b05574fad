/* SPDX-License-Identifier: Apache-2.0 */
/* Rates and the time that is left. */
#include "fs/pace.h"

#include "base/clock.h"

/* After so long, what was seen before counts for a third. */
#define PACE_MEMORY_SECONDS 3.0
#define PACE_LEFT_MAX       (10.0 * 365 * 86400)

static double pace_seconds(int64_t ns)
{
    return (double)ns / (double)CLOCK_NS_PER_SECOND;
}

void pace_note(struct pace *pace, int64_t bytes, int64_t now)
{
    int64_t apart = now - pace->time;
    if (!pace->begun || bytes < pace->bytes) {
        *pace = (struct pace){.begun = true, .bytes = bytes, .time = now, .rate = -1};
        return;
    }
    if (apart < PACE_APART_NS)
        return;
    double seconds = pace_seconds(apart), rate = (double)(bytes - pace->bytes) / seconds;
    /* The old one's weight falls with the time since, however often somebody looks. */
    double weight = seconds / (seconds + PACE_MEMORY_SECONDS / 2);
    pace->rate = pace->rate < 0 ? rate : pace->rate + weight * (rate - pace->rate);
    pace->bytes = bytes;
    pace->time = now;
}

double pace_average(int64_t bytes, int64_t since, int64_t now)
{
    return now - since < PACE_APART_NS ? -1 : (double)bytes / pace_seconds(now - since);
}

int64_t pace_left(int64_t bytes, int64_t expected, double rate)
{
    if (bytes >= expected)
        return 0;
    double seconds = rate > 0 ? (double)(expected - bytes) / rate : -1;
    if (seconds < 0 || seconds > PACE_LEFT_MAX)
        return -1;
    int64_t whole = (int64_t)seconds;
    return whole + (seconds > (double)whole);
}
