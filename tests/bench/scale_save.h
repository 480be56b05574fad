/* SPDX-License-Identifier: Apache-2.0 */
/* Saving, sharing and deleting through the namespace's contract as the daemon does it; no bytes are written.
 */
#ifndef CKPTFS_BENCH_SCALE_SAVE_H
#define CKPTFS_BENCH_SCALE_SAVE_H

#include "meta/sharing.h"
#include "scale_models.h"

enum { SCALE_SAVES = 10, SCALE_SAMPLES = 20000 };

/* What one kind of call took. */
struct scale_timing {
    uint64_t count;
    int64_t ns, longest_ns;
};

struct scale_sample {
    struct meta_segment segment;
    uint64_t object;
};

struct scale_state {
    struct meta *meta;
    uint64_t runs;        /* numbers of runs that are taken */
    int64_t saved_bytes;  /* what the trainers wrote */
    int64_t stored_bytes; /* of that, what is not the same as something older */
    uint64_t checkpoints, files, segments;
    struct scale_timing create, seal, summed, find, predecessor, repoint, live, find_shrunk, shrunk_done;
    struct scale_sample samples[SCALE_SAMPLES]; /* drawn evenly from all segments that were indexed */
    uint64_t random;
};

struct scale_run {
    const struct scale_kind *kind;
    uint64_t number, ino;
    struct scale_tensor *tensors;
    size_t tensor_count;
};

/* The directory of a new run; scale_end_run releases the memory. */
errint scale_begin_run(struct scale_state *state, const struct scale_kind *kind, struct scale_run *run);
void scale_end_run(struct scale_run *run);
/* One save of the run, shared with older ones, what is dead given back. */
errint scale_save(struct scale_state *state, const struct scale_run *run, int number);
/* A file in `directory` that is no model's: one object with one segment, or `inlined`. */
errint scale_add_file(struct scale_state *state, uint64_t directory, const char *name, int64_t size,
                      bool inlined, uint64_t content);
errint scale_add_directory(struct scale_state *state, uint64_t parent, const char *name, uint64_t *ino);
/* Unlinks one save of the run, or with `number` -1 all of them and the run itself. */
errint scale_delete(struct scale_state *state, const struct scale_run *run, int number);

int64_t scale_clock(void);

#endif
