/* SPDX-License-Identifier: Apache-2.0 */
/* Taking what a look has found to the list and the database, and telling of what is new. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* What was only added to since, or sheds its optimizer's state, is no other than before. One that is written
 * over is complete no more at once (rewrite.h), but for a model in the run's own directory. */
static bool checkpoints_is_same(const struct meta_checkpoint *before, const struct meta_checkpoint *now)
{
    bool complete = before->state == CHECKPOINT_COMPLETE, shed = complete && (now->marks & CHECKPOINT_SHED);
    if (complete && now->state == CHECKPOINT_COMPLETE && now->run != now->directory)
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

static void checkpoints_tell(struct filesystem *fs, const struct checkpoints_found *found)
{
    const struct meta_checkpoint *now = &found->row, *before = &found->before;
    bool best = (now->marks & CHECKPOINT_BEST) && !(before->marks & CHECKPOINT_BEST);
    bool new = checkpoints_is_safe(now) && !checkpoints_is_same(before, now);
    /* An export has what was added, too. */
    bool other = checkpoints_is_safe(now) && before->completed != now->completed;
    cleanup_free char *path = NULL;
    if (!new && !best && !other)
        return;
    if (meta_path(fs->meta, now->directory, &path) < 0)
        path = NULL;
    if (new)
        checkpoints_tell_new(fs, now, path);
    if (best)
        checkpoints_emit(fs, EVENT_BEST, now, path, NULL);
    if (new || best)
        export_checkpoint(fs, now->directory);
    else
        export_added(fs, now->directory);
}

/* Whether the list and the database have something else than what was found. */
static bool checkpoints_is_other(const struct meta_checkpoint *known, const struct meta_checkpoint *found)
{
    unsigned marks = known->marks & ~(unsigned)CHECKPOINT_OF_LIST;
    return (known->marks & CHECKPOINT_UNSAVED) || known->run != found->run || known->state != found->state ||
           marks != found->marks || known->step != found->step || known->completed != found->completed ||
           known->bytes != found->bytes;
}

/* What of a run's rows is to be changed in the database. */
struct checkpoints_changes {
    struct meta_checkpoint_change *at;
    const struct checkpoints_found **found; /* of each; NULL: it is not in the list as it was found */
    struct meta_checkpoint *gone;
    size_t count;
};

static void checkpoints_release_changes(struct checkpoints_changes *changes)
{
    free(changes->at);
    free(changes->found);
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
    changes->found = error ? NULL : calloc(known + count + 1, sizeof *changes->found);
    if (!changes->at || !changes->found)
        return error ? error : -ENOMEM;
    for (size_t i = 0; i < known; i++) {
        if (!checkpoints_find_found(found, count, changes->gone[i].directory))
            changes->at[changes->count++] = (struct meta_checkpoint_change){&changes->gone[i], true};
    }
    for (size_t i = 0; i < count; i++) {
        struct meta_checkpoint before;
        if (checkpoints_get(fs, found[i].row.directory, &before) == 0 &&
            !checkpoints_is_other(&before, &found[i].row))
            continue;
        changes->found[changes->count] = &found[i];
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

/* Whether somebody has begun to change it since the look began: what is known of it is right, and it is
 * looked at again. One that was removed meanwhile is forgotten by the next look. The lock is held. */
static bool checkpoints_was_begun(const struct checkpoints *checkpoints,
                                  const struct checkpoints_found *found)
{
    const struct meta_checkpoint *now = checkpoints_find(checkpoints, found->row.directory);
    return now && (now->marks & CHECKPOINT_BEGUN);
}

/* The list is as the database is now; nobody sees it without its latest meanwhile. */
static errint checkpoints_list_changes(struct checkpoints *checkpoints, uint64_t run,
                                       struct checkpoints_changes *changes)
{
    errint error = 0;
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < changes->count && !error; i++) {
        if (changes->at[i].forget)
            checkpoints_drop(checkpoints, changes->at[i].row->directory);
        else if (checkpoints_was_begun(checkpoints, changes->found[i]))
            changes->found[i] = NULL;
        else
            error = checkpoints_put(checkpoints, changes->at[i].row);
    }
    checkpoints_mark_latest(checkpoints, run);
    pthread_mutex_unlock(&checkpoints->lock);
    return error;
}

static void checkpoints_tell_changes(struct filesystem *fs, const struct checkpoints_changes *changes)
{
    for (size_t i = 0; i < changes->count; i++) {
        if (changes->at[i].forget)
            rewrite_check(fs, changes->at[i].row->directory);
        else if (changes->found[i])
            checkpoints_tell(fs, changes->found[i]);
    }
}

errint checkpoints_take(struct filesystem *fs, uint64_t run, const struct checkpoints_found *found,
                        size_t count)
{
    __attribute__((cleanup(checkpoints_release_changes))) struct checkpoints_changes changes = {0};
    errint error = checkpoints_plan(fs, run, found, count, &changes);
    if (!error && changes.count > 0)
        error = meta_checkpoint_change(fs->meta, changes.at, changes.count);
    if (!error)
        error = checkpoints_list_changes(fs->checkpoints, run, &changes);
    if (error)
        return error;
    if (changes.count > 0)
        rewrite_forget_directories(fs);
    checkpoints_tell_changes(fs, &changes);
    for (size_t i = 0; i < count; i++)
        checkpoints_settle_rewrite(fs, &found[i]);
    return 0;
}

void checkpoints_note_shed(struct filesystem *fs, uint64_t checkpoint)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    struct meta_checkpoint row;
    bool known = checkpoints_get(fs, checkpoint, &row) == 0;
    if (known && row.state == CHECKPOINT_COMPLETE) {
        row.state = CHECKPOINT_WEIGHTS;
        row.marks = (row.marks & ~(unsigned)CHECKPOINT_OF_LIST) | CHECKPOINT_SHED;
        const struct meta_checkpoint_change change = {&row, false};
        errint error = meta_checkpoint_change(fs->meta, &change, 1);
        if (error)
            log_warning("inode %llu: that it was shed is not noted: %s", (unsigned long long)checkpoint,
                        strerror(-error));
        pthread_mutex_lock(&checkpoints->lock);
        struct meta_checkpoint *listed = checkpoints_find(checkpoints, checkpoint);
        if (listed && listed->state == CHECKPOINT_COMPLETE) {
            listed->state = row.state;
            listed->marks |= error ? CHECKPOINT_SHED | CHECKPOINT_UNSAVED : CHECKPOINT_SHED;
            checkpoints_mark_latest(checkpoints, listed->run);
        }
        pthread_mutex_unlock(&checkpoints->lock);
    }
    checkpoints_touch_directory(fs, checkpoint);
}
