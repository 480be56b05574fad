/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `--dtype`, `--max-shard-size` and `--format`: which type the floating-point parameters of a model are
 * written as, and into which files.
 */
#ifndef CKPTFS_CMD_ASSEMBLE_TYPE_H
#define CKPTFS_CMD_ASSEMBLE_TYPE_H

#include "ckpt/assemble.h"
#include "ckpt/side_files.h"

enum assemble_type_wish {
    ASSEMBLE_TYPE_CONFIG, /* what config.json names, where it names one */
    ASSEMBLE_TYPE_KEEP,   /* as they are in the checkpoint */
    ASSEMBLE_TYPE_GIVEN,  /* the type that the form has already */
};

/* "bf16", "bfloat16", ...: the form is filled; "keep". False: neither. */
bool assemble_type_parse(const char *text, enum assemble_type_wish *wish, struct assemble_wish *form);

/* "safetensors" or "bin". */
bool assemble_type_parse_format(const char *text, struct assemble_wish *form);

/* The type of most bytes of a model as the form has it written. NULL: as it is stored. */
enum tensor_type assemble_type_most(const struct model *model, const struct assemble_wish *form);

/*
 * Makes the form cast to config.json's type when most bytes of the model are floating-point numbers of
 * another one that can be made it. Not when the model is quantized, nor an adapter: PEFT keeps the type of
 * its files. A model whose main type is that of config.json stays as it is, with the parameters that its
 * library keeps in 32 bits. Returns whether the form casts now.
 */
bool assemble_type_follow_config(const struct model *model, const struct side_config *config,
                                 struct assemble_wish *form);

#endif
