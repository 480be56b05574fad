/* SPDX-License-Identifier: Apache-2.0 */
/* The list of checkpoints that are known, and what is asked of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "ckpt/detect.h"
#include "fs/checkpoints_internal.h"
#include "fs/filesystem.h"

enum {
    CHECKPOINTS_LEVELS = 3,
    CHECKPOINTS_NAMES = 256, /* of a directory that nothing is known of, so many are read at most */
};

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

void checkpoints_begin_look(struct checkpoints *checkpoints)
{
    pthread_mutex_lock(&checkpoints->lock);
    for (size_t i = 0; i < checkpoints->count; i++)
        checkpoints->at[i].marks &= ~(unsigned)CHECKPOINT_BEGUN;
    pthread_mutex_unlock(&checkpoints->lock);
}

void checkpoints_end_look(struct checkpoints *checkpoints, uint64_t run)
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
