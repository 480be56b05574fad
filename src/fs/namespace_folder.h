/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of the namespace as a folder (ckpt/folder.h): read through the daemon's own objects, never
 * through the mount. It notes which files were opened, and refuses with -EBUSY one that somebody can still
 * write or that is not on stable storage yet.
 */
#ifndef CKPTFS_FS_NAMESPACE_FOLDER_H
#define CKPTFS_FS_NAMESPACE_FOLDER_H

#include "base/ids.h"
#include "ckpt/folder.h"
#include "fs/filesystem.h"

struct namespace_input {
    char *path; /* below the directory */
    struct meta_inode row;
};

struct namespace_folder {
    struct filesystem *fs;
    uint64_t directory;
    struct namespace_input *inputs; /* each file that was opened, once */
    size_t input_count, input_capacity;
    char *buffer;  /* for reads */
    bool busy;     /* a file was refused */
    bool compares; /* set after the opening: nothing is made of the files, so that nobody need watch them */
    bool looks;    /* likewise: nobody asks afterwards which files were opened */
    /* Set after the opening: the same, and what is not on stable storage is read, too; a file that somebody
     * can write is as one that was removed (-ENOENT). */
    bool peeks;
    /* Set after the opening, not NULL: with `looks`, a file that somebody adds to a complete checkpoint, and
     * that would be refused, is as one that is not there; the checkpoint's directory is appended. */
    struct ids *added_to;
    /* Set after the opening: a configuration (TIED_CONFIG_NAME) that the directory lacks is the one that
     * others lend to it (fs/models.h). Who lends it is not among the inputs. */
    bool lends;
    bool lacks; /* with that: it was asked for, and the directory has none of its own */
    /* Asked at each read: true ends it with -ECANCELED. */
    bool (*stops)(struct filesystem *fs);
};

/* Of one thread. `out` refers to `folder`, which is given to namespace_folder_release. */
errint namespace_folder_open(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs),
                             struct namespace_folder *folder, struct folder *out);
void namespace_folder_release(struct namespace_folder *folder);

/* The input of that path; NULL: it was not opened. */
const struct namespace_input *namespace_folder_find(const struct namespace_folder *folder, const char *path);

/* The inode at a path below a directory; no symbolic link is followed. -ENOENT. */
errint namespace_find(struct filesystem *fs, uint64_t directory, const char *path, size_t length,
                      struct meta_inode *out);

#define cleanup_namespace_folder __attribute__((cleanup(namespace_folder_release)))

#endif
