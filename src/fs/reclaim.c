/* SPDX-License-Identifier: Apache-2.0 */
/* Punching the dead chunks of objects. */
#include "fs/reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "fs/filesystem.h"
#include "meta/usage.h"
#include "store/object.h"
#include "store/sums.h"

enum { RECLAIM_BATCH = 256 };

/* The dead ranges of an object, in whole chunks: a chunk with one live byte can still be verified. */
struct reclaim_plan {
    struct meta_range *at;
    size_t count;
    struct meta_range *live; /* what it was made from */
    size_t live_count;
};

static void reclaim_plan_release(struct reclaim_plan *plan)
{
    free(plan->at);
    free(plan->live);
}

#define cleanup_plan __attribute__((cleanup(reclaim_plan_release)))

static errint reclaim_find_dead(const struct sums *sums, uint64_t object, struct reclaim_plan *out)
{
    const struct meta_range *live = out->live;
    const size_t live_count = out->live_count;
    out->at = calloc(live_count + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    size_t next = 0;
    struct meta_range *last = NULL;
    for (size_t i = 0; i < sums->chunk_count; i++) {
        const struct sums_chunk *chunk = &sums->chunks[i];
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

/* Nobody may see the object from outside: a mapping would see the bytes go. -EBUSY. */
static errint reclaim_check_seen(struct filesystem *fs, uint64_t object)
{
    struct backing *backing;
    errint error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    int is_free = backing_is_free(backing, BACKING_READERS);
    backing_put(&fs->backings, backing);
    /* Without leases nobody can tell who maps what passthrough has handed out. */
    if (is_free < 0)
        return fs->features.passthrough ? -EBUSY : 0;
    return is_free ? 0 : -EBUSY;
}

static errint reclaim_punch(struct filesystem *fs, uint64_t object, const struct reclaim_plan *dead)
{
    cleanup_fd int fd = object_open(fs->store, object, O_RDWR);
    errint error = fd < 0 ? fd : 0;
    for (size_t i = 0; !error && i < dead->count; i++)
        error = object_punch(fd, dead->at[i].offset, dead->at[i].length);
    return error;
}

static errint reclaim_make_plan(struct filesystem *fs, uint64_t object, struct reclaim_plan *out)
{
    cleanup_sums struct sums sums = {0};
    errint error = sums_read(fs->store, object, &sums);
    if (!error)
        error = meta_live_ranges(fs->meta, object, &out->live, &out->live_count);
    return error ? error : reclaim_find_dead(&sums, object, out);
}

static errint reclaim_object(struct filesystem *fs, uint64_t object)
{
    cleanup_plan struct reclaim_plan dead = {0};
    errint error = reclaim_make_plan(fs, object, &dead);
    if (error)
        return error;
    if (dead.count > 0) {
        /* A power cut must not bring back extents of what is gone. */
        error = reclaim_check_seen(fs, object);
        if (!error)
            error = meta_sync(fs->meta);
        if (!error)
            error = fault_hit("fs.punch");
        if (!error)
            error = reclaim_punch(fs, object, &dead);
    }
    return error ? error
                 : meta_shrunk_done(fs->meta, object, dead.live, dead.live_count, dead.at, dead.count);
}

int reclaim_run(struct filesystem *fs)
{
    int left = 0;
    uint64_t after = 0;
    for (;;) {
        cleanup_ids struct ids objects = {0};
        errint error = meta_find_shrunk(fs->meta, after, RECLAIM_BATCH, &objects);
        if (error)
            return error;
        if (objects.count == 0)
            return left;
        for (size_t i = 0; i < objects.count && !atomic_load(&fs->stopping); i++) {
            error = reclaim_object(fs, objects.at[i]);
            left += error != 0;
            if (error && error != -EBUSY && error != -EOPNOTSUPP && error != -ENOENT)
                log_warning("object %016llx: its dead bytes cannot be given back now: %s",
                            (unsigned long long)objects.at[i], strerror(-error));
        }
        after = objects.at[objects.count - 1];
    }
}

/* -- what is left -----------------------------------------------------------------------------------------
 */

/* The bytes of a range that the disk still keeps. */
static int64_t reclaim_count_data(int fd, const struct meta_range *range)
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

/* What punching would give back, or a negative errno. */
static int64_t reclaim_count_dead(struct filesystem *fs, uint64_t object)
{
    cleanup_plan struct reclaim_plan dead = {0};
    struct backing *backing;
    errint error = reclaim_make_plan(fs, object, &dead);
    if (error || dead.count == 0)
        return error;
    error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    int64_t bytes = 0;
    for (size_t i = 0; i < dead.count; i++)
        bytes += reclaim_count_data(backing->fd, &dead.at[i]);
    backing_put(&fs->backings, backing);
    return bytes;
}

static errint reclaim_survey_shrunk(struct filesystem *fs, uint64_t object, struct reclaim_survey *survey)
{
    int64_t bytes = reclaim_count_dead(fs, object);
    if (bytes <= 0) /* What cannot be read now is the next try's to tell. */
        return bytes == -ENOMEM ? -ENOMEM : 0;
    survey->punch.objects++;
    survey->punch.bytes += bytes;
    if (reclaim_check_seen(fs, object) == -EBUSY) {
        survey->held.objects++;
        survey->held.bytes += bytes;
    }
    return 0;
}

static errint reclaim_survey_unused(struct filesystem *fs, uint64_t object, struct reclaim_survey *survey)
{
    cleanup_fd int fd = object_open(fs->store, object, O_RDONLY);
    int64_t bytes = fd < 0 ? fd : object_stored_bytes(fd);
    survey->remove.objects++;
    survey->remove.bytes += bytes > 0 ? bytes : 0;
    return 0;
}

/* What only a deleted file that is still open has. */
static errint reclaim_survey_nameless(struct filesystem *fs, uint64_t ino, struct reclaim_survey *survey)
{
    struct meta_usage usage;
    const struct meta_usage_request request = {
        .ino = ino, .everybody = true, .stop = survey->stop, .context = survey->context};
    errint error = meta_usage_compute(fs->meta, &request, &usage);
    if (error)
        return error == -ENOENT ? 0 : error;
    survey->open.objects += usage.files;
    survey->open.bytes += usage.unique_bytes;
    return 0;
}

static errint reclaim_survey_each(struct filesystem *fs, const struct ids *ids, struct reclaim_survey *survey,
                                  errint (*look)(struct filesystem *, uint64_t, struct reclaim_survey *))
{
    errint error = 0;
    for (size_t i = 0; !error && i < ids->count; i++)
        error = survey->stop(survey->context) ? -ECANCELED : look(fs, ids->at[i], survey);
    return error;
}

static errint reclaim_survey_all_shrunk(struct filesystem *fs, struct reclaim_survey *survey)
{
    for (uint64_t after = 0;;) {
        cleanup_ids struct ids objects = {0};
        errint error = meta_find_shrunk(fs->meta, after, RECLAIM_BATCH, &objects);
        if (!error)
            error = reclaim_survey_each(fs, &objects, survey, reclaim_survey_shrunk);
        if (error || objects.count == 0)
            return error;
        after = objects.at[objects.count - 1];
    }
}

static errint reclaim_survey_all_unused(struct filesystem *fs, struct reclaim_survey *survey)
{
    uint64_t after = 0;
    int more;
    do {
        cleanup_ids struct ids objects = {0};
        more = meta_find_unreferenced_after(fs->meta, &after, &objects);
        errint error = more < 0 ? more : reclaim_survey_each(fs, &objects, survey, reclaim_survey_unused);
        if (error)
            return error;
    } while (more);
    return 0;
}

errint reclaim_look(struct filesystem *fs, struct reclaim_survey *survey)
{
    cleanup_ids struct ids nameless = {0};
    errint error = reclaim_survey_all_shrunk(fs, survey);
    if (!error)
        error = reclaim_survey_all_unused(fs, survey);
    if (!error)
        error = meta_find_orphans(fs->meta, &nameless);
    if (!error)
        error = reclaim_survey_each(fs, &nameless, survey, reclaim_survey_nameless);
    return error ? error : meta_count_unhashed(fs->meta, &survey->unhashed);
}
