/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assembled files: inodes that have META_ASSEMBLED, whose extents are ranges of other files' objects. A
 * directory shows them under names that are not the namespace's, and keeps them as long as it is there: they
 * are withdrawn when one of the files that they were made from changes, and go with the directory. Some have
 * the same name in the directory itself (meta/beside.h).
 *
 * What is withdrawn is an inode without a name like others: meta_shadows_released tells of it, for the caller
 * to meta_reap when nobody has it open. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_ASSEMBLED_H
#define CKPTFS_META_ASSEMBLED_H

#include "meta/meta.h"

/* A range of an assembled file, and where its bytes are. */
struct meta_assembled_part {
    int64_t offset, length; /* in the assembled file */
    uint64_t object;        /* of the assembled file's own, or 0 */
    uint64_t ino;           /* where object is 0: a META_EXTENTS file */
    int64_t from;           /* offset in that object or file */
};

/* A file that was read for it; or a note of the caller's, when it is the directory itself. */
struct meta_assembled_input {
    const char *path; /* below the directory */
    uint64_t ino;
    int64_t mtime; /* or what the caller wants to know of it */
};

/*
 * Makes the inode: a regular file of `like`'s mode, owners, size and mtime that nothing shows yet, all of it
 * a hole. Until it is published it is an orphan: the next start removes it.
 */
errint meta_assembled_begin(struct meta *meta, const struct meta_inode *like, uint64_t *ino);
/*
 * Maps parts of it, in one transaction: a few hundred at a time keep others from waiting. Holes of a file
 * become holes; -EIO for bytes that were given up. -EBUSY, and nothing changes, when one of the files is no
 * META_EXTENTS file, is META_DIRTY or META_TORN, or too short.
 */
errint meta_assembled_map(struct meta *meta, uint64_t ino, const struct meta_assembled_part *parts,
                          size_t count);
/*
 * The directory shows it as `name` from now on, and nothing else; what it showed before is withdrawn.
 * `beside`: it gets that name in the directory too, if no other file has it. -ENOENT when the directory, or
 * the inode, is gone.
 */
errint meta_assembled_publish(struct meta *meta, uint64_t directory, const char *name, uint64_t ino,
                              bool beside, const struct meta_assembled_input *inputs, size_t count);

/* The directory, which shows something, shows this file too, made from the same inputs. -ENOENT as above, and
 * when it shows nothing. */
errint meta_assembled_publish_more(struct meta *meta, uint64_t directory, const char *name, uint64_t ino);

/* Withdraws all that the directory shows. `changed` (may be NULL) tells whether there was any. */
errint meta_assembled_withdraw(struct meta *meta, uint64_t directory, bool *changed);
/* Withdraws all that was made from the file; the directories that showed it are appended. */
errint meta_assembled_withdraw_input(struct meta *meta, uint64_t input, struct ids *directories);

/* -ENOENT when the directory shows nothing of that name (NULL: nothing at all, but for what is lent to it).
 */
errint meta_assembled_find(struct meta *meta, uint64_t directory, const char *name, size_t length,
                           struct meta_inode *out);
/* Whether a directory shows the inode: 1, 0 or an error. */
int meta_assembled_shown(struct meta *meta, uint64_t ino);
/* Calls `entry` for each that the directory shows, in the order of their inodes, after inode `after`, until
 * it returns false. It runs with the lock held: it must not call into meta. */
errint meta_assembled_list(struct meta *meta, uint64_t directory, uint64_t after,
                           bool (*entry)(void *context, const char *name, size_t length,
                                         const struct meta_inode *inode),
                           void *context);
/* The same for the files that what the directory shows was made from, or what it showed last. */
errint meta_assembled_inputs(struct meta *meta, uint64_t directory,
                             bool (*input)(void *context, const char *path, size_t length, uint64_t ino,
                                           int64_t mtime),
                             void *context);
/* That input is forgotten. */
errint meta_assembled_drop_input(struct meta *meta, uint64_t directory, const char *path);
/* Directories that show what a power cut has torn, or what was made from a file that it has. Appended. */
errint meta_assembled_torn(struct meta *meta, struct ids *out);
/*
 * Regular files with a name, in the order of their numbers: a part of the table after `*after`, which moves
 * on. 1, 0 when that was the last part, or an error. Appended.
 */
int meta_find_files_after(struct meta *meta, uint64_t *after, struct ids *out);
/* All files that something was made from. Appended. */
errint meta_assembled_all_inputs(struct meta *meta, struct ids *out);

#endif
