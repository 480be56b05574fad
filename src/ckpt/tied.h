/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tied weights, which sharded checkpoints hold once for each of their names: an output layer that is the
 * embedding. Loaders tie them again, and their files hold only the embedding.
 */
#ifndef CKPTFS_CKPT_TIED_H
#define CKPTFS_CKPT_TIED_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

/* What is asked whether weights may be tied at all. */
#define TIED_CONFIG_NAME "config.json"

/* Whether the folder's configuration says that the output layer is one of its own ("tie_word_embeddings":
 * false). It does not where it is missing or cannot be read. 0 or -ENOMEM. */
errint tied_is_ruled_out(const struct folder *folder, bool *out);

/*
 * Marks the tensors that transformers ties to another by their names (its models' _tied_weights_keys, 5.23),
 * when shape, type and every byte are equal, and notes it. Not when the folder's
 * configuration rules it out, or the model is said to be `untied`: then both are kept, whatever they hold.
 * Reads the bytes of such pairs until they differ, a few MiB at a time. 0; -ENOMEM or what the folder
 * returned.
 */
errint tied_mark(const struct folder *folder, struct model *model);

#endif
