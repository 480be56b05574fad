/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds names again: a hash table from a text to a number that its owner gave it. The hash is seeded at
 * random, so that names out of a file cannot be made to collide. Starts as {0}. One thread's at a time.
 */
#ifndef CKPTFS_BASE_NAME_TABLE_H
#define CKPTFS_BASE_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct name_table_slot;

struct name_table {
    uint64_t seed;
    struct name_table_slot *slots;
    size_t count, capacity;
};

/* False when the name is not there; `value` may be NULL. */
bool name_table_find(const struct name_table *table, const char *name, uint32_t *value);
/* The text is not copied: it outlives the table. -EEXIST when the name is there already; -ENOMEM. */
errint name_table_add(struct name_table *table, const char *name, uint32_t value);
void name_table_release(struct name_table *table);
#define cleanup_name_table __attribute__((cleanup(name_table_release)))

#endif
