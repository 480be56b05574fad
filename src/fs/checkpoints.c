/* SPDX-License-Identifier: Apache-2.0 */
/* What brings directories before the thread that looks, and what changes the list of what is known. */
#include "fs/checkpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "ckpt/complete_markers.h"
#include "ckpt/rewritten.h"
#include "fs/checkpoints_internal.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/keep_watch.h"

/* A directory is looked at when nothing was sealed in it for so long. */
#define CHECKPOINTS_QUIET_NS (CLOCK_NS_PER_SECOND / 2)
/* But not put off for longer than this. */
#define CHECKPOINTS_LATEST_NS (10 * CLOCK_NS_PER_SECOND)
/* While a file is written, or not on stable storage; doubled each time. */
#define CHECKPOINTS_RETRY_NS     (CLOCK_NS_PER_SECOND / 2)
#define CHECKPOINTS_RETRY_MAX_NS (8 * CLOCK_NS_PER_SECOND)
/* After a look, so many times as long as it took is rest, up to this. */
#define CHECKPOINTS_REST_MAX_NS (2 * CLOCK_NS_PER_SECOND)
/* Files up to this inode number were looked at; kept in the database whenever all were. */
#define CHECKPOINTS_SETTING "checkpoints-up-to"

enum { CHECKPOINTS_REST = 4 };

const char *checkpoint_state_name(enum checkpoint_state state)
{
    switch (state) {
    case CHECKPOINT_WRITING: return "writing";
    case CHECKPOINT_INCOMPLETE: return "incomplete";
    case CHECKPOINT_WEIGHTS: return "weights-only";
    case CHECKPOINT_COMPLETE: return "complete";
    case CHECKPOINT_UNKNOWN: break;
    }
    return "unknown";
}

/* -- the work ---------------------------------------------------------------------------------------------
 */

errint checkpoints_look_now(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out)
{
    pthread_mutex_lock(&fs->checkpoints->looking);
    checkpoints_begin_look(fs->checkpoints);
    errint error = checkpoints_look(fs, directory, out);
    /* Where there is no run, what was known of the directory as one goes. */
    if (!error)
        error = checkpoints_take(fs, out->run ? out->run : directory, out->at, out->count);
    if (!error)
        checkpoints_end_look(fs->checkpoints, out->run ? out->run : directory);
    pthread_mutex_unlock(&fs->checkpoints->looking);
    return error;
}

/* Something is still to come, for which it is looked at again. */
static bool checkpoints_is_unsettled(const struct checkpoints_found *found)
{
    return found->busy || found->adding || found->awaits;
}

/* One look is for all of a run: many checkpoints that were saved, or copied, one after the other are no more
 * work than the last. */
static void checkpoints_settle(struct filesystem *fs, const struct checkpoints_seen *seen, int64_t begun)
{
    cleanup_ids struct ids directories = {0};
    for (size_t i = 0; i < seen->count; i++) {
        if (!checkpoints_is_unsettled(&seen->at[i]) &&
            ids_append(&directories, seen->at[i].row.directory) != 0)
            return; /* each has a turn of its own */
    }
    directory_queue_settle(fs->checkpoints->queue, &directories, begun);
}

static int64_t checkpoints_visit(struct filesystem *fs, struct directory_turn *turn)
{
    cleanup_seen struct checkpoints_seen seen = {0};
    int64_t begun = clock_monotonic();
    errint error = checkpoints_look_now(fs, turn->directory, &seen);
    bool failed = error && error != -ECANCELED && error != -EBUSY && error != -ENOENT;
    if (failed && turn->unready++ == 0)
        log_warning("inode %llu: it cannot be looked at for checkpoints now: %s",
                    (unsigned long long)turn->directory, strerror(-error));
    bool busy = failed || error == -EBUSY;
    for (size_t i = 0; i < seen.count && !error; i++)
        busy |= checkpoints_is_unsettled(&seen.at[i]);
    if (!error) {
        checkpoints_settle(fs, &seen, begun);
        busy |= keep_watch_apply(fs, turn->directory, seen.run);
    }
    rewrite_tidy(fs);
    int64_t rest = (clock_monotonic() - begun) * CHECKPOINTS_REST, delay = turn->delay;
    turn->rest = rest < CHECKPOINTS_REST_MAX_NS ? rest : CHECKPOINTS_REST_MAX_NS;
    turn->delay = delay * 2 < CHECKPOINTS_RETRY_MAX_NS ? delay * 2 : CHECKPOINTS_RETRY_MAX_NS;
    return busy ? delay : DIRECTORY_DONE;
}

static const struct directory_work checkpoints_work = {
    .thread = "checkpoints",
    .setting = CHECKPOINTS_SETTING,
    .quiet = CHECKPOINTS_QUIET_NS,
    .latest = CHECKPOINTS_LATEST_NS,
    .retry = CHECKPOINTS_RETRY_NS,
    .levels = 0,
    .visit = checkpoints_visit,
    .next = keep_watch_next,
    .left = keep_watch_left,
    .tick = keep_watch_tick,
};

void checkpoints_touch(struct filesystem *fs, uint64_t ino)
{
    directory_queue_touch(fs->checkpoints->queue, ino);
}

void checkpoints_touch_directory(struct filesystem *fs, uint64_t directory)
{
    directory_queue_add(fs->checkpoints->queue, directory, false);
}

bool checkpoints_is_addition(const struct meta_checkpoint *checkpoint, uint64_t kept,
                             const struct checkpoints_file *file)
{
    /* Numbers only grow; a clock may be set back. */
    bool later = file->made > checkpoint->completed || (kept && file->ino > kept);
    return checkpoint->state == CHECKPOINT_COMPLETE && complete_marker_of(file->name, false) == MARKER_NONE &&
           (later || !rewritten_is_needed(file->name));
}

void checkpoints_after_removal(struct filesystem *fs, uint64_t directory, const struct checkpoints_file *file)
{
    struct meta_checkpoint row;
    uint64_t checkpoint = checkpoints_root(fs, directory);
    bool marker = complete_marker_of(file->name, false) != MARKER_NONE;
    /* Readers are sent to the latest one. */
    bool hurry = checkpoint && !marker && checkpoints_get(fs, checkpoint, &row) == 0 &&
                 (row.marks & CHECKPOINT_LATEST) &&
                 !checkpoints_is_addition(&row, rewrite_kept(fs, checkpoint), file);
    if (checkpoint || marker)
        directory_queue_add(fs->checkpoints->queue, directory, hurry);
}

void checkpoints_begin_rewrite(struct filesystem *fs, uint64_t checkpoint, bool needed)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    pthread_mutex_lock(&checkpoints->lock);
    struct meta_checkpoint *row = checkpoints_find(checkpoints, checkpoint);
    if (row)
        row->marks = (row->marks & ~(unsigned)CHECKPOINT_WHOLE) | CHECKPOINT_BEGUN | CHECKPOINT_UNSAVED;
    if (row && (needed || row->state != CHECKPOINT_COMPLETE)) {
        row->state = CHECKPOINT_WRITING;
        checkpoints_mark_latest(checkpoints, row->run);
    }
    pthread_mutex_unlock(&checkpoints->lock);
    checkpoints_touch_directory(fs, checkpoint);
}

void checkpoints_after_rmdir(struct filesystem *fs, uint64_t directory, const char *name, uint64_t removed)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    struct meta_checkpoint row;
    cleanup_free char *above = NULL;
    cleanup_free char *path = NULL;
    bool known = checkpoints_get(fs, removed, &row) == 0;
    pthread_mutex_lock(&checkpoints->lock);
    checkpoints_drop(checkpoints, removed);
    if (known)
        checkpoints_mark_latest(checkpoints, row.run);
    pthread_mutex_unlock(&checkpoints->lock);
    if (!known)
        return;
    rewrite_forget_directories(fs);
    rewrite_check(fs, removed);
    if (meta_path(fs->meta, directory, &above) == 0 &&
        asprintf(&path, "%s%s%s", above, above[1] ? "/" : "", name) >= 0 && (row.marks & CHECKPOINT_WHOLE))
        checkpoints_emit(fs, EVENT_REMOVED, &row, path, "somebody removed it");
    checkpoints_touch_directory(fs, directory);
}

void checkpoints_wake(struct filesystem *fs)
{
    directory_queue_wake(fs->checkpoints->queue);
}

size_t checkpoints_waiting(struct filesystem *fs)
{
    return directory_queue_waiting(fs->checkpoints->queue);
}

errint checkpoints_prepare(struct filesystem *fs)
{
    fs->checkpoints = calloc(1, sizeof *fs->checkpoints);
    if (!fs->checkpoints)
        return -ENOMEM;
    pthread_mutex_init(&fs->checkpoints->lock, NULL);
    pthread_mutex_init(&fs->checkpoints->looking, NULL);
    checkpoints_memory_prepare(&fs->checkpoints->memory);
    return 0;
}

/* The rows that the database has are the list. */
static errint checkpoints_load(struct filesystem *fs)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    cleanup_ids struct ids runs = {0};
    struct meta_checkpoint *rows;
    size_t count;
    errint error = meta_checkpoints(fs->meta, &rows, &count);
    if (error)
        return error;
    pthread_mutex_lock(&checkpoints->lock);
    free(checkpoints->at);
    checkpoints->at = rows;
    checkpoints->count = checkpoints->capacity = count;
    pthread_mutex_unlock(&checkpoints->lock);
    error = checkpoints_runs(fs, &runs);
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < runs.count && !error; i++)
        checkpoints_mark_latest(checkpoints, runs.at[i]);
    pthread_mutex_unlock(&checkpoints->lock);
    return error;
}

errint checkpoints_start(struct filesystem *fs)
{
    errint error = checkpoints_load(fs);
    if (error || fs->options->read_only)
        return error;
    return directory_queue_start(fs, &checkpoints_work, &fs->checkpoints->queue);
}

void checkpoints_stop(struct filesystem *fs)
{
    if (!fs->checkpoints)
        return;
    directory_queue_stop(fs->checkpoints->queue);
    fs->checkpoints->queue = NULL;
}

void checkpoints_release(struct filesystem *fs)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    if (!checkpoints)
        return;
    fs->checkpoints = NULL;
    checkpoints_memory_release(&checkpoints->memory);
    free(checkpoints->at);
    ids_release(&checkpoints->taken);
    pthread_mutex_destroy(&checkpoints->lock);
    pthread_mutex_destroy(&checkpoints->looking);
    free(checkpoints);
}
