/* SPDX-License-Identifier: Apache-2.0 */
/* When the disk will be full. */
#include "ckpt/forecast.h"

/* Where the first one is that comes after `count` more; false when that is no number any more. */
static bool forecast_reach(int64_t base, int64_t count, int64_t each, int64_t *out)
{
    int64_t next, way;
    return !__builtin_add_overflow(count, 1, &next) && !__builtin_mul_overflow(next, each, &way) &&
           !__builtin_add_overflow(base, way, out);
}

void forecast_make(const struct forecast_asked *asked, struct forecast *out)
{
    *out = (struct forecast){.fits = asked->available >= asked->size, .step = -1};
    if (out->fits && asked->fresh <= 0) {
        out->count = -1;
        return;
    }
    /* All but the last one that fits have given back what they share. */
    if (out->fits)
        out->count = (asked->available - asked->size) / asked->fresh + 1;
    int64_t at;
    if (asked->step >= 0 && asked->steps > 0 && forecast_reach(asked->step, out->count, asked->steps, &at))
        out->step = at;
    if (asked->apart > 0 && forecast_reach(asked->time, out->count, asked->apart, &at))
        out->time = at;
}
