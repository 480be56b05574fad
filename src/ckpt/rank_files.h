/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State dictionaries that each rank wrote to a file of its own with torch.save. A tensor in them is whole; or
 * a DTensor or ShardedTensor, which says what part of the whole it is; or flat, which does not.
 */
#ifndef CKPTFS_CKPT_RANK_FILES_H
#define CKPTFS_CKPT_RANK_FILES_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

struct rank_file {
    const char *path; /* in the folder */
    int64_t rank;
};

/*
 * Adds the tensors and their pieces to the model, file by file in the order given. `key`: the state
 * dictionary is under this key of the file's dictionary; NULL: it is the file's object. What is no tensor is
 * left out. Of what several ranks have in common the first file's is taken. What cannot be read or is missing
 * becomes a note. 0, -ENOMEM, or what the folder returned.
 */
errint rank_files_load(const struct folder *folder, const struct rank_file *files, size_t count,
                       const char *key, struct model *model);

#endif
