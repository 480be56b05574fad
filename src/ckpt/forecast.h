/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a run will fill the disk, judging by its last checkpoints and by nothing else: that the next ones are
 * as large, that as much of each is new, that they come as far apart, and that nothing is removed and nobody
 * else writes. Pure.
 */
#ifndef CKPTFS_CKPT_FORECAST_H
#define CKPTFS_CKPT_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

struct forecast_asked {
    int64_t available; /* bytes of the disk that can be written now */
    int64_t size;      /* of the next checkpoint: while it is written it takes as much */
    int64_t fresh;     /* of these, what stays once equal bytes are shared; at most `size` */
    int64_t step;      /* of the last checkpoint; -1: not known */
    int64_t steps;     /* between two; 0: not known */
    int64_t time;      /* when the last one was saved, ns since the epoch */
    int64_t apart;     /* ns between two; 0: not known */
};

struct forecast {
    bool fits;     /* the next one does */
    int64_t count; /* that still fit; negative: there is no end to it */
    int64_t step;  /* of the first one that does not; -1: none, or not known */
    int64_t time;  /* when that is due, ns since the epoch; 0: none, or not known */
};

void forecast_make(const struct forecast_asked *asked, struct forecast *out);

#endif
