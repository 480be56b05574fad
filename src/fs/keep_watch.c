/* SPDX-License-Identifier: Apache-2.0 */
/* Which runs are to have their policies applied, and doing it. */
#include "fs/keep_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/checkpoints.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/keep_remove.h"
#include "fs/loads.h"
#include "fs/trees.h"
#include "meta/policy.h"

/* Ages, and files that were open, are looked after so often. */
#define KEEP_TICK_NS (60 * CLOCK_NS_PER_SECOND)
/* Directories whose policy was changed, until all below them was looked at; in the database. */
#define KEEP_TREES_SETTING "keep-below"

/* A run that is to be looked at again some time. */
struct keep_run {
    struct keep_run *next;
    uint64_t directory;
    int64_t again; /* clock_wall() at which an age is reached; 0: never */
    bool blocked;  /* something was open: it is looked at again at the next tick */
};

struct keep_watch {
    pthread_mutex_t applying; /* while something may be removed; before all other locks */
    struct trees trees;
    atomic_bool keeps;  /* some directory has a policy */
    atomic_bool loaded; /* processes have read something */
    atomic_bool stopping;
    /* The thread's own. */
    struct keep_run *runs;
    int64_t ticked; /* clock_monotonic() of the last tick; 0: there was none */
};

static bool keep_watch_stops(struct filesystem *fs)
{
    return atomic_load(&fs->keep_watch->stopping);
}

/* -- what others tell -------------------------------------------------------------------------------------
 */

void keep_watch_opened(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch || !loads_note(fs, ino, thread))
        return;
    atomic_store(&watch->loaded, true);
    checkpoints_wake(fs);
}

bool keep_watch_is_used(struct filesystem *fs)
{
    return fs->keep_watch && atomic_load(&fs->keep_watch->keeps);
}

void keep_watch_below(struct filesystem *fs, uint64_t directory)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    errint error = trees_add(fs, &watch->trees, directory);
    if (error)
        log_warning("inode %llu: its policy is applied at the next save: %s", (unsigned long long)directory,
                    strerror(-error));
    atomic_store(&watch->keeps, true);
    atomic_store(&watch->loaded, true);
    checkpoints_wake(fs);
}

/* -- runs that are to be looked at again ------------------------------------------------------------------
 */

static void keep_watch_forget(struct keep_watch *watch, uint64_t directory)
{
    for (struct keep_run **link = &watch->runs; *link; link = &(*link)->next) {
        struct keep_run *run = *link;
        if (run->directory != directory)
            continue;
        *link = run->next;
        free(run);
        return;
    }
}

static void keep_watch_remember(struct keep_watch *watch, const struct keep_run *wanted)
{
    keep_watch_forget(watch, wanted->directory);
    struct keep_run *run = wanted->again || wanted->blocked ? malloc(sizeof *run) : NULL;
    if (!run)
        return; /* the next file that is sealed in it, or the next start, brings it back */
    *run = *wanted;
    run->next = watch->runs;
    watch->runs = run;
}

/* -- applying ---------------------------------------------------------------------------------------------
 */

static void keep_watch_removed(void *context, const struct keep_list *list, size_t index, errint error)
{
    struct keep_run *run = context;
    run->blocked |= error != 0;
    if (error && error != -EBUSY && error != -ENOENT)
        log_warning("inode %llu: cannot be removed (%s): %s", (unsigned long long)list->inodes[index],
                    list->verdicts[index].reason, strerror(-error));
}

/* Whether a complete one is unsettled. */
static bool keep_watch_look_ahead(const struct keep_list *list, struct keep_run *run)
{
    bool unsettled = false;
    for (size_t i = 0; i < list->count; i++) {
        const struct keep_checkpoint *checkpoint = &list->checkpoints[i];
        int64_t end = checkpoint->time + list->policy.max_age;
        unsettled |= checkpoint->unsettled && checkpoint->state >= COMPLETE_WEIGHTS;
        run->blocked |= checkpoint->open || checkpoint->loaded;
        if (list->policy.max_age > 0 && !list->verdicts[i].goes && (!run->again || end < run->again))
            run->again = list->verdicts[i].expendable ? end : run->again;
    }
    return unsettled;
}

/* What a successor is to know; where nothing has a policy, it need not. */
static void keep_watch_note_loads(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!atomic_exchange(&watch->loaded, false))
        return;
    loads_settle(fs);
    errint error = atomic_load(&watch->keeps) ? loads_keep(fs) : 0;
    if (error)
        log_warning("a successor would not know what running jobs began with: %s", strerror(-error));
}

bool keep_watch_apply(struct filesystem *fs, uint64_t directory, uint64_t run)
{
    struct keep_watch *watch = fs->keep_watch;
    cleanup_keep_list struct keep_list list = {0};
    struct keep_run next = {.directory = run};
    if (!keep_watch_is_used(fs))
        return false;
    keep_watch_forget(watch, directory);
    if (!run)
        return false;
    keep_watch_note_loads(fs);
    pthread_mutex_lock(&watch->applying);
    errint error = keep_watch_stops(fs)
                       ? -ECANCELED
                       : keep_apply(fs, run, keep_watch_stops, keep_watch_removed, &next, &list);
    pthread_mutex_unlock(&watch->applying);
    bool failed = error && error != -ENOENT && error != -ENOTDIR && error != -ECANCELED && error != -EBUSY;
    if (failed)
        log_warning("inode %llu: its policy is not applied now: %s", (unsigned long long)run,
                    strerror(-error));
    next.blocked |= failed;
    bool unsettled = keep_watch_look_ahead(&list, &next);
    keep_watch_remember(watch, &next);
    /* The file that names the one for a resume is being written. */
    return unsettled || error == -EBUSY;
}

/* -- now and then -----------------------------------------------------------------------------------------
 */

/* Whether a policy may remove anything of the directory. */
static bool keep_watch_has_policy(struct filesystem *fs, uint64_t directory)
{
    cleanup_free struct meta_policy_found *found = malloc(sizeof *found);
    bool has = false;
    for (size_t i = 0; i < keep_policy_key_count && found && !has; i++)
        has = meta_policy_find(fs->meta, directory, keep_policy_keys[i], found) == 0 &&
              strcmp(found->value, KEEP_OFF) != 0;
    return has;
}

uint64_t keep_watch_next(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    bool is_run = false;
    uint64_t directory = trees_next(fs, &watch->trees);
    if (directory && keep_watch_has_policy(fs, directory) && keep_is_run(fs, directory, &is_run) < 0)
        is_run = true; /* the look says why */
    trees_finish(fs, &watch->trees);
    return is_run ? directory : 0;
}

size_t keep_watch_left(struct filesystem *fs)
{
    return trees_left(&fs->keep_watch->trees);
}

/* All that has a policy is looked at once: something may have got old meanwhile. */
static void keep_watch_begin(struct filesystem *fs)
{
    cleanup_ids struct ids directories = {0};
    struct keep_watch *watch = fs->keep_watch;
    pthread_mutex_lock(&watch->applying);
    errint error = keep_watch_stops(fs) ? 0 : keep_remove_rest(fs);
    pthread_mutex_unlock(&watch->applying);
    if (error)
        log_warning("checkpoints that an earlier daemon had begun to remove still take their space: %s",
                    strerror(-error));
    error = 0;
    for (size_t i = 0; i < keep_policy_key_count && !error; i++)
        error = meta_policy_find_directories(fs->meta, keep_policy_keys[i], &directories);
    if (directories.count > 0)
        atomic_store(&watch->keeps, true);
    for (size_t i = 0; i < directories.count && !error; i++)
        error = trees_add(fs, &watch->trees, directories.at[i]);
    if (error)
        log_warning("policies are applied at the next save only: %s", strerror(-error));
}

int64_t keep_watch_tick(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    int64_t now = clock_monotonic(), wall = clock_wall();
    int64_t length = clock_is_test() ? CLOCK_NS_PER_SECOND : KEEP_TICK_NS;
    if (!watch->ticked)
        keep_watch_begin(fs);
    keep_watch_note_loads(fs);
    if (watch->ticked && now - watch->ticked < length)
        return watch->ticked + length;
    watch->ticked = now;
    /* What has become old by now, and what was open. */
    for (struct keep_run *run = watch->runs; run; run = run->next) {
        if (run->blocked || (run->again && run->again < wall))
            checkpoints_touch_directory(fs, run->directory);
    }
    return now + length;
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

errint keep_watch_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct keep_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return -ENOMEM;
    errint error = loads_start(fs);
    if (!error)
        error = trees_start(fs, &watch->trees, KEEP_TREES_SETTING);
    if (error) {
        loads_release(fs);
        free(watch);
        return error;
    }
    pthread_mutex_init(&watch->applying, NULL);
    fs->keep_watch = watch;
    return 0;
}

void keep_watch_stop(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    atomic_store(&watch->stopping, true);
    pthread_mutex_lock(&watch->applying);
    pthread_mutex_unlock(&watch->applying);
}

void keep_watch_release(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    fs->keep_watch = NULL;
    while (watch->runs)
        keep_watch_forget(watch, watch->runs->directory);
    trees_release(&watch->trees);
    loads_release(fs);
    pthread_mutex_destroy(&watch->applying);
    free(watch);
}
