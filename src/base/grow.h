/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays that grow as items are appended. Their owner holds a pointer (NULL at first), how many items are in
 * use, and how many there is room for; it frees the array with free(). Not thread-safe.
 */
#ifndef CKPTFS_BASE_GROW_H
#define CKPTFS_BASE_GROW_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Makes room in the array `at`, which has room for `capacity` items, for `count` in all:
 * grow_reserve(list->at, list->capacity, list->count + 1) before one is appended. The array may move; what is
 * new is not initialised. False: there is no memory, or so many items have no size that fits; all is as it
 * was. `at` and `capacity` are variables, named more than once.
 */
#define grow_reserve(at, capacity, count)                                                                    \
    ({                                                                                                       \
        void *grown_ = (at);                                                                                 \
        bool fits_ = grow_array(&grown_, &(capacity), (count), sizeof *(at));                                \
        (at) = grown_;                                                                                       \
        fits_;                                                                                               \
    })

/* What grow_reserve does, for items of `size` bytes. */
bool grow_array(void **at, size_t *capacity, size_t count, size_t size);

#endif
