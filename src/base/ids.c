/* SPDX-License-Identifier: Apache-2.0 */
/* A growing list of ids. */
#include "base/ids.h"

#include <errno.h>
#include <stdlib.h>

#include "base/grow.h"

errint ids_append(struct ids *ids, uint64_t id)
{
    if (!grow_reserve(ids->at, ids->capacity, ids->count + 1))
        return -ENOMEM;
    ids->at[ids->count++] = id;
    return 0;
}

bool ids_contain(const struct ids *ids, uint64_t id)
{
    size_t i = 0;
    while (i < ids->count && ids->at[i] != id)
        i++;
    return i < ids->count;
}

void ids_remove(struct ids *ids, uint64_t id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->at[i] != id)
            continue;
        ids->at[i] = ids->at[--ids->count];
        return;
    }
}

static int ids_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void ids_sort(struct ids *ids)
{
    if (ids->count > 1)
        qsort(ids->at, ids->count, sizeof *ids->at, ids_compare);
}

bool ids_contain_sorted(const struct ids *ids, uint64_t id)
{
    return ids->count && bsearch(&id, ids->at, ids->count, sizeof id, ids_compare);
}

void ids_release(struct ids *ids)
{
    free(ids->at);
    *ids = (struct ids){0};
}
