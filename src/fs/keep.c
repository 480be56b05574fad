/* SPDX-License-Identifier: Apache-2.0 */
/* Gathering what a run has, and applying its policy. */
#include "fs/keep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "ckpt/detect.h"
#include "ckpt/keep_run.h"
#include "fs/checkpoints.h"
#include "fs/export.h"
#include "fs/filesystem.h"
#include "fs/keep_remove.h"
#include "fs/life.h"
#include "fs/loads.h"
#include "fs/namespace_folder.h"
#include "fs/policy.h"
#include "fs/visible.h"
#include "meta/pin.h"

/* -- the policy -------------------------------------------------------------------------------------------
 */

/* One key: is left out where the directory that has it is a stranger's. */
static errint keep_read_key(struct filesystem *fs, const struct meta_inode *run, const char *key,
                            struct keep_list *list)
{
    struct policy_value value;
    struct meta_inode owner;
    errint error = policy_find(fs, run->ino, policy_find_key(key), &value);
    if (error || value.source == POLICY_FROM_NOWHERE)
        return error;
    error = meta_get(fs->meta, value.found.directory, &owner);
    if (error)
        return error;
    if (!visible_sees_all(owner.uid) && owner.uid != run->uid)
        return 0;
    list->trusted &= visible_sees_all(owner.uid);
    if (!keep_policy_set(&list->policy, key, value.found.value))
        log_warning("inode %llu: the policy %s=%s is not understood, and left out",
                    (unsigned long long)run->ino, key, value.found.value);
    return 0;
}

static errint keep_read_policy(struct filesystem *fs, const struct meta_inode *run, struct keep_list *list)
{
    errint error = 0;
    list->trusted = true;
    for (size_t i = 0; i < keep_policy_key_count && !error; i++)
        error = keep_read_key(fs, run, keep_policy_keys[i], list);
    return error;
}

/* -- the checkpoints --------------------------------------------------------------------------------------
 */

errint keep_find_marks(struct filesystem *fs, const struct keep_asked *asked, struct keep_marks *out)
{
    const struct life_asked life_asked = {
        .ino = asked->ino, .stops = asked->stops, .context = asked->context};
    struct life life;
    struct meta_name name;
    struct meta_checkpoint row;
    size_t names = 0;
    *out = (struct keep_marks){0};
    errint error = life_count(fs, &life_asked, &life);
    if (!error)
        error = meta_find_names(fs->meta, asked->ino, NULL, &name, 1, &names);
    int pinned = error ? error : meta_pin_has(fs->meta, asked->ino);
    if (pinned < 0)
        return pinned;
    *out = (struct keep_marks){
        .open = life.handles > asked->handles,
        .pinned = pinned > 0,
        .exported = export_is_pending(fs, asked->ino),
        .loaded = names > 0 && loads_has(fs, name.parent, asked->ino, asked->thread),
        .unsettled = life.writing > 0 || life.unsynced > 0,
        .torn = life.torn > 0,
        .latest = checkpoints_get(fs, asked->ino, &row) == 0 && (row.marks & CHECKPOINT_LATEST),
    };
    return 0;
}

bool keep_is_used(const struct keep_marks *marks)
{
    return marks->open || marks->pinned || marks->loaded || marks->exported || marks->unsettled ||
           marks->latest;
}

bool keep_stops(void *context)
{
    const struct keep_work *work = context;
    return work->stops(work->fs);
}

/* What only the mount knows of a checkpoint. One that is gone by now is as one that is being written. */
static errint keep_look(struct keep_work *work, const struct meta_inode *run, struct keep_list *list,
                        size_t index)
{
    struct keep_checkpoint *checkpoint = &list->checkpoints[index];
    struct meta_inode row = {0};
    struct keep_marks marks;
    /* Nothing of it goes, and all that lies below it, logs that are written for days, would count for it. */
    if (!*checkpoint->path)
        return 0;
    errint error = namespace_find(work->fs, run->ino, checkpoint->path, strlen(checkpoint->path), &row);
    const struct keep_asked asked = {.ino = row.ino, .stops = keep_stops, .context = work};
    if (!error)
        error = keep_find_marks(work->fs, &asked, &marks);
    if (error) {
        checkpoint->unsettled = true;
        return error == -ENOENT ? 0 : error;
    }
    list->inodes[index] = row.ino;
    checkpoint->open = marks.open;
    checkpoint->pinned = marks.pinned;
    checkpoint->loaded = marks.loaded;
    checkpoint->exported = marks.exported;
    checkpoint->unsettled |= marks.unsettled;
    checkpoint->torn = marks.torn;
    checkpoint->latest = marks.latest;
    checkpoint->foreign = !list->trusted && row.uid != run->uid;
    return 0;
}

/* The name of a run's directory; "": the root has none. */
static errint keep_read_name(struct filesystem *fs, uint64_t run, struct meta_name *out)
{
    size_t count = 0;
    *out = (struct meta_name){0};
    return meta_find_names(fs->meta, run, NULL, out, 1, &count);
}

errint keep_is_run(struct filesystem *fs, uint64_t directory, bool *out)
{
    cleanup_namespace_folder struct namespace_folder names = {0};
    cleanup_detect struct detect detect = {0};
    struct folder folder;
    struct meta_name name;
    *out = false;
    errint error = keep_read_name(fs, directory, &name);
    if (!error)
        error = namespace_folder_open(fs, directory, NULL, &names, &folder);
    if (!error)
        error = detect_checkpoints(&folder, name.bytes, &detect);
    for (size_t i = 0; i < detect.count && !error; i++)
        *out |= *detect.at[i].path != '\0';
    return error;
}

static errint keep_read_run(struct keep_work *work, const struct meta_inode *run, struct keep_list *list)
{
    struct meta_name name;
    bool is_run = false;
    errint error = keep_is_run(work->fs, run->ino, &is_run);
    if (!error)
        error = keep_read_name(work->fs, run->ino, &name);
    if (error || !is_run)
        return error;
    const struct checkpoints_asked asked = {.run = run->ino, .name = name.bytes, .stops = work->stops};
    return checkpoints_read_run(work->fs, &asked, &list->run);
}

static errint keep_judge_run(struct keep_work *work, const struct meta_inode *run, struct keep_list *list)
{
    size_t count = list->run.count;
    list->inodes = calloc(count, sizeof *list->inodes);
    list->checkpoints = calloc(count, sizeof *list->checkpoints);
    list->verdicts = calloc(count, sizeof *list->verdicts);
    if (!list->inodes || !list->checkpoints || !list->verdicts)
        return -ENOMEM;
    keep_run_take(&list->run, list->checkpoints);
    keep_run_choose_metric(&list->run, &list->policy);
    errint error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = keep_look(work, run, list, i);
    if (!error)
        error = keep_judge(&list->policy, list->checkpoints, count, clock_wall(), list->verdicts);
    if (!error)
        list->count = count;
    return error;
}

errint keep_gather(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                   struct keep_list *out)
{
    struct keep_work work = {fs, stops};
    struct meta_inode row;
    *out = (struct keep_list){0};
    errint error = meta_get(fs->meta, run, &row);
    if (!error && !S_ISDIR(row.mode))
        error = -ENOTDIR;
    if (!error && row.nlink == 0)
        error = -ENOENT;
    if (!error)
        error = keep_read_policy(fs, &row, out);
    if (error || !keep_policy_gives(&out->policy))
        return error;
    error = keep_read_run(&work, &row, out);
    return error || out->run.count == 0 ? error : keep_judge_run(&work, &row, out);
}

void keep_list_release(struct keep_list *list)
{
    run_release(&list->run);
    free(list->inodes);
    free(list->checkpoints);
    free(list->verdicts);
    *list = (struct keep_list){0};
}

/* -- applying ---------------------------------------------------------------------------------------------
 */

/* Whose turn is `order`; the count of all when there is none. */
static size_t keep_find_turn(const struct keep_list *list, size_t order)
{
    size_t i = 0;
    while (i < list->count && (!list->verdicts[i].goes || list->verdicts[i].order != order))
        i++;
    return i;
}

errint keep_apply(struct filesystem *fs, uint64_t run, bool (*stops)(struct filesystem *fs),
                  void (*removed)(void *context, const struct keep_list *list, size_t index, errint error),
                  void *context, struct keep_list *list)
{
    errint error = keep_gather(fs, run, stops, list);
    /* What goes has the first turns. */
    for (size_t order = 1; !error; order++) {
        size_t i = keep_find_turn(list, order);
        if (i == list->count)
            break;
        if (stops(fs))
            return -ECANCELED;
        errint result = keep_remove(fs, list->inodes[i], list->verdicts[i].reason);
        if (removed && result != -ENOENT) /* else it has gone meanwhile: somebody else has removed it */
            removed(context, list, i, result);
    }
    return error;
}
