/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured of a filled namespace. */
#ifndef CKPTFS_BENCH_SCALE_MEASURE_H
#define CKPTFS_BENCH_SCALE_MEASURE_H

#include "scale_save.h"

enum { SCALE_FIGURES = 128 };

struct scale_figure {
    char name[64];
    const char *unit;
    double value;
};

/* The figures of one size. */
struct scale_report {
    struct scale_figure at[SCALE_FIGURES];
    size_t count;
};

void scale_put(struct scale_report *report, const char *unit, double value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What calls took on the average since `before`, which then becomes `now`. */
void scale_measure_calls(struct scale_report *report, const struct scale_state *now,
                         struct scale_state *before);
/* Sizes and rows; the database is closed. */
errint scale_measure_tables(struct scale_report *report, const struct scale_state *state, const char *path);
/* Opening it, and what else a start does, and look-ups; the database is closed before and after. */
errint scale_measure_start(struct scale_report *report, struct scale_state *state, const char *path);
errint scale_measure_find(struct scale_report *report, struct scale_state *state, const char *path);
/* Ten saves of a kind; the tenth, and deleting, are timed. The run is gone afterwards. */
errint scale_measure_probe(struct scale_report *report, struct scale_state *state,
                           const struct scale_kind *kind, const char *label);
/* One file more that `count` others equal. */
errint scale_measure_common(struct scale_report *report, struct scale_state *state, int count);

#endif
