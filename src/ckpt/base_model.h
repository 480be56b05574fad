/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a base model may be: the directories that a name out of a config stands for, and those of the same
 * run. Names are not trusted: one that is no name of the Hub leads nowhere in its cache.
 */
#ifndef CKPTFS_CKPT_BASE_MODEL_H
#define CKPTFS_CKPT_BASE_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/* Directories, in the order in which they are tried; none twice. Starts as {0}. */
enum { BASE_MODELS_MAX = 64 };
struct base_models {
    char *at[BASE_MODELS_MAX];
    size_t count;
};

void base_models_release(struct base_models *models);
/* Adds a directory by its real path, if it is one, and not `but` (a real path; NULL: any). What is over
 * BASE_MODELS_MAX is left out. 0 or -ENOMEM. */
errint base_models_add(struct base_models *models, const char *path, const char *but);

/* "ORG/NAME" or "NAME" as the Hub allows them. */
bool base_model_name_is_valid(const char *name);
/*
 * Adds what the Hub's cache has of a name: the snapshot that "main" stands for, else every one. `cache`: the
 * directory with models--ORG--NAME in it. 0 or -ENOMEM.
 */
errint base_models_add_cached(struct base_models *models, const char *cache, const char *name,
                              const char *but);
/*
 * Adds the run's own directories: the one that a checkpoint ("checkpoint-500", by its real path) lies in, and
 * the other checkpoints there, those of the nearest earlier steps first. Nothing when the path has another
 * name. 0 or -ENOMEM.
 */
errint base_models_add_run(struct base_models *models, const char *checkpoint);

#define cleanup_base_models __attribute__((cleanup(base_models_release)))

#endif
