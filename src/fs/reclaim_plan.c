/* SPDX-License-Identifier: Apache-2.0 */
/* What of an object is dead, and who sees it. */
#include "fs/reclaim_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/filesystem.h"

void reclaim_plan_release(struct reclaim_plan *plan)
{
    free(plan->at);
    free(plan->live);
    sums_release(&plan->sums);
}

static errint reclaim_plan_find_dead(uint64_t object, struct reclaim_plan *out)
{
    const struct meta_range *live = out->live;
    const size_t live_count = out->live_count;
    out->at = calloc(live_count + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    size_t next = 0;
    struct meta_range *last = NULL;
    for (size_t i = 0; i < out->sums.chunk_count; i++) {
        const struct sums_chunk *chunk = &out->sums.chunks[i];
        while (next < live_count && live[next].offset + live[next].length <= chunk->offset)
            next++;
        if (next < live_count && live[next].offset < chunk->offset + chunk->length) {
            last = NULL;
            continue;
        }
        /* Between two dead runs there is a live range: there are at most live_count + 1. */
        if (!last) {
            last = &out->at[out->count++];
            *last = (struct meta_range){.object = object, .offset = chunk->offset};
        }
        last->length += chunk->length;
    }
    return 0;
}

errint reclaim_plan_make(struct filesystem *fs, uint64_t object, struct reclaim_plan *out)
{
    uint8_t root[META_ROOT_BYTES];
    /* Whoever opens it for writing takes its root away; its table would be that of what it was. */
    errint error = meta_object_root(fs->meta, object, root);
    if (!error)
        error = sums_read(fs->store, object, &out->sums);
    /* Asked last: it may be opened for writing at any moment before. */
    if (!error)
        error = meta_sealed_ranges(fs->meta, object, &out->live, &out->live_count);
    return error ? error : reclaim_plan_find_dead(object, out);
}

int64_t reclaim_count_kept(int fd, const struct meta_range *range)
{
    int64_t count = 0, end = range->offset + range->length;
    for (int64_t at = range->offset; at < end;) {
        int64_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 || data >= end)
            break;
        int64_t hole = lseek(fd, data, SEEK_HOLE);
        at = hole > data && hole < end ? hole : end;
        count += at - data;
    }
    return count;
}

int64_t reclaim_plan_count_kept(const struct reclaim_plan *plan, int fd)
{
    int64_t count = 0;
    for (size_t i = 0; i < plan->count; i++)
        count += reclaim_count_kept(fd, &plan->at[i]);
    return count;
}

errint reclaim_check_seen(struct filesystem *fs, uint64_t object)
{
    struct backing *backing;
    errint error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    /* A handle may be counted before the kernel has opened the object for it. */
    int is_free = backing->passthrough_handles ? 0 : backing_is_free(backing, BACKING_READERS);
    backing_put(&fs->backings, backing);
    /* Without leases nobody can tell who maps what passthrough has handed out. */
    if (is_free < 0)
        return fs->features.passthrough ? -EBUSY : 0;
    return is_free ? 0 : -EBUSY;
}
