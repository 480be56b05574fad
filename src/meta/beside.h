/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assembled files (meta/assembled.h) that have their name in the directory itself, beside the files that they
 * were made from. Looking up, listing and linking know no difference from other files; but they come and go
 * without a trace in the directory's times, whoever makes a file of that name replaces them, and a directory
 * that has nothing else counts as empty.
 *
 * Whoever removes or renames one has it for good: it is a file like others, or gone, and
 * meta_assembled_is_removed says that nobody wants another of the same files. Their attributes may change.
 */
#ifndef CKPTFS_META_BESIDE_H
#define CKPTFS_META_BESIDE_H

#include "meta/meta.h"

/* The file's bytes are about to be changed: it becomes a file like others. 0 also when it is none of these.
 */
errint meta_assembled_adopt(struct meta *meta, uint64_t ino);
/* All of them lose their names, and are shown as before otherwise. */
errint meta_assembled_hide_all(struct meta *meta);
/* Whether one was removed from the directory since something was assembled there: 1, 0 or an error. */
int meta_assembled_is_removed(struct meta *meta, uint64_t directory);

#endif
