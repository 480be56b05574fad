/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of weights as transformers, peft and diffusers call them, and what is in one of them.
 */
#ifndef CKPTFS_CKPT_WEIGHTS_H
#define CKPTFS_CKPT_WEIGHTS_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

/* A kind of weights. With a suffix: STEM.SUFFIX, STEM-0000I-of-0000N.SUFFIX, STEM.SUFFIX.index.json. */
struct weights_kind {
    const char *stem, *suffix;
    const char *model_stem; /* the stem of the safetensors file of the same model */
};

/* In the order in which the libraries look for them. */
extern const struct weights_kind weights_kinds[];
enum { WEIGHTS_KIND_COUNT = 6, WEIGHTS_NAME_MAX = 128 };

/* The names, into text[WEIGHTS_NAME_MAX], which is returned. */
const char *weights_whole_name(const struct weights_kind *kind, char *text);
const char *weights_index_name(const struct weights_kind *kind, char *text);
const char *weights_shard_name(const struct weights_kind *kind, int64_t number, int64_t count, char *text);
/* Whether a name is that of a shard of any kind; which one of how many. Each of the last three may be NULL.
 */
bool weights_is_shard(const char *name, const struct weights_kind **kind, int64_t *number, int64_t *count);

/* Takes a tensor of the file; it is gone afterwards. 0 or -errno, which ends the reading. */
typedef errint weights_visit(void *context, struct model *model, const struct tensor *tensor,
                             const char *name, uint32_t file);

/*
 * Reads a file of weights, safetensors or torch.save's, known by its first bytes, and adds it to the model's
 * files. `visit` is given each tensor; NULL: all are added to the model. What cannot be read becomes a note
 * with `missing`. safetensors' metadata becomes the model's. 0 or a negative errno that has nothing to do
 * with the bytes.
 */
errint weights_read(const struct folder *folder, const char *path, struct model *model, weights_visit *visit,
                    void *context);

#endif
