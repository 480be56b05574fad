/* SPDX-License-Identifier: Apache-2.0 */
/* Taking what a look has found to the list and the database, and telling of what is new. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "fs/checkpoints_internal.h"
#include "fs/events.h"
#include "fs/export.h"
#include "fs/filesystem.h"

void checkpoints_emit(struct filesystem *fs, enum event_kind kind, const struct meta_checkpoint *row,
                      const char *path, const char *reason)
{
    events_emit(fs, &(struct event){.kind = kind,
                                    .ino = row->directory,
                                    .path = path,
                                    .step = row->step,
                                    .bytes = row->bytes,
                                    .reason = reason});
}

static bool checkpoints_is_safe(const struct meta_checkpoint *row)
{
    return row->state == CHECKPOINT_COMPLETE || row->state == CHECKPOINT_WEIGHTS;
}

/* What was only added to since, or sheds its optimizer's state, is no other than before. */
static bool checkpoints_is_same(const struct meta_checkpoint *before, const struct checkpoints_found *found)
{
    const struct meta_checkpoint *now = &found->row;
    bool complete = before->state == CHECKPOINT_COMPLETE, shed = complete && (now->marks & CHECKPOINT_SHED);
    if (complete && now->state == CHECKPOINT_COMPLETE && found->rewrite.kept.checkpoint)
        return true;
    return before->completed == now->completed && (before->state == now->state || shed);
}

static void checkpoints_tell_new(struct filesystem *fs, const struct meta_checkpoint *row, const char *path)
{
    const char *state = checkpoint_state_name((enum checkpoint_state)row->state);
    const char *reason = row->state == CHECKPOINT_WEIGHTS ? state : NULL;
    log_info("%s path=\"%s\" step=%lld bytes=%lld: all of it is on stable storage", state, path ? path : "?",
             (long long)row->step, (long long)row->bytes);
    checkpoints_emit(fs, EVENT_COMPLETE, row, path, reason);
    checkpoints_emit(fs, EVENT_DURABLE, row, path, reason);
}

/* `before` is NULL where nothing was known of it. */
static void checkpoints_tell(struct filesystem *fs, const struct meta_checkpoint *before,
                             const struct checkpoints_found *found)
{
    const struct meta_checkpoint *now = &found->row;
    bool best = (now->marks & CHECKPOINT_BEST) && !(before && (before->marks & CHECKPOINT_BEST));
    bool new = checkpoints_is_safe(now) && !(before && checkpoints_is_same(before, found));
    /* An export has what was added, too. */
    bool other = checkpoints_is_safe(now) && !(before && before->completed == now->completed);
    cleanup_free char *path = NULL;
    if (!new && !best && !other)
        return;
    if (meta_path(fs->meta, now->directory, &path) < 0)
        path = NULL;
    if (new)
        checkpoints_tell_new(fs, now, path);
    if (best)
        checkpoints_emit(fs, EVENT_BEST, now, path, NULL);
    export_checkpoint(fs, now->directory);
}

static bool checkpoints_differ(const struct meta_checkpoint *one, const struct meta_checkpoint *other)
{
    return one->run != other->run || one->state != other->state || one->marks != other->marks ||
           one->step != other->step || one->completed != other->completed || one->bytes != other->bytes;
}

/* What of a run's rows is to be changed in the database. */
struct checkpoints_changes {
    struct meta_checkpoint_change *at;
    struct meta_checkpoint *gone;
    size_t count;
};

static void checkpoints_release_changes(struct checkpoints_changes *changes)
{
    free(changes->at);
    free(changes->gone);
}

static const struct checkpoints_found *checkpoints_find_found(const struct checkpoints_found *found,
                                                              size_t count, uint64_t directory)
{
    for (size_t i = 0; i < count; i++) {
        if (found[i].row.directory == directory)
            return &found[i];
    }
    return NULL;
}

/* Rows of the run that were not found go, and those of what was found are as they were found. */
static errint checkpoints_plan(struct filesystem *fs, uint64_t run, const struct checkpoints_found *found,
                               size_t count, struct checkpoints_changes *changes)
{
    size_t known;
    errint error = checkpoints_of_run(fs, run, &changes->gone, &known);
    changes->at = error ? NULL : calloc(known + count + 1, sizeof *changes->at);
    if (!changes->at)
        return error ? error : -ENOMEM;
    for (size_t i = 0; i < known; i++) {
        if (!checkpoints_find_found(found, count, changes->gone[i].directory))
            changes->at[changes->count++] = (struct meta_checkpoint_change){&changes->gone[i], true};
    }
    for (size_t i = 0; i < count; i++) {
        struct meta_checkpoint before;
        if (checkpoints_get(fs, found[i].row.directory, &before) < 0 ||
            checkpoints_differ(&before, &found[i].row))
            changes->at[changes->count++] = (struct meta_checkpoint_change){&found[i].row, false};
    }
    return 0;
}

/* What is complete again, or will never be torn, needs not what it was before. */
static void checkpoints_settle_rewrite(struct filesystem *fs, const struct checkpoints_found *found)
{
    if (found->rewrite.kept.checkpoint && !found->adding &&
        (checkpoints_is_safe(&found->row) || (found->row.marks & CHECKPOINT_COPY)))
        rewrite_finish(fs, &found->rewrite);
}

/* Somebody has begun to write in it since it was looked at: what is known of it is right, and it is looked at
 * again. The lock is held. */
static bool checkpoints_was_begun(const struct checkpoints *checkpoints,
                                  const struct checkpoints_found *found)
{
    const struct meta_checkpoint *now = checkpoints_find(checkpoints, found->row.directory);
    return now && (now->state != found->before.state ||
                   (now->marks & CHECKPOINT_WHOLE) != (found->before.marks & CHECKPOINT_WHOLE));
}

/* A row that is in the database; `found` is NULL where it is forgotten. */
static errint checkpoints_take_one(struct filesystem *fs, uint64_t directory,
                                   const struct checkpoints_found *found)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    struct meta_checkpoint before;
    bool had = checkpoints_get(fs, directory, &before) == 0, begun;
    errint error = 0;
    pthread_mutex_lock(&checkpoints->lock);
    begun = found && checkpoints_was_begun(checkpoints, found);
    if (!found)
        checkpoints_drop(checkpoints, directory);
    else if (!begun)
        error = checkpoints_put(checkpoints, &found->row);
    if (begun)
        checkpoints_mark_latest(checkpoints, found->row.run);
    pthread_mutex_unlock(&checkpoints->lock);
    rewrite_forget_directories(fs);
    if (!found)
        rewrite_check(fs, directory);
    else if (!error && !begun)
        checkpoints_tell(fs, had ? &before : NULL, found);
    return error;
}

errint checkpoints_take(struct filesystem *fs, uint64_t run, const struct checkpoints_found *found,
                        size_t count)
{
    __attribute__((cleanup(checkpoints_release_changes))) struct checkpoints_changes changes = {0};
    errint error = checkpoints_plan(fs, run, found, count, &changes);
    if (!error && changes.count > 0)
        error = meta_checkpoint_change(fs->meta, changes.at, changes.count);
    for (size_t i = 0; i < changes.count && !error; i++) {
        uint64_t directory = changes.at[i].row->directory;
        error = checkpoints_take_one(
            fs, directory, changes.at[i].forget ? NULL : checkpoints_find_found(found, count, directory));
    }
    for (size_t i = 0; i < count && !error; i++)
        checkpoints_settle_rewrite(fs, &found[i]);
    return error;
}
