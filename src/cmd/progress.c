/* SPDX-License-Identifier: Apache-2.0 */
/* The line of progress. */
#include "cmd/progress.h"

#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/size_text.h"

enum { PROGRESS_NS = 200 * 1000 * 1000 };

static volatile sig_atomic_t progress_caught;

static void progress_catch(int number)
{
    progress_caught = number;
}

void progress_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = progress_catch, .sa_flags = SA_RESETHAND};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

int progress_signal(void)
{
    return progress_caught;
}

bool progress_show(struct progress *progress, int64_t done, int64_t total)
{
    int64_t now = clock_monotonic();
    if (progress->wanted && now - progress->shown >= PROGRESS_NS) {
        char done_text[SIZE_TEXT_MAX], total_text[SIZE_TEXT_MAX], rate_text[SIZE_TEXT_MAX];
        double seconds = (double)(now - progress->started) / (double)CLOCK_NS_PER_SECOND;
        progress->shown = now;
        /* The cursor goes back, so that a message takes the line's place. */
        fprintf(stderr, "\033[K%.0f %%, %s of %s, %s/s\r",
                total > 0 ? 100.0 * (double)done / (double)total : 100.0, size_text((double)done, done_text),
                size_text((double)total, total_text),
                size_text(seconds > 0 ? (double)done / seconds : 0, rate_text));
    }
    return progress_caught == 0;
}

void progress_end(const struct progress *progress)
{
    if (progress->wanted && progress->shown)
        fputs("\r\033[K", stderr);
}
