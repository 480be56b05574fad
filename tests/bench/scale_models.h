/* SPDX-License-Identifier: Apache-2.0 */
/* The layouts of public models: what a save of each consists of, tensor by tensor. */
#ifndef CKPTFS_BENCH_SCALE_MODELS_H
#define CKPTFS_BENCH_SCALE_MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A tensor of rows x columns (columns 1: a vector); rows 0 ends a list. `repeat`: so many of them in a row.
 */
struct scale_shape {
    int64_t rows, columns;
    int repeat;
};

struct scale_model {
    const char *name;
    int element_bytes;
    int layers;
    const struct scale_shape *before, *layer, *after;
};

/* One way to train a model. */
struct scale_kind {
    const struct scale_model *model;
    int frozen;     /* per cent of the weights (scattered: of the tensors) that are the same in each save */
    bool scattered; /* what is frozen is spread over all tensors; else it is the first layers */
    bool optimizer; /* AdamW's two FP32 states of each trained tensor are saved too */
    int share;      /* of the stored bytes of the whole */
};

extern const struct scale_kind scale_kinds[];
extern const size_t scale_kind_count;
/* The kind whose tenth save is timed, and the same with what is frozen scattered. */
extern const struct scale_kind scale_probe_kind, scale_probe_scattered;

struct scale_tensor {
    int64_t elements;
    bool trained;
};

/* All tensors of the kind's model; NULL without memory. The caller frees. */
struct scale_tensor *scale_tensors(const struct scale_kind *kind, size_t *count);

#endif
