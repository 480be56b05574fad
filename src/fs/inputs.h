/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that assembled files were made from: whoever is about to change one of them, or gives its name to
 * another, has what was made from it withdrawn first.
 *
 * Lock order: a node's lock may be held by the caller; none is taken here but the set's own, then the
 * namespace's.
 */
#ifndef CKPTFS_FS_INPUTS_H
#define CKPTFS_FS_INPUTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "meta/assembled.h"

struct filesystem;

/* Knows the inputs of all that is assembled; withdraws what a power cut has torn. Before requests are served.
 */
errint inputs_load(struct filesystem *fs);
void inputs_release(struct filesystem *fs);

/* The file is about to be changed, or to lose a name to another file or place. Costs nothing for others. */
void inputs_change(struct filesystem *fs, uint64_t ino);

/* Whether something may have been assembled from it. */
bool inputs_has(struct filesystem *fs, uint64_t ino);

/* One assembly at a time: begin, watch each file before it is looked at, publish. */
void inputs_begin(struct filesystem *fs);
errint inputs_watch(struct filesystem *fs, uint64_t ino);
/* As meta_assembled_publish; -EBUSY when a watched file was changed since the begin. */
errint inputs_publish(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino, bool beside,
                      const struct meta_assembled_input *inputs, size_t count);
/* Another file of the same assembly. As meta_assembled_publish_more; -EBUSY likewise. */
errint inputs_publish_more(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino);

#endif
