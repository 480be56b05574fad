/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that lies in a checkpoint's directory, as one sorted list: names, sizes, times; no file is opened.
 */
#ifndef CKPTFS_CKPT_TREE_H
#define CKPTFS_CKPT_TREE_H

#include "base/arena.h"
#include "ckpt/folder.h"

/* More is no checkpoint; it is not looked through. */
enum { TREE_ENTRIES_MAX = 1 << 17, TREE_DEPTH_MAX = 6 };

struct tree_entry {
    const char *path; /* in the folder */
    const char *name; /* its last component */
    bool directory;
    int64_t size, time; /* as folder_entry has them */
    bool shed;          /* it was found to be so: false as long as nobody has looked */
};

struct tree {
    struct arena arena;    /* owns the texts */
    struct tree_entry *at; /* sorted by path, as strcmp */
    size_t count, capacity;
    int64_t bytes;  /* of all files */
    int64_t newest; /* time of the file that was changed last; 0: not known */
    size_t files;
    bool cut; /* there is more, deeper or beyond TREE_ENTRIES_MAX */
};

/* Reads a folder, `levels` of directories deep (0: only its own entries). 0 or -errno; `out` is given to
 * tree_release in any case. */
errint tree_read(const struct folder *folder, unsigned levels, struct tree *out);
void tree_release(struct tree *tree);

/* The entry of that path; NULL: none. */
const struct tree_entry *tree_find(const struct tree *tree, const char *path);
/* The same of a file DIRECTORY/NAME; the directory, of `length` bytes, may be "". */
const struct tree_entry *tree_find_file(const struct tree *tree, const char *directory, size_t length,
                                        const char *name);
/* The length of an entry's directory in its path, without the slash. */
static inline size_t tree_directory_length(const struct tree_entry *entry)
{
    return entry->name == entry->path ? 0 : (size_t)(entry->name - entry->path) - 1;
}

#define cleanup_tree __attribute__((cleanup(tree_release)))

#endif
