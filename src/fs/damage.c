/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged ranges in memory, and what becomes of the files that have them. */
#include "fs/damage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fs/filesystem.h"
#include "meta/damage.h"

void damage_init(struct damage *damage)
{
    pthread_rwlock_init(&damage->lock, NULL);
}

void damage_release(struct damage *damage)
{
    pthread_rwlock_destroy(&damage->lock);
    free(damage->at);
}

errint damage_load(struct filesystem *fs)
{
    struct damage *damage = &fs->damage;
    /* With the lock held over the look-up: of two that load at a time, the later one must win. */
    pthread_rwlock_wrlock(&damage->lock);
    struct meta_range *at;
    size_t count;
    errint error = meta_damage_list(fs->meta, &at, &count);
    if (!error) {
        free(damage->at);
        damage->at = at;
        damage->count = count;
        atomic_store(&damage->any, count > 0);
        atomic_fetch_add(&damage->changes, 1);
    }
    pthread_rwlock_unlock(&damage->lock);
    return error;
}

/* Whether the first range that ends behind (object, offset) begins before `end`. The lock is held. */
static bool damage_search(const struct damage *damage, uint64_t object, int64_t offset, int64_t end)
{
    size_t low = 0, high = damage->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct meta_range *range = &damage->at[middle];
        bool before =
            range->object < object || (range->object == object && range->offset + range->length <= offset);
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return low < damage->count && damage->at[low].object == object && damage->at[low].offset < end;
}

bool damage_touches(struct filesystem *fs, uint64_t object, int64_t offset, int64_t length)
{
    struct damage *damage = &fs->damage;
    if (!atomic_load_explicit(&damage->any, memory_order_relaxed))
        return false;
    pthread_rwlock_rdlock(&damage->lock);
    bool found = damage_search(damage, object, offset, offset + length);
    pthread_rwlock_unlock(&damage->lock);
    return found;
}

size_t damage_count(struct filesystem *fs)
{
    pthread_rwlock_rdlock(&fs->damage.lock);
    size_t count = fs->damage.count;
    pthread_rwlock_unlock(&fs->damage.lock);
    return count;
}

/*
 * The node looks at its object again: damaged, it is served in pieces and changed by copy on write. Where the
 * kernel has the object itself open, that has to wait for the next first open.
 */
static void damage_adopt(struct filesystem *fs, struct node *node)
{
    struct meta_inode row;
    node_lock(node);
    if (!node->gone && node->loaded && node->kind == META_EXTENTS) {
        node->stale_pages = true;
        if (node->mode == NODE_PASSTHROUGH)
            node->look_again = true;
        else if (!node->overlay && meta_get(fs->meta, node->ino, &row) == 0)
            node_adopt_row(fs, node, &row);
    }
    node_unlock(node);
}

void damage_changed(struct filesystem *fs, uint64_t object)
{
    cleanup_ids struct ids users = {0};
    errint error = damage_load(fs);
    if (!error)
        error = meta_find_users(fs->meta, object, &users);
    if (error)
        log_error("object %016llx: its damage is known only from the next mount on: %s",
                  (unsigned long long)object, strerror(-error));
    for (size_t i = 0; i < users.count; i++) {
        struct node *node = node_find(fs, users.at[i]);
        if (node)
            damage_adopt(fs, node);
        node_put(fs, node);
        /* What the kernel has read may be wrong, or right again. */
        fuse_lowlevel_notify_inval_inode(fs->session, users.at[i], 0, 0);
    }
}
