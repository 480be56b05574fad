/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus' text exposition format, version 0.0.4: families of samples, each behind its HELP and TYPE.
 * Names of metrics and labels are the program's own and are not checked; values of labels may be any bytes.
 */
#ifndef CKPTFS_FS_EXPOSITION_H
#define CKPTFS_FS_EXPOSITION_H

#include "base/text.h"

struct exposition_label {
    const char *name, *value; /* NULL for `name` ends a list */
};

/* Begins a family. `type`: "counter" (its name ends in _total), "gauge" or "histogram". */
void exposition_family(struct text *out, const char *name, const char *type, const char *help);

/* One sample. `labels` may be NULL. */
void exposition_sample(struct text *out, const char *name, const struct exposition_label *labels,
                       double value);

/*
 * Appends a label's value between its quotes. Backslash, quote and newline are escaped as the format has it.
 * Bytes that are no UTF-8, and control characters, are shown as \xHH, and a backslash before an x as \x5c,
 * so that two values never become one.
 */
void exposition_label_value(struct text *out, const char *value);

#endif
