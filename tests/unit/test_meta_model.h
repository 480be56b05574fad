/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A namespace in memory, as simple as can be, to compare the real one with: every byte of every file is a
 * cell that says where it comes from, and what is free is found by looking at all of them.
 */
#ifndef CKPTFS_TESTS_UNIT_TEST_META_MODEL_H
#define CKPTFS_TESTS_UNIT_TEST_META_MODEL_H

#include "meta/meta.h"

enum {
    MODEL_INODES = 96,
    MODEL_NAMES = 160,
    MODEL_SIZE = 48, /* no file is longer */
};

/* A byte of a file: of an object, or (object 0) a hole. */
struct model_cell {
    uint64_t object;
    int64_t offset;
};

struct model_inode {
    bool used;
    bool open; /* somebody has it open: it may not be reaped */
    struct meta_inode row;
    struct model_cell cells[MODEL_SIZE]; /* of META_EXTENTS */
    char bytes[MODEL_SIZE];              /* of META_INLINE */
    int64_t stored;                      /* how many of them are in the database: zeros follow */
    bool spare;                          /* META_OBJECT, META_EXTENTS: bytes from before are still stored */
    char spare_bytes[MODEL_SIZE];
    uint64_t stand_in; /* the inode whose bytes it has after a power cut; 0: its own */
};

struct model_name {
    bool used;
    uint64_t parent;
    char name[4];
    uint64_t ino;
    bool shadowed; /* the name goes back to `shadow` when its inode is torn */
    uint64_t shadow;
};

struct model {
    struct model_inode inodes[MODEL_INODES];
    struct model_name names[MODEL_NAMES];
    struct ids released; /* shadows and stand-ins that other changes than meta_synced let go */
};

struct model_inode *model_get(struct model *model, uint64_t ino);
/* A free place; NULL when the model is full. */
struct model_inode *model_new(struct model *model);
struct model_name *model_find(struct model *model, uint64_t parent, const char *name);
/* NULL when the model is full. */
struct model_name *model_add_name(struct model *model, uint64_t parent, const char *name, uint64_t ino);
bool model_has_entries(const struct model *model, uint64_t directory);
/* The directory that a directory is in; 0 when it was removed. */
uint64_t model_parent(const struct model *model, uint64_t directory);
/* Whether `directory` is `ancestor` or below it. */
bool model_is_below(const struct model *model, uint64_t directory, uint64_t ancestor);
bool model_is_shadow(const struct model *model, uint64_t ino);
bool model_is_stand_in(const struct model *model, uint64_t ino);
/* The inode's stand-in, if it has one, is let go, to `list` or (NULL) to model->released. */
void model_release_stand_in(struct model *model, struct model_inode *inode, struct ids *list);
/* The inode is removed, unless something needs it. */
void model_reap(struct model *model, struct model_inode *inode);
/* The shadow of a name, if it has one, is let go, to `list` or (NULL) to model->released. */
void model_release(struct model *model, struct model_name *name, struct ids *list);
/* A name of the inode went: its nlink, and whether it is removed. */
void model_unlinked(struct model *model, struct model_inode *inode, bool reap);
/* Whether a file other than `except` has a byte of the object, or writes it. */
bool model_refers(const struct model *model, uint64_t object, uint64_t except);
/* All objects that something refers to, each once. */
void model_objects(const struct model *model, struct ids *out);
/* The row's kind becomes none, and no byte is left. */
void model_clear(struct model_inode *inode);

#endif
