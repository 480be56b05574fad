/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing what is given up for space. */
#include "fs/keep_room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "fs/checkpoints.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/keep_remove.h"
#include "fs/keep_watch.h"
#include "fs/life.h"
#include "fs/shed.h"
#include "meta/policy.h"
#include "meta/usage.h"

#define KEEP_ROOM_REASON "the space is needed"

bool keep_room_is_possible(struct filesystem *fs)
{
    return keep_watch_is_used(fs);
}

int64_t keep_room_for_next(struct filesystem *fs, int64_t most)
{
    cleanup_ids struct ids runs = {0};
    struct meta_checkpoint row;
    int64_t largest = 0;
    if (checkpoints_runs(fs, &runs) < 0)
        return 0;
    for (size_t i = 0; i < runs.count; i++) {
        uint64_t latest = checkpoints_marked(fs, runs.at[i], CHECKPOINT_LATEST);
        if (latest && checkpoints_get(fs, latest, &row) == 0 && row.bytes > largest && row.bytes <= most)
            largest = row.bytes;
    }
    return largest;
}

/* The best candidate so far, of one kind. */
struct keep_room_choice {
    uint64_t ino; /* 0: none */
    bool goes;
    int64_t time;
};

struct keep_room_choices {
    struct keep_room_choice sheds, goes;
    bool hope; /* there may be something later */
};

static bool keep_room_is_before(const struct keep_room_choice *one, const struct keep_room_choice *other)
{
    if (other->ino == 0 || one->goes != other->goes)
        return other->ino == 0 || one->goes;
    return one->time < other->time;
}

/* False: nothing is known of the run now. */
static bool keep_room_gather(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                             struct keep_list *list)
{
    errint error = keep_gather(fs, run, stops, list);
    if (error && error != -EBUSY && error != -ENOENT && error != -ENOTDIR && error != -ECANCELED)
        log_warning("inode %llu: it cannot be told what may be given up here: %s", (unsigned long long)run,
                    strerror(-error));
    return !error;
}

static bool keep_room_is_being_written(struct filesystem *fs, const struct life_asked *asked)
{
    struct life life;
    return life_count(fs, asked, &life) != 0 || life.writing > 0;
}

/* As the checkpoints would be judged when nobody has one open any more, and exports are done. */
static errint keep_room_judge_later(const struct keep_list *list, struct keep_verdict *verdicts)
{
    cleanup_free struct keep_checkpoint *later = calloc(list->count + 1, sizeof *later);
    if (!later)
        return -ENOMEM;
    memcpy(later, list->checkpoints, list->count * sizeof *later);
    for (size_t i = 0; i < list->count; i++) {
        later[i].loaded &= !later[i].open; /* its reader may have it open for a look */
        later[i].open = later[i].exported = false;
    }
    return keep_judge(&list->policy, later, list->count, clock_wall(), verdicts);
}

/* Whether a directory has a policy that removes checkpoints: any may be free to go later. */
static bool keep_room_may_remove(struct filesystem *fs)
{
    cleanup_ids struct ids directories = {0};
    for (size_t i = 0; i < keep_policy_key_count; i++) {
        if (strcmp(keep_policy_keys[i], KEEP_SHED) != 0 &&
            (meta_policy_find_directories(fs->meta, keep_policy_keys[i], &directories) != 0 ||
             directories.count > 0))
            return true;
    }
    return false;
}

/*
 * Whether a run that sheds may have something soon: a checkpoint that is only open, or wanted for an export;
 * or one that was saved just now, since an older one is not among the newest then. What is being written does
 * not count: its writer is who waits, as a rule.
 */
static bool keep_room_has_hope(const struct keep_work *stops, const struct keep_list *list)
{
    cleanup_free struct keep_verdict *verdicts = calloc(list->count + 1, sizeof *verdicts);
    if (!verdicts || keep_room_judge_later(list, verdicts) != 0)
        return true;
    for (size_t i = 0; i < list->count; i++) {
        const struct life_asked asked = {
            .ino = list->inodes[i], .stops = keep_stops, .context = (void *)stops};
        if (!asked.ino)
            continue;
        if (list->checkpoints[i].unsettled && !keep_room_is_being_written(stops->fs, &asked))
            return true;
        if (verdicts[i].sheds && shed_bytes(stops->fs, asked.ino) > 0)
            return true;
    }
    return false;
}

/* The run's own first one, against that of others. */
static void keep_room_choose(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                             struct keep_room_choices *best)
{
    cleanup_keep_list struct keep_list list = {0};
    if (!keep_room_gather(fs, run, stops, &list))
        return;
    for (size_t i = 0; i < list.count; i++) {
        const struct keep_room_choice choice = {list.inodes[i], list.verdicts[i].goes,
                                                list.checkpoints[i].time};
        if (list.verdicts[i].expendable && list.verdicts[i].order == 1 && choice.ino &&
            keep_room_is_before(&choice, &best->goes))
            best->goes = choice;
        if (list.verdicts[i].sheds && choice.ino && keep_room_is_before(&choice, &best->sheds) &&
            shed_bytes(fs, choice.ino) > 0)
            best->sheds = choice;
    }
    if (!best->sheds.ino && !best->goes.ino && !best->hope)
        best->hope = keep_room_has_hope(&(struct keep_work){fs, stops}, &list);
}

static bool keep_room_shed(struct filesystem *fs, uint64_t checkpoint)
{
    errint error = shed_checkpoint(fs, checkpoint, KEEP_ROOM_REASON);
    if (error && error != -EBUSY)
        log_warning("inode %llu: its optimizer's state cannot be given up: %s",
                    (unsigned long long)checkpoint, strerror(-error));
    return !error;
}

bool keep_room_make(struct filesystem *fs, bool (*stops)(struct filesystem *fs))
{
    cleanup_ids struct ids runs = {0};
    struct keep_room_choices best = {0};
    if (!keep_room_is_possible(fs) || checkpoints_runs(fs, &runs) < 0)
        return false;
    best.hope = keep_room_may_remove(fs);
    for (size_t i = 0; i < runs.count && !stops(fs); i++)
        keep_room_choose(fs, runs.at[i], stops, &best);
    if (stops(fs))
        return false;
    /* What is chosen and then turns out to be in use is not for long, as a rule. */
    atomic_store(&fs->room.hope, best.hope || best.sheds.ino || best.goes.ino);
    if (best.sheds.ino && keep_room_shed(fs, best.sheds.ino))
        return true;
    if (!best.goes.ino)
        return false;
    errint error = keep_remove(fs, best.goes.ino, KEEP_ROOM_REASON);
    if (error)
        log_warning("inode %llu: cannot be removed for its space: %s", (unsigned long long)best.goes.ino,
                    strerror(-error));
    return !error;
}

/* -- telling ----------------------------------------------------------------------------------------------
 */

static int64_t keep_room_weigh(const struct keep_work *stops, uint64_t checkpoint)
{
    struct meta_usage usage;
    const struct meta_usage_request request = {
        .ino = checkpoint, .everybody = true, .stop = keep_stops, .context = (void *)stops};
    return meta_usage_compute(stops->fs->meta, &request, &usage) == 0 ? usage.unique_bytes : 0;
}

static void keep_room_add_up(const struct keep_work *stops, const struct keep_list *list,
                             struct keep_room_survey *out)
{
    for (size_t i = 0; i < list->count && !stops->stops(stops->fs); i++) {
        const struct keep_verdict *verdict = &list->verdicts[i];
        if (!list->inodes[i] || (!verdict->expendable && !verdict->sheds))
            continue;
        int64_t bytes = verdict->expendable ? keep_room_weigh(stops, list->inodes[i]) : 0;
        int64_t sheds = verdict->sheds && !verdict->goes ? shed_bytes(stops->fs, list->inodes[i]) : 0;
        out->sheds += sheds;
        if (verdict->goes)
            out->goes += bytes;
        else
            out->expendable += bytes > sheds ? bytes - sheds : 0;
    }
}

void keep_room_look(struct filesystem *fs, bool (*stops)(struct filesystem *fs), struct keep_room_survey *out)
{
    cleanup_ids struct ids runs = {0};
    const struct keep_work asked = {fs, stops};
    *out = (struct keep_room_survey){0};
    if (!keep_room_is_possible(fs) || checkpoints_runs(fs, &runs) < 0)
        return;
    for (size_t i = 0; i < runs.count && !stops(fs); i++) {
        cleanup_keep_list struct keep_list list = {0};
        if (keep_room_gather(fs, runs.at[i], stops, &list))
            keep_room_add_up(&asked, &list, out);
    }
}
