/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a directory shows already, or has shown: whether that is still of the files that lie there, and what
 * it says of those that were saved since. For the assembling thread alone.
 */
#ifndef CKPTFS_FS_ASSEMBLE_FORMER_H
#define CKPTFS_FS_ASSEMBLE_FORMER_H

#include "ckpt/model.h"
#include "fs/namespace_folder.h"

/* Instead of the mtime of an input that no bytes are taken from. */
#define ASSEMBLE_NO_SHARD INT64_MIN
/* The directory itself as an input, under the name of a configuration that it lacks, stands for what others
 * lend: that ruled out tied weights (ckpt/tied.h); ASSEMBLE_NO_SHARD: it did not, or there was none. */
#define ASSEMBLE_UNTIED (INT64_MIN + 1)
/* The directory itself under this name: its model was asked for. */
#define ASSEMBLE_ASKED_NAME ""

/*
 * Whether what the directory shows is still of the files that lie there: 1; 0: it shows nothing, or shows
 * nothing any more, as they are others or elsewhere. Shards that were removed and not replaced are missed by
 * nobody, unless there was one alone, or the directory is the root.
 *
 * Where only others' configuration says something else now, the model stays for those who load it until it is
 * made anew: *outdated is its inode then, else 0.
 */
int assemble_check(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs),
                   uint64_t *outdated);

/* Whether somebody asked for the model that the directory shows, or showed last: 1, 0 or an error. */
int assemble_was_asked(struct filesystem *fs, uint64_t directory);

/*
 * What the directory's last model forbids. Some shards were written anew since it was made and others were
 * not: the save is under way, -EAGAIN. After a time without a change it is taken for what was meant. And
 * -EEXIST where none was written anew, but somebody has removed that model.
 */
errint assemble_check_former(const struct namespace_folder *folder, const struct model *model);

#endif
