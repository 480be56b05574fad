/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What trainer_state.json tells of a run at the checkpoint's step: the metrics of its log, and which
 * checkpoint the Trainer holds for the best. Python wrote it: NaN and Infinity are numbers in it. Nothing of
 * it is trusted: names that are no paths, numbers that fit.
 */
#ifndef CKPTFS_CKPT_TRAINER_PROGRESS_H
#define CKPTFS_CKPT_TRAINER_PROGRESS_H

#include "ckpt/folder.h"

enum { TRAINER_METRICS_MAX = 32, TRAINER_NAME_MAX = 128 };

struct trainer_metric {
    char name[TRAINER_NAME_MAX]; /* as in the log, "eval_loss"; printable */
    double value;                /* may be NaN or infinite */
};

struct trainer_progress {
    bool whole;                                         /* it is there, closed, and JSON */
    int64_t step;                                       /* "global_step"; -1: not said */
    struct trainer_metric metrics[TRAINER_METRICS_MAX]; /* of the log's rows of that step, distinct */
    size_t metric_count;
    bool has_best;
    double best_metric;
    int64_t best_step;                /* -1: not said */
    char best_name[TRAINER_NAME_MAX]; /* of the best checkpoint's directory; "": none */
    /* The metric that best_metric is a value of: the log has it at best_step. "": not known. */
    char best_metric_name[TRAINER_NAME_MAX];
};

/* Reads "trainer_state.json" of the folder. 0, also when there is none or it is damaged (`whole` is false
 * then, and the rest is what was understood until there); or -errno of reading. Memory: constant. */
errint trainer_progress_read(const struct folder *folder, struct trainer_progress *out);

/* The value of a metric of that name; false: there is none. */
bool trainer_progress_find(const struct trainer_progress *progress, const char *name, double *value);

#endif
