/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of damaged ranges (meta/damage.h) in memory, for every read. A store without damage pays one
 * load. Thread-safe.
 */
#ifndef CKPTFS_FS_DAMAGE_H
#define CKPTFS_FS_DAMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;
struct meta_range;

struct damage {
    atomic_bool any;
    _Atomic uint64_t changes; /* how often it was read */
    pthread_rwlock_t lock;
    struct meta_range *at; /* sorted, without overlap */
    size_t count;
};

void damage_init(struct damage *damage);
void damage_release(struct damage *damage);

/* Reads the record anew. */
errint damage_load(struct filesystem *fs);
/*
 * The record of the object has changed: it is read anew, and the object's files are served as it says. Takes
 * the locks of their nodes, and tells the kernel: no lock is held, and no request for them is in work on this
 * thread.
 */
void damage_changed(struct filesystem *fs, uint64_t object);

/* Whether a byte of the range is damaged. */
bool damage_touches(struct filesystem *fs, uint64_t object, int64_t offset, int64_t length);
/* How many ranges are recorded; neighbours count as one. */
size_t damage_count(struct filesystem *fs);

#endif
