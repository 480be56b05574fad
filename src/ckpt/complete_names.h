/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files the checkpoints of a run have in common, and one that lacks them is missing: learned from the
 * others, for what a trainer writes depends on its arguments. Numbers in names (steps, ranks, shards) become
 * '#', so that checkpoints of different steps and world sizes have the same names. Only files that trainers
 * write are compared; what people put beside them, and what comes and goes, is not. Nor is a model or a
 * tokenizer expected of others that came behind the Trainer's last file: it was made of the checkpoint, not
 * saved with it.
 */
#ifndef CKPTFS_CKPT_COMPLETE_NAMES_H
#define CKPTFS_CKPT_COMPLETE_NAMES_H

#include "ckpt/complete.h"

/* The `names` of a checkpoint's files, and those `shared`, in its arena: sorted, distinct. -ENOMEM. */
errint complete_names_collect(const struct tree *tree, struct complete *out);
bool complete_names_has(const struct complete_names *names, const char *name);
/* Whether such a name is of a file that the Trainer leaves out when it saves the model only. */
bool complete_names_is_for_resume(const char *name);
/* Whether it is one of those that a mount of ours shows beside shards by itself (ckpt/beside.h). */
bool complete_names_is_lent(const char *name);

/*
 * What the checkpoint `of` has to have: the names that all others near it have which are complete, or
 * weights only, and whose configuration is the same (another one may be another program's, which writes other
 * files). The caller frees out->at; the texts stay the others'. -ENOMEM.
 */
errint complete_names_learn(const struct complete *const *all, size_t count, size_t of,
                            struct complete_names *out);

#endif
