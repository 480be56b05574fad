/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trash: what was removed of complete checkpoints, to be had back. Names and links only: no bytes move.
 *
 * An entry is what was removed of one checkpoint: a hidden directory (meta/hidden.h) with the files and
 * subdirectories under the names that they had in it, and with the attributes that these had before the first
 * of them was removed. A file goes there in the transaction that takes its name away. As long as the
 * checkpoint's directory is there and nothing new is made in it, all that is removed from it goes to one
 * entry. When the directory goes, the entry remembers where it was; when the directory that it was in goes,
 * too, that is remembered by a row of its own, so that each entry has a path.
 *
 * What is given up for good goes in steps, and is no entry from the first of them on.
 *
 * Which directories are checkpoints, who may see an entry and when it is given up is not known here.
 * Otherwise as meta.h.
 */
#ifndef CKPTFS_META_TRASH_H
#define CKPTFS_META_TRASH_H

#include "meta/meta.h"

/* The kind of hidden directory. */
#define META_HIDDEN_TRASH "trash"

enum meta_trash_kind {
    META_TRASH_CLOSED = 0, /* an entry */
    META_TRASH_OPEN = 1,   /* an entry that gets what is removed from `directory` */
    META_TRASH_ABOVE = 2,  /* no entry, but a directory that was removed, which others were removed from */
    META_TRASH_GOING = 3,  /* no entry any more: it is being given up */
};

enum { META_TRASH_REASON_MAX = 128 };

struct meta_trash {
    uint64_t ino;       /* the hidden directory; it is also the entry's number for people */
    uint64_t directory; /* what is left of the checkpoint where it was; 0: nothing */
    enum meta_trash_kind kind;
    uint64_t parent; /* the directory that it was in: an inode on the mount, or a row of META_TRASH_ABOVE */
    size_t length;
    char name[META_NAME_MAX + 1];
    int64_t removed;                    /* ns since the epoch: when the first name went, or the last */
    uint32_t remover;                   /* the user who did it */
    char reason[META_TRASH_REASON_MAX]; /* "": somebody removed it */
    uint32_t uid;                       /* the owner of the checkpoint's directory */
};

struct meta_trash_removal {
    uint64_t checkpoint; /* the directory that is one unit */
    uint64_t parent;     /* it, or a directory below it */
    const char *name;
    size_t length;
    uint64_t expected; /* as meta_unlink */
    bool directory;    /* a subdirectory, which must be empty */
    uint32_t remover;
    int64_t now;     /* that files and directories are stamped with */
    int64_t removed; /* that ages count from */
};
/*
 * As meta_unlink and meta_rmdir, but the file goes into the trash, and of a subdirectory its attributes.
 * Assembled files, and one whose name is there already, are removed as by meta_unlink with `reap` false.
 */
errint meta_trash_remove(struct meta *meta, const struct meta_trash_removal *removal, uint64_t unique,
                         struct ids *freed);

/* Something new is made in the directory of an open entry: what is removed later is none of it. */
errint meta_trash_close(struct meta *meta, uint64_t directory);

/*
 * A whole directory, with all that is below it, becomes an entry; what is left of a checkpoint joins what was
 * removed of it, and the directory is told by meta_shadows_released, for the caller to meta_reap. -ENOENT
 * when it has no name or is hidden already; -EBUSY for the root. `now`, `removed`: as in struct
 * meta_trash_removal.
 */
errint meta_trash_take(struct meta *meta, uint64_t directory, uint32_t remover, const char *reason,
                       int64_t now, int64_t removed);

/* All rows, the oldest removal first. The caller frees *out. */
errint meta_trash_read(struct meta *meta, struct meta_trash **out, size_t *count);
/* The entry with the lowest number above `after`, of those whose directory is `uid`'s (0: of all). -ENOENT.
 */
errint meta_trash_next(struct meta *meta, uint64_t after, uint32_t uid, struct meta_trash *out);
/* -ENOENT. */
errint meta_trash_find(struct meta *meta, uint64_t ino, struct meta_trash *out);
/* Where it was, as a path from the root; the caller frees it. What is left of it may be elsewhere now. */
errint meta_trash_path(struct meta *meta, const struct meta_trash *trash, char **out);

/* The nearest directory that is left on the mount of those that the entry was in, whose policies hold for it.
 */
errint meta_trash_find_above(struct meta *meta, const struct meta_trash *trash, uint64_t *out);

/* Whether a file has no name left on the mount, because it was removed: 1, 0 or an error. */
int meta_trash_has(struct meta *meta, uint64_t ino);

struct meta_trash_restore {
    uint64_t ino;
    uint64_t parent; /* where it goes */
    const char *name;
    size_t length;
    int64_t now;
};
/*
 * An entry becomes a directory of the mount again, all of it or nothing. Where the name is what is left of
 * the checkpoint, the files go back into that, which gets the times that it had. -EEXIST when the name, or
 * one of the files' names, is taken; -ENOENT when there is no such entry, or `parent` is gone. *out: the
 * directory.
 */
errint meta_trash_restore(struct meta *meta, const struct meta_trash_restore *wanted, uint64_t unique,
                          uint64_t *out);

/*
 * Gives an entry up, at most `limit` names at a time (0: it only is no entry from now on): 1 when there is
 * more, 0 at the end (or where there was none), or an error. Files that had their last name there are
 * appended to `released`, for the caller to meta_reap when nobody has them open.
 */
int meta_trash_give_up(struct meta *meta, uint64_t ino, unsigned limit, int64_t now, struct ids *released);

/* -- the view: what is in the trash, under the paths that it had ------------------------------------------
 */

/* Cookies of entries are above those of names. */
#define META_TRASH_COOKIE (UINT64_C(1) << 60)

/*
 * What was removed from a directory (on the mount, or a row of META_TRASH_ABOVE), and the subdirectories that
 * lead to such. `uid`: whose entries are shown; 0: everybody's. Of entries with one name the last has it; the
 * others, and directories above whose name another directory has, are called NAME~NUMBER. `is_entry` false: a
 * directory that leads to one. As meta_list otherwise.
 */
errint meta_trash_list(struct meta *meta, uint64_t directory, uint32_t uid, uint64_t after,
                       bool (*entry)(void *context, const char *name, size_t length, uint64_t cookie,
                                     const struct meta_inode *inode, bool is_entry),
                       void *context);
/* The same for one name; NAME~NUMBER is found whether it is shown or not. *is_entry: false for a directory
 * that leads to one. -ENOENT. */
errint meta_trash_lookup(struct meta *meta, uint64_t directory, uint32_t uid, const char *name, size_t length,
                         struct meta_inode *out, bool *is_entry);

#endif
