/* SPDX-License-Identifier: Apache-2.0 */
/* Punching the dead chunks of objects, or having the objects repacked. */
#include "fs/reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "fs/filesystem.h"
#include "fs/reclaim_plan.h"
#include "fs/repack.h"
#include "fs/repack_object.h"
#include "meta/journal.h"
#include "meta/usage.h"
#include "store/object.h"

enum { RECLAIM_BATCH = 256 };

static errint reclaim_punch(struct filesystem *fs, uint64_t object, const struct reclaim_plan *dead)
{
    cleanup_fd int fd = object_open(fs->store, object, O_RDWR);
    errint error = fd < 0 ? fd : 0;
    for (size_t i = 0; !error && i < dead->count; i++)
        error = object_punch(fd, dead->at[i].offset, dead->at[i].length);
    return error;
}

/* What the disk keeps of an object, and what of that is dead. */
static errint reclaim_measure(struct filesystem *fs, const struct reclaim_plan *plan, uint64_t object,
                              int64_t *kept, int64_t *dead)
{
    const struct meta_range whole = {object, 0, plan->sums.size};
    struct backing *backing;
    errint error = backing_get(&fs->backings, object, &backing);
    if (error)
        return error;
    *dead = reclaim_plan_count_kept(plan, backing->fd);
    *kept = reclaim_count_kept(backing->fd, &whole);
    backing_put(&fs->backings, backing);
    return 0;
}

static bool reclaim_stops(struct filesystem *fs)
{
    return atomic_load(&fs->stopping);
}

/* 1: the little that was alive of the object is elsewhere now, and the object is gone; -EBUSY: not yet. */
static int reclaim_remnant(struct filesystem *fs, uint64_t object, const struct reclaim_plan *plan)
{
    int64_t live = 0, kept, dead;
    if (object_can_punch(fs->store) != 1 || reclaim_measure(fs, plan, object, &kept, &dead))
        return 0;
    for (size_t i = 0; i < plan->live_count; i++)
        live += plan->live[i].length;
    if (!repack_is_remnant(live, kept))
        return 0;
    int result = repack_remnant(fs, object, reclaim_stops);
    /* What cannot be written anew, as on a full disk, stays as it is. */
    return result < 0 && result != -EBUSY ? 0 : result;
}

static errint reclaim_object(struct filesystem *fs, uint64_t object)
{
    cleanup_plan struct reclaim_plan dead = {0};
    int64_t kept = 0, kept_dead = 0;
    errint error = reclaim_plan_make(fs, object, &dead);
    if (!error)
        error = reclaim_measure(fs, &dead, object, &kept, &kept_dead);
    if (error)
        return error;
    if (kept_dead > 0) {
        /* Neither a power cut nor a rebuild must bring back extents of what is gone. */
        error = reclaim_check_seen(fs, object);
        if (!error)
            error = meta_sync_journal(fs->meta);
        if (!error)
            error = fault_hit("fs.punch");
        if (!error)
            error = reclaim_punch(fs, object, &dead);
    }
    int result = error ? error : reclaim_remnant(fs, object, &dead);
    if (result != 0)
        return result < 0 ? result : 0;
    return meta_shrunk_done(fs->meta, object, dead.live, dead.live_count, dead.at, dead.count);
}

int reclaim_run(struct filesystem *fs, uint64_t ticket)
{
    int left = 0;
    /* What cannot be found out now is found out by trying. */
    if (object_can_punch(fs->store) == 0) {
        repack_kick(fs, ticket);
        return 0;
    }
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

static void reclaim_sum_add(struct reclaim_sum *sum, int64_t bytes)
{
    sum->objects++;
    sum->bytes += bytes;
}

static errint reclaim_survey_shrunk(struct filesystem *fs, uint64_t object, struct reclaim_survey *survey)
{
    cleanup_plan struct reclaim_plan plan = {0};
    int64_t kept = 0, dead = 0;
    errint error = reclaim_plan_make(fs, object, &plan);
    if (!error && plan.count > 0)
        error = reclaim_measure(fs, &plan, object, &kept, &dead);
    if (error || dead == 0) /* What cannot be read now is the next try's to tell. */
        return error == -ENOMEM ? error : 0;
    reclaim_sum_add(&survey->punch, dead);
    error = survey->can_punch ? reclaim_check_seen(fs, object) : repack_check(fs, object);
    if (error == -EBUSY)
        reclaim_sum_add(&survey->held, dead);
    if (!error && !survey->can_punch && repack_is_worth(dead, kept))
        reclaim_sum_add(&survey->repack, dead);
    return 0;
}

static errint reclaim_survey_unused(struct filesystem *fs, uint64_t object, struct reclaim_survey *survey)
{
    if (object == atomic_load(&fs->copying))
        return 0; /* no file uses it yet */
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
