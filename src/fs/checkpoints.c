/* SPDX-License-Identifier: Apache-2.0 */
/* The list of checkpoints that are known, and what brings directories before the thread that looks. */
#include "fs/checkpoints.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/grow.h"
#include "base/ids.h"
#include "base/log.h"
#include "ckpt/complete_markers.h"
#include "ckpt/detect.h"
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

enum {
    CHECKPOINTS_REST = 4,
    CHECKPOINTS_LEVELS = 3,
    CHECKPOINTS_NAMES = 256, /* of a directory that nothing is known of, so many are read at most */
};

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

/* -- the list ---------------------------------------------------------------------------------------------
 */

/* Where the directory is, or would be. The lock is held. */
static size_t checkpoints_place(const struct checkpoints *checkpoints, uint64_t directory)
{
    size_t first = 0, end = checkpoints->count;
    while (first < end) {
        size_t middle = first + (end - first) / 2;
        if (checkpoints->at[middle].directory < directory)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

struct meta_checkpoint *checkpoints_find(const struct checkpoints *checkpoints, uint64_t directory)
{
    size_t at = checkpoints_place(checkpoints, directory);
    bool found = at < checkpoints->count && checkpoints->at[at].directory == directory;
    return found ? &checkpoints->at[at] : NULL;
}

errint checkpoints_put(struct checkpoints *checkpoints, const struct meta_checkpoint *row)
{
    size_t at = checkpoints_place(checkpoints, row->directory);
    if (at < checkpoints->count && checkpoints->at[at].directory == row->directory) {
        checkpoints->at[at] = *row;
        return 0;
    }
    if (!grow_reserve(checkpoints->at, checkpoints->capacity, checkpoints->count + 1))
        return -ENOMEM;
    memmove(&checkpoints->at[at + 1], &checkpoints->at[at], (checkpoints->count - at) * sizeof *row);
    checkpoints->at[at] = *row;
    checkpoints->count++;
    return 0;
}

void checkpoints_drop(struct checkpoints *checkpoints, uint64_t directory)
{
    struct meta_checkpoint *row = checkpoints_find(checkpoints, directory);
    if (!row)
        return;
    size_t behind = (size_t)(checkpoints->at + checkpoints->count - (row + 1));
    memmove(row, row + 1, behind * sizeof *row);
    checkpoints->count--;
}

static int checkpoints_compare(const void *one, const void *other)
{
    const struct meta_checkpoint *a = one, *b = other;
    if (a->step != b->step)
        return a->step < b->step ? -1 : 1;
    return (a->completed > b->completed) - (a->completed < b->completed);
}

void checkpoints_mark_latest(struct checkpoints *checkpoints, uint64_t run)
{
    struct meta_checkpoint *latest = NULL;
    for (size_t i = 0; i < checkpoints->count; i++) {
        struct meta_checkpoint *row = &checkpoints->at[i];
        if (row->run != run)
            continue;
        row->marks &= ~(unsigned)CHECKPOINT_LATEST;
        if (row->state == CHECKPOINT_COMPLETE && row->step >= 0 &&
            (!latest || checkpoints_compare(latest, row) <= 0))
            latest = row;
    }
    if (latest)
        latest->marks |= CHECKPOINT_LATEST;
}

errint checkpoints_note_look(struct checkpoints *checkpoints, uint64_t run)
{
    pthread_mutex_lock(&checkpoints->lock);
    errint error = ids_contain(&checkpoints->taken, run) ? 0 : ids_append(&checkpoints->taken, run);
    pthread_mutex_unlock(&checkpoints->lock);
    return error;
}

static void checkpoints_end_look(struct checkpoints *checkpoints, uint64_t run)
{
    pthread_mutex_lock(&checkpoints->lock);
    ids_remove(&checkpoints->taken, run);
    pthread_mutex_unlock(&checkpoints->lock);
}

/* Since what is known of the run was seen. */
static bool checkpoints_was_written(struct filesystem *fs, uint64_t run)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    pthread_mutex_lock(&checkpoints->lock);
    bool taken = ids_contain(&checkpoints->taken, run);
    pthread_mutex_unlock(&checkpoints->lock);
    return taken || writers_wrote_below(fs, run);
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

errint checkpoints_get(struct filesystem *fs, uint64_t directory, struct meta_checkpoint *out)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    pthread_mutex_lock(&checkpoints->lock);
    const struct meta_checkpoint *row = checkpoints_find(checkpoints, directory);
    if (row)
        *out = *row;
    pthread_mutex_unlock(&checkpoints->lock);
    return row ? 0 : -ENOENT;
}

bool checkpoints_has_any(struct filesystem *fs)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    pthread_mutex_lock(&checkpoints->lock);
    bool any = checkpoints->count > 0;
    pthread_mutex_unlock(&checkpoints->lock);
    return any;
}

uint64_t checkpoints_root(struct filesystem *fs, uint64_t directory)
{
    struct meta_checkpoint row;
    if (!checkpoints_has_any(fs))
        return 0;
    for (unsigned level = 0; level <= CHECKPOINTS_LEVELS; level++) {
        if (checkpoints_get(fs, directory, &row) == 0)
            /* A model in the run's own directory has no part in what is below that. */
            return level == 0 || row.run != row.directory ? directory : 0;
        if (directory == META_ROOT_INO || meta_parent(fs->meta, directory, &directory) < 0 || directory == 0)
            break;
    }
    return 0;
}

bool checkpoints_is_complete(struct filesystem *fs, uint64_t directory)
{
    struct meta_checkpoint row;
    uint64_t root = checkpoints_root(fs, directory);
    return root && checkpoints_get(fs, root, &row) == 0 && (row.marks & CHECKPOINT_WHOLE);
}

errint checkpoints_of_run(struct filesystem *fs, uint64_t run, struct meta_checkpoint **out, size_t *count)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    *count = 0;
    pthread_mutex_lock(&checkpoints->lock);
    struct meta_checkpoint *rows = calloc(checkpoints->count + 1, sizeof *rows);
    for (size_t i = 0; rows && i < checkpoints->count; i++) {
        if (checkpoints->at[i].run == run)
            rows[(*count)++] = checkpoints->at[i];
    }
    pthread_mutex_unlock(&checkpoints->lock);
    if (rows && *count > 0)
        qsort(rows, *count, sizeof *rows, checkpoints_compare);
    *out = rows;
    return rows ? 0 : -ENOMEM;
}

errint checkpoints_runs(struct filesystem *fs, struct ids *out)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    errint error = 0;
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < checkpoints->count && !error; i++) {
        if (!ids_contain(out, checkpoints->at[i].run))
            error = ids_append(out, checkpoints->at[i].run);
    }
    pthread_mutex_unlock(&checkpoints->lock);
    return error;
}

/* What tells, without a look, that a directory has several checkpoints. */
struct checkpoints_steps {
    unsigned names, steps;
};

static bool checkpoints_count_step(void *context, const char *name, size_t length, uint64_t cookie,
                                   const struct meta_inode *inode)
{
    (void)length, (void)cookie;
    struct checkpoints_steps *found = context;
    found->steps += S_ISDIR(inode->mode) && detect_step_of_name(name) >= 0;
    return found->steps < 2 && ++found->names < CHECKPOINTS_NAMES;
}

static bool checkpoints_has_steps(struct filesystem *fs, uint64_t run)
{
    struct checkpoints_steps found = {0};
    return meta_list(fs->meta, run, 0, checkpoints_count_step, &found) == 0 && found.steps >= 2;
}

bool checkpoints_may_be_torn(struct filesystem *fs, uint64_t run)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    size_t known = 0, other = 0;
    int64_t highest = -1, highest_shed = -1;
    if (!checkpoints->queue)
        return false;
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < checkpoints->count; i++) {
        const struct meta_checkpoint *row = &checkpoints->at[i];
        bool incomplete = row->state == CHECKPOINT_INCOMPLETE || row->state == CHECKPOINT_WRITING;
        known += row->run == run && (incomplete || row->state == CHECKPOINT_COMPLETE);
        other += row->run == run && incomplete;
        if (row->run == run && row->state == CHECKPOINT_COMPLETE && row->step > highest)
            highest = row->step;
        if (row->run == run && (row->marks & CHECKPOINT_SHED) && row->step > highest_shed)
            highest_shed = row->step;
    }
    pthread_mutex_unlock(&checkpoints->lock);
    /* What was incomplete while a rank's last file was awaited may be complete since the rank is gone. And a
     * resume must not take what was shed for the latest. */
    if ((other > 0 && known > 1) || (highest >= 0 && highest_shed > highest))
        return true;
    return checkpoints_was_written(fs, run) && (known > 0 || checkpoints_has_steps(fs, run));
}

uint64_t checkpoints_marked(struct filesystem *fs, uint64_t run, enum checkpoint_mark mark)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    uint64_t found = 0;
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < checkpoints->count && !found; i++) {
        if (checkpoints->at[i].run == run && (checkpoints->at[i].marks & mark))
            found = checkpoints->at[i].directory;
    }
    pthread_mutex_unlock(&checkpoints->lock);
    return found;
}

/* -- the work ---------------------------------------------------------------------------------------------
 */

errint checkpoints_look_now(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out)
{
    pthread_mutex_lock(&fs->checkpoints->looking);
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

bool checkpoints_is_addition(const struct meta_checkpoint *checkpoint, const char *name, int64_t made)
{
    return checkpoint->state == CHECKPOINT_COMPLETE && complete_marker_of(name, false) == MARKER_NONE &&
           (made > checkpoint->completed || !rewritten_is_needed(name));
}

void checkpoints_after_removal(struct filesystem *fs, uint64_t directory, const char *name, int64_t made)
{
    struct meta_checkpoint row;
    uint64_t checkpoint = checkpoints_root(fs, directory);
    /* Readers are sent to the latest one. */
    bool hurry = checkpoint && checkpoints_get(fs, checkpoint, &row) == 0 &&
                 (row.marks & CHECKPOINT_LATEST) && !checkpoints_is_addition(&row, name, made);
    if (checkpoint || complete_marker_of(name, false) != MARKER_NONE)
        directory_queue_add(fs->checkpoints->queue, directory, hurry);
}

void checkpoints_begin_rewrite(struct filesystem *fs, uint64_t checkpoint, bool needed)
{
    struct checkpoints *checkpoints = fs->checkpoints;
    pthread_mutex_lock(&checkpoints->lock);
    struct meta_checkpoint *row = checkpoints_find(checkpoints, checkpoint);
    if (row)
        row->marks &= ~(unsigned)CHECKPOINT_WHOLE;
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
    pthread_mutex_unlock(&checkpoints->lock);
    if (!known)
        return;
    rewrite_forget_directories(fs);
    rewrite_check(fs, removed);
    if (meta_path(fs->meta, directory, &above) == 0 &&
        asprintf(&path, "%s%s%s", above, above[1] ? "/" : "", name) >= 0 && (row.marks & CHECKPOINT_WHOLE))
        checkpoints_emit(fs, EVENT_REMOVED, &row, path, "somebody removed it");
    /* The next one may be the latest now. */
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

errint checkpoints_start(struct filesystem *fs)
{
    struct checkpoints *checkpoints = fs->checkpoints;
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
    return fs->options->read_only ? 0 : directory_queue_start(fs, &checkpoints_work, &checkpoints->queue);
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
