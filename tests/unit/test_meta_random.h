/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the random test share: the model, the dice, and one function an operation. */
#ifndef CKPTFS_TESTS_UNIT_TEST_META_RANDOM_H
#define CKPTFS_TESTS_UNIT_TEST_META_RANDOM_H

#include <errno.h>

#include "test_meta_frame.h"
#include "test_meta_model.h"

extern struct model model;
extern struct ids freed; /* by the running operation */

/* A number from 0 to limit - 1. */
unsigned below(unsigned limit);
/* Any inode, most often one that `fits`. */
struct model_inode *pick(bool (*fits)(const struct model_inode *inode));
const char *pick_name(void);

bool is_directory(const struct model_inode *inode);
bool is_file(const struct model_inode *inode);
bool is_written(const struct model_inode *inode);
bool is_extents(const struct model_inode *inode);
bool is_nameless(const struct model_inode *inode);
bool has_stand_in(const struct model_inode *inode);
/* One of its names has a shadow. */
bool is_successor(const struct model_inode *inode);
/* What an operation on files answers for this inode. */
errint file_error(const struct model_inode *inode);
bool same_ids(struct ids *expected, struct ids *found);
/* The shadows of the inode's names are let go, to `list` or (NULL) to the released ones. */
void release_shadows(uint64_t ino, struct ids *list);

/* Each runs one operation on the namespace and on the model, and compares the results. */
void run_create(void);
void run_link(void);
void run_remove(void);
void run_rename(void);
void run_map(void);
void run_truncate(void);
void run_clone(void);
void run_to_object(void);
void run_to_inline(void);
void run_seal(void);
void run_unseal(void);
void run_tear(void);
void run_synced(void);
void run_reap(void);
void run_restore(void);
void run_fork(void);
void run_forget(void);
void run_stand_in(void);
void run_cut(void);

#endif
