/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that torch.save wrote, open in a folder, of which a model is made. Starts as {0}. What is wrong with
 * it becomes a note of the model.
 *
 * Functions that return int: 0; FORMAT_FOREIGN when a note says why not; or a negative errno that has nothing
 * to do with the bytes.
 */
#ifndef CKPTFS_CKPT_SAVED_FILE_H
#define CKPTFS_CKPT_SAVED_FILE_H

#include "ckpt/folder.h"
#include "ckpt/model.h"
#include "format/torch_file.h"

struct saved_file {
    const struct folder *folder;
    char *path;     /* in the folder */
    uint32_t index; /* of the model's files */
    bool open;
    struct format_source source;
    struct torch_file torch;
    struct format_problem problem;
};

/* Opens, parses and adds it to the model's files; its object has to be a dict. The path is copied. The caller
 * gives it to saved_file_close in any case. */
int saved_file_open(const struct folder *folder, struct model *model, const char *path,
                    struct saved_file *out);
void saved_file_close(struct saved_file *file);
/* Turns `problem`, which a parser has filled, into a note when `result` is FORMAT_FOREIGN; hands `result` on.
 */
int saved_file_told(struct model *model, struct saved_file *file, int result);

#define cleanup_saved_file __attribute__((cleanup(saved_file_close)))

#endif
