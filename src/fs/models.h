/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the view of a directory below .ckptfs/models shows besides its subdirectories. Where the directory is
 * a checkpoint, i.e. has a whole model of its own or an assembled one: that model, and the small files that
 * loaders read beside it (configuration, tokenizer, code). What of these the checkpoint lacks is lent: by the
 * directory above it, else by the newest of its neighbours that has a configuration, else by the template
 * (meta/template.h) of the nearest directory that has one. Code comes from there alone.
 *
 * A file is lent only by a directory of the same owner that at least the same users can search; of a
 * template, by a directory of the same owner.
 */
#ifndef CKPTFS_FS_MODELS_H
#define CKPTFS_FS_MODELS_H

#include "fs/filesystem.h"

/* Cookies of what has no name in the directory are above those of names, which are never that high. */
#define MODELS_COOKIE_ASSEMBLED (UINT64_C(1) << 60)
#define MODELS_COOKIE_LENT      (UINT64_C(1) << 61)
#define MODELS_COOKIE_TEMPLATE  (UINT64_C(3) << 60) /* and the cookie in the template */

/* The regular file that the view of `directory` shows under this name; -ENOENT. */
errint models_find(struct filesystem *fs, uint64_t directory, const char *name, size_t length,
                   struct meta_inode *out);

/* Calls `entry` for all that the view of `directory` shows after the cookie `after`, the subdirectories too,
 * until it returns false. It must not call into meta. */
errint models_list(struct filesystem *fs, uint64_t directory, uint64_t after,
                   bool (*entry)(void *context, const char *name, size_t length, uint64_t cookie,
                                 const struct meta_inode *inode),
                   void *context);

/*
 * Calls `entry` for what others lend to the directory: where that has a clone of theirs (meta/lent.h), for
 * the file that it is of, and for the clone itself where nobody lends it any more. As models_list; the
 * cookies mean nothing.
 */
errint models_list_lent_files(struct filesystem *fs, uint64_t directory,
                              bool (*entry)(void *context, const char *name, size_t length, uint64_t cookie,
                                            const struct meta_inode *inode),
                              void *context);

/* The file that others lend to the directory under that name, be it a checkpoint or not yet; -ENOENT. */
errint models_find_lent(struct filesystem *fs, uint64_t directory, const char *name, struct meta_inode *out);

/* Who has a file that a loader wants beside the model. */
enum models_source {
    MODELS_FROM_NOBODY,
    MODELS_FROM_DIRECTORY, /* the checkpoint itself */
    MODELS_FROM_ABOVE,
    MODELS_FROM_NEIGHBOUR,
    MODELS_FROM_TEMPLATE,
};
/* Whether or not there is a model yet. `name` is one that is lent, as "config.json". */
errint models_find_source(struct filesystem *fs, uint64_t directory, const char *name,
                          enum models_source *out);

/* Whether a file of this name is a whole model that a loader takes for itself. */
bool models_is_model(const char *name, size_t length);

#endif
