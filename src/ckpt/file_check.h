/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether one file of a checkpoint is all there, as its own format tells: a safetensors file has the size
 * that its header demands, a torch.save file ends in its central directory, JSON is closed. Of a large file
 * only header and directory are read. Bytes that changed in the middle are not noticed: that is verify's.
 */
#ifndef CKPTFS_CKPT_FILE_CHECK_H
#define CKPTFS_CKPT_FILE_CHECK_H

#include "ckpt/folder.h"
#include "format/problem.h"

enum file_state {
    FILE_WHOLE,
    FILE_CUT,    /* it is not: `problem` says why */
    FILE_OPAQUE, /* of no format that tells */
};

/*
 * Judges a file by its name and its bytes. `problem` is filled when *state is FILE_CUT. 0, or -errno of
 * reading; a file that is gone is -ENOENT. Thread-safe as far as the folder is.
 */
errint file_check(const struct folder *folder, const char *path, enum file_state *state,
                  struct format_problem *problem);

#endif
