/* SPDX-License-Identifier: Apache-2.0 */
/* A table of names: open addressing, at most half full. */
#include "base/name_table.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

enum { NAME_TABLE_START = 64 };

struct name_table_slot {
    const char *name; /* NULL: free */
    uint32_t value;
};

/* The slot that has the name, or the free one where it belongs. */
static struct name_table_slot *name_table_slot(const struct name_table *table, const char *name)
{
    size_t mask = table->capacity - 1;
    size_t at = XXH3_64bits_withSeed(name, strlen(name), table->seed) & mask;
    while (table->slots[at].name && strcmp(table->slots[at].name, name) != 0)
        at = (at + 1) & mask;
    return &table->slots[at];
}

static errint name_table_grow(struct name_table *table)
{
    struct name_table larger = {.seed = table->seed};
    if (table->capacity == 0 && getrandom(&larger.seed, sizeof larger.seed, GRND_NONBLOCK) < 0)
        larger.seed = (uintptr_t)table;
    larger.capacity = table->capacity > 0 ? 2 * table->capacity : NAME_TABLE_START;
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].name)
            *name_table_slot(&larger, table->slots[i].name) = table->slots[i];
    }
    larger.count = table->count;
    free(table->slots);
    *table = larger;
    return 0;
}

bool name_table_find(const struct name_table *table, const char *name, uint32_t *value)
{
    if (table->count == 0)
        return false;
    const struct name_table_slot *slot = name_table_slot(table, name);
    if (slot->name && value)
        *value = slot->value;
    return slot->name;
}

errint name_table_add(struct name_table *table, const char *name, uint32_t value)
{
    if (2 * table->count >= table->capacity) {
        errint error = name_table_grow(table);
        if (error)
            return error;
    }
    struct name_table_slot *slot = name_table_slot(table, name);
    if (slot->name)
        return -EEXIST;
    *slot = (struct name_table_slot){.name = name, .value = value};
    table->count++;
    return 0;
}

void name_table_release(struct name_table *table)
{
    free(table->slots);
    *table = (struct name_table){0};
}
