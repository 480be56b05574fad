/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run in a temporary directory, for tests of what judges checkpoints: files of the known formats, put there
 * and taken away again.
 */
#ifndef CKPTFS_TESTS_UNIT_TEST_CKPT_RUN_H
#define CKPTFS_TESTS_UNIT_TEST_CKPT_RUN_H

#include "ckpt/run.h"
#include "test_format_files.h"

/* Begins with an empty directory; what the test before left goes. Each ends the program when it cannot be
 * done. */
void run_begin(void);
void run_end(void);
/* The path of a file of the run on the disk, until the next call. */
const char *run_path(const char *path);

/* Writes a file, with its directories. */
void run_put(const char *path, const void *bytes, size_t length);
void run_put_text(const char *path, const char *text);
void run_put_safetensors(const char *path);
void run_put_torch(const char *path);
void run_cut(const char *path, size_t length);
void run_remove(const char *path);
/* The whole file; the caller releases it. */
void run_get(const char *path, struct bytes *out);

/* The files that a Trainer writes with so many ranks, in its order; the first is at index 0, NULL ends them.
 */
extern const char *const trainer_files[];
void run_put_trainer_file(const char *checkpoint, const char *file);
void run_put_trainer(const char *checkpoint);

/* Judges the whole run, and finds one checkpoint of it; the state of one that is not there is
 * COMPLETE_UNKNOWN. */
void run_judge_all(struct run *out);
enum complete_state run_state(const char *checkpoint);

#endif
