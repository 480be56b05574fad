/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing list of 64-bit ids (inodes, objects). Starts as {0}; ids_release frees it and makes it {0} again.
 * Not thread-safe.
 */
#ifndef CKPTFS_BASE_IDS_H
#define CKPTFS_BASE_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct ids {
    uint64_t *at;
    size_t count;
    size_t capacity;
};

/* Appends; -ENOMEM leaves the list as it was. */
errint ids_append(struct ids *ids, uint64_t id);
/* Whether it is on the list; looks at all of it. */
bool ids_contain(const struct ids *ids, uint64_t id);
/* Takes it off the list, the first where it is there more than once; the last takes its place. */
void ids_remove(struct ids *ids, uint64_t id);
/* By size, for ids_contain_sorted. */
void ids_sort(struct ids *ids);
/* As ids_contain, of a sorted list; looks at few. */
bool ids_contain_sorted(const struct ids *ids, uint64_t id);
void ids_release(struct ids *ids);

#define cleanup_ids __attribute__((cleanup(ids_release)))

#endif
