/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a checkpoint's files is an optimizer's state that no model is assembled from: whole files
 * (ckpt/optimizer_files.h), and ranges of files that hold more. Those are known of DeepSpeed's files, in
 * which the FP32 partitions lie beside it, and of .distcp files, of which .metadata says what lies where.
 */
#ifndef CKPTFS_CKPT_OPTIMIZER_PARTS_H
#define CKPTFS_CKPT_OPTIMIZER_PARTS_H

#include "ckpt/tree.h"

/* Ranges begin and end with pages, so that a page of a mapped file has one state; and what is too short to
 * hold a chunk that is hashed for itself (store/sums.h) cannot be given back. */
enum { OPTIMIZER_PART_ALIGNMENT = 4096, OPTIMIZER_PART_LEAST = 512 * 1024 };

struct optimizer_part {
    const char *path; /* of the file, in the checkpoint */
    bool whole;       /* nothing else is in the file */
    int64_t offset, length;
};

/* Starts as {0}. */
struct optimizer_parts {
    struct tree tree; /* owns the paths */
    struct optimizer_part *at;
    size_t count, capacity;
};

/*
 * Sorted by path and offset; ranges of a file do not touch each other. Left out are files that were given up
 * already, in whole or in part, and what cannot be understood or read just now. Reads headers and pickles.
 * -ENOMEM; -ECANCELED, and what else the folder ends reading with. `out` is given to optimizer_parts_release
 * in any case.
 */
errint optimizer_parts_find(const struct folder *folder, struct optimizer_parts *out);
void optimizer_parts_release(struct optimizer_parts *parts);

#define cleanup_optimizer_parts __attribute__((cleanup(optimizer_parts_release)))

#endif
