/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing what is given up for space. */
#include "fs/keep_room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"
#include "base/log.h"
#include "fs/checkpoints.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/keep_remove.h"
#include "fs/keep_watch.h"
#include "fs/torn_room.h"

bool keep_room_is_possible(struct filesystem *fs)
{
    return torn_room_has_any(fs) || keep_watch_is_used(fs);
}

int64_t keep_room_for_next(struct filesystem *fs)
{
    cleanup_ids struct ids runs = {0};
    struct meta_checkpoint row;
    int64_t largest = 0;
    if (checkpoints_runs(fs, &runs) < 0)
        return 0;
    for (size_t i = 0; i < runs.count; i++) {
        uint64_t latest = checkpoints_marked(fs, runs.at[i], CHECKPOINT_LATEST);
        if (latest && checkpoints_get(fs, latest, &row) == 0 && row.bytes > largest)
            largest = row.bytes;
    }
    return largest;
}

/* The best candidate so far. */
struct keep_room_choice {
    uint64_t ino; /* 0: none */
    bool goes;
    int64_t time;
};

static bool keep_room_is_before(const struct keep_room_choice *one, const struct keep_room_choice *other)
{
    if (other->ino == 0 || one->goes != other->goes)
        return other->ino == 0 || one->goes;
    return one->time < other->time;
}

/* The run's own first one, against that of others. */
static void keep_room_look(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                           struct keep_room_choice *best)
{
    cleanup_keep_list struct keep_list list = {0};
    errint error = keep_gather(fs, run, stops, &list);
    if (error && error != -EBUSY && error != -ENOENT && error != -ENOTDIR && error != -ECANCELED)
        log_warning("inode %llu: it cannot be told what may be given up here: %s", (unsigned long long)run,
                    strerror(-error));
    for (size_t i = 0; i < list.count && !error; i++) {
        const struct keep_room_choice choice = {list.inodes[i], list.verdicts[i].goes,
                                                list.checkpoints[i].time};
        if (list.verdicts[i].expendable && list.verdicts[i].order == 1 && choice.ino &&
            keep_room_is_before(&choice, best))
            *best = choice;
    }
}

bool keep_room_make(struct filesystem *fs, bool (*stops)(struct filesystem *fs))
{
    cleanup_ids struct ids runs = {0};
    struct keep_room_choice best = {0};
    /* What was never finished goes before what was. */
    if (torn_room_make(fs, stops))
        return true;
    if (!keep_watch_is_used(fs) || checkpoints_runs(fs, &runs) < 0)
        return false;
    for (size_t i = 0; i < runs.count && !stops(fs); i++)
        keep_room_look(fs, runs.at[i], stops, &best);
    if (!best.ino || stops(fs))
        return false;
    errint error = keep_remove(fs, best.ino, "the space is needed");
    if (error)
        log_warning("inode %llu: cannot be removed for its space: %s", (unsigned long long)best.ino,
                    strerror(-error));
    return !error;
}
