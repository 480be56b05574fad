/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that applies policies. */
#include "fs/keep_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/keep_remove.h"
#include "fs/loads.h"
#include "fs/trees.h"
#include "meta/policy.h"

/* A save is many files: a run is looked at when nothing was sealed in it for so long. */
#define KEEP_QUIET_NS CLOCK_NS_PER_SECOND
/* But not put off for longer than this. */
#define KEEP_LATEST_NS (10 * CLOCK_NS_PER_SECOND)
/* While files are written, or not on stable storage; doubled each time. */
#define KEEP_RETRY_NS     (CLOCK_NS_PER_SECOND / 2)
#define KEEP_RETRY_MAX_NS (30 * CLOCK_NS_PER_SECOND)
/* Ages, and files that were open, are looked after so often. */
#define KEEP_TICK_NS (60 * CLOCK_NS_PER_SECOND)
/* Directories whose policy was changed, until all below them was looked at; in the database. */
#define KEEP_TREES_SETTING "keep-below"

enum {
    KEEP_NICE = 10,
    KEEP_NAMES = 8, /* of a file with many names, so many are looked after */
};

struct keep_run {
    struct keep_run *next;
    uint64_t directory;
    int64_t due, latest, delay; /* clock_monotonic() */
    int64_t again;              /* clock_wall() at which an age is reached; 0: never */
    bool waiting;               /* is due; else only its age is looked after */
    bool blocked;               /* something was open: it is looked at again at the next tick */
};

struct keep_watch {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    struct ids files;
    struct keep_run *runs;
    struct trees trees;
    int64_t ticked;
    atomic_bool keeps; /* some directory has a policy */
    bool loaded;       /* processes have read something */
    atomic_bool stopping;
};

static bool keep_watch_stops(struct filesystem *fs)
{
    return atomic_load(&fs->keep_watch->stopping);
}

/* -- the list ---------------------------------------------------------------------------------------------
 */

/* The lock is held, here and below, where nothing else is said. NULL: no memory. */
static struct keep_run *keep_watch_find(struct keep_watch *watch, uint64_t directory)
{
    struct keep_run *run = watch->runs;
    while (run && run->directory != directory)
        run = run->next;
    if (run)
        return run;
    run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    *run = (struct keep_run){.next = watch->runs, .directory = directory};
    return watch->runs = run;
}

static void keep_watch_enlist(struct keep_watch *watch, uint64_t directory, int64_t wait)
{
    int64_t now = clock_monotonic();
    struct keep_run *run = keep_watch_find(watch, directory);
    if (!run)
        return; /* the next file that is sealed in it, or the next start, brings it back */
    if (!run->waiting)
        run->latest = now + KEEP_LATEST_NS;
    run->due = now + wait < run->latest ? now + wait : run->latest;
    run->delay = KEEP_RETRY_NS;
    run->waiting = true;
}

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

void keep_watch_file(struct filesystem *fs, uint64_t ino)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    pthread_mutex_lock(&watch->lock);
    if (ids_append(&watch->files, ino) == 0)
        pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

void keep_watch_opened(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch || !loads_note(fs, ino, thread))
        return;
    pthread_mutex_lock(&watch->lock);
    watch->loaded = true;
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

bool keep_watch_is_used(struct filesystem *fs)
{
    return fs->keep_watch && atomic_load(&fs->keep_watch->keeps);
}

void keep_watch_run(struct filesystem *fs, uint64_t directory)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    pthread_mutex_lock(&watch->lock);
    keep_watch_enlist(watch, directory, 0);
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
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
    pthread_mutex_lock(&watch->lock);
    watch->keeps = watch->loaded = true;
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

/* -- files ------------------------------------------------------------------------------------------------
 */

/* Whether a policy may remove anything of the directory. Without the lock. */
static bool keep_watch_has_policy(struct filesystem *fs, uint64_t directory)
{
    struct meta_policy_found *found = malloc(sizeof *found);
    bool has = false;
    for (size_t i = 0; i < keep_policy_key_count && found && !has; i++)
        has = meta_policy_find(fs->meta, directory, keep_policy_keys[i], found) == 0 &&
              strcmp(found->value, KEEP_OFF) != 0;
    free(found);
    return has;
}

/* The directories that a file may be in a checkpoint of: its own is a run (of files), or a checkpoint, or a
 * part of one. */
static void keep_watch_resolve(struct filesystem *fs, uint64_t ino)
{
    struct meta_name names[KEEP_NAMES];
    size_t count;
    if (meta_find_names(fs->meta, ino, NULL, names, KEEP_NAMES, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        uint64_t directory = names[i].parent;
        if (!keep_watch_has_policy(fs, directory))
            continue;
        for (int level = 0; level < 3; level++) {
            pthread_mutex_lock(&fs->keep_watch->lock);
            keep_watch_enlist(fs->keep_watch, directory, KEEP_QUIET_NS);
            pthread_mutex_unlock(&fs->keep_watch->lock);
            if (directory == META_ROOT_INO || meta_parent(fs->meta, directory, &directory) < 0)
                break;
        }
    }
}

/* Gives the lock up meanwhile. */
static void keep_watch_resolve_all(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    cleanup_ids struct ids files = watch->files;
    watch->files = (struct ids){0};
    pthread_mutex_unlock(&watch->lock);
    for (size_t i = 0; i < files.count && !keep_watch_stops(fs); i++) {
        if (i == 0 || files.at[i] != files.at[i - 1])
            keep_watch_resolve(fs, files.at[i]);
    }
    pthread_mutex_lock(&watch->lock);
}

/* -- a run ------------------------------------------------------------------------------------------------
 */

/* What is to be looked after when it was applied. */
struct keep_outlook {
    bool unsettled, blocked;
    int64_t again;
};

static void keep_watch_removed(void *context, const struct keep_list *list, size_t index, errint error)
{
    struct keep_outlook *outlook = context;
    outlook->blocked |= error != 0;
    if (error && error != -EBUSY && error != -ENOENT)
        log_warning("inode %llu: cannot be removed (%s): %s", (unsigned long long)list->inodes[index],
                    list->verdicts[index].reason, strerror(-error));
}

static void keep_watch_look_ahead(const struct keep_list *list, struct keep_outlook *outlook)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct keep_checkpoint *checkpoint = &list->checkpoints[i];
        int64_t end = checkpoint->time + list->policy.max_age;
        outlook->unsettled |= checkpoint->unsettled;
        outlook->blocked |= checkpoint->open || checkpoint->loaded;
        if (list->policy.max_age > 0 && !list->verdicts[i].goes && (!outlook->again || end < outlook->again))
            outlook->again = list->verdicts[i].expendable ? end : outlook->again;
    }
}

/* Puts the run where it belongs next. */
static void keep_watch_put_back(struct keep_watch *watch, struct keep_run *run, int64_t delay,
                                const struct keep_outlook *outlook)
{
    run->again = outlook->again;
    run->blocked = outlook->blocked;
    /* Something was sealed meanwhile. */
    if (run->waiting)
        return;
    if (outlook->unsettled) {
        keep_watch_enlist(watch, run->directory, delay);
        run->due = clock_monotonic() + delay;
        run->delay = 2 * delay < KEEP_RETRY_MAX_NS ? 2 * delay : KEEP_RETRY_MAX_NS;
    } else if (!run->again && !run->blocked) {
        keep_watch_forget(watch, run->directory);
    }
}

/* Gives the lock up meanwhile; only this thread takes runs off the list. */
static void keep_watch_visit(struct filesystem *fs, struct keep_run *run)
{
    struct keep_watch *watch = fs->keep_watch;
    cleanup_keep_list struct keep_list list = {0};
    struct keep_outlook outlook = {0};
    int64_t delay = run->delay;
    run->waiting = false;
    pthread_mutex_unlock(&watch->lock);
    errint error = keep_apply(fs, run->directory, keep_watch_stops, keep_watch_removed, &outlook, &list);
    /* The file that names the one for a resume is being written. */
    outlook.unsettled |= error == -EBUSY;
    bool failed = error && error != -ENOENT && error != -ENOTDIR && error != -ECANCELED && error != -EBUSY;
    if (failed)
        log_warning("inode %llu: its policy is not applied now: %s", (unsigned long long)run->directory,
                    strerror(-error));
    outlook.blocked |= failed;
    keep_watch_look_ahead(&list, &outlook);
    pthread_mutex_lock(&watch->lock);
    keep_watch_put_back(watch, run, delay, &outlook);
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static int64_t keep_watch_tick_length(void)
{
    return clock_is_test() ? CLOCK_NS_PER_SECOND : KEEP_TICK_NS;
}

/* What has become old by now, and what was open. */
static void keep_watch_tick(struct keep_watch *watch)
{
    int64_t now = clock_monotonic();
    if (now - watch->ticked < keep_watch_tick_length())
        return;
    int64_t wall = clock_wall();
    watch->ticked = now;
    for (struct keep_run *run = watch->runs; run; run = run->next) {
        bool due = run->blocked || (run->again && run->again < wall);
        if (due && !run->waiting)
            keep_watch_enlist(watch, run->directory, 0);
    }
}

static struct keep_run *keep_watch_take(struct keep_watch *watch, int64_t *until)
{
    struct keep_run *first = NULL;
    for (struct keep_run *run = watch->runs; run; run = run->next) {
        if (run->waiting && (!first || run->due < first->due))
            first = run;
    }
    *until = first ? first->due : INT64_MAX;
    return first && first->due <= clock_monotonic() ? first : NULL;
}

/* What a successor is to know; where nothing has a policy, it need not. Gives the lock up meanwhile. */
static void keep_watch_note_loads(struct filesystem *fs)
{
    bool keeps = fs->keep_watch->keeps;
    fs->keep_watch->loaded = false;
    pthread_mutex_unlock(&fs->keep_watch->lock);
    loads_settle(fs);
    errint error = keeps ? loads_keep(fs) : 0;
    if (error)
        log_warning("a successor would not know what running jobs began with: %s", strerror(-error));
    pthread_mutex_lock(&fs->keep_watch->lock);
}

/* Directories whose policy was changed, one at a time. Gives the lock up meanwhile. */
static void keep_watch_walk(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    pthread_mutex_unlock(&watch->lock);
    uint64_t directory = trees_next(fs, &watch->trees);
    bool holds = directory && keep_watch_has_policy(fs, directory);
    trees_finish(fs, &watch->trees);
    pthread_mutex_lock(&watch->lock);
    if (holds)
        keep_watch_enlist(watch, directory, 0);
}

static void keep_watch_step(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    int64_t until;
    keep_watch_tick(watch);
    if (watch->loaded)
        keep_watch_note_loads(fs);
    if (watch->files.count > 0) {
        keep_watch_resolve_all(fs);
        return;
    }
    struct keep_run *run = keep_watch_take(watch, &until);
    if (run) {
        keep_watch_visit(fs, run);
        return;
    }
    if (trees_left(&watch->trees) > 0) {
        keep_watch_walk(fs);
        return;
    }
    int64_t tick = watch->ticked + keep_watch_tick_length();
    if (watch->runs && tick < until)
        until = tick;
    struct timespec time = clock_to_timespec(until);
    if (until != INT64_MAX)
        pthread_cond_clockwait(&watch->wake, &watch->lock, CLOCK_MONOTONIC, &time);
    else
        wait_signal(&watch->wake, &watch->lock);
}

/* All that has a policy is looked at once: something may have got old meanwhile. */
static void keep_watch_begin(struct filesystem *fs)
{
    cleanup_ids struct ids directories = {0};
    errint error = keep_remove_rest(fs);
    if (error)
        log_warning("checkpoints that an earlier daemon had begun to remove still take their space: %s",
                    strerror(-error));
    error = 0;
    for (size_t i = 0; i < keep_policy_key_count && !error; i++)
        error = meta_policy_find_directories(fs->meta, keep_policy_keys[i], &directories);
    pthread_mutex_lock(&fs->keep_watch->lock);
    fs->keep_watch->keeps |= directories.count > 0;
    pthread_mutex_unlock(&fs->keep_watch->lock);
    for (size_t i = 0; i < directories.count && !error; i++)
        error = trees_add(fs, &fs->keep_watch->trees, directories.at[i]);
    if (error)
        log_warning("policies are applied at the next save only: %s", strerror(-error));
}

static void *keep_watch_thread(void *context)
{
    struct filesystem *fs = context;
    struct keep_watch *watch = fs->keep_watch;
    /* Of this thread only: Linux keeps a nice value for each. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), KEEP_NICE);
    keep_watch_begin(fs);
    pthread_mutex_lock(&watch->lock);
    while (!atomic_load(&watch->stopping))
        keep_watch_step(fs);
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

errint keep_watch_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct keep_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return -ENOMEM;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->wake, NULL);
    watch->ticked = clock_monotonic();
    fs->keep_watch = watch;
    errint error = loads_start(fs);
    if (!error)
        error = trees_start(fs, &watch->trees, KEEP_TREES_SETTING);
    if (!error) {
        error = -pthread_create(&watch->thread, NULL, keep_watch_thread, fs);
        if (error)
            trees_release(&watch->trees);
    }
    if (error) {
        fs->keep_watch = NULL;
        loads_release(fs);
        free(watch);
        return error;
    }
    pthread_setname_np(watch->thread, "keep");
    return 0;
}

void keep_watch_stop(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch || atomic_exchange(&watch->stopping, true))
        return;
    pthread_mutex_lock(&watch->lock);
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
}

void keep_watch_release(struct filesystem *fs)
{
    struct keep_watch *watch = fs->keep_watch;
    if (!watch)
        return;
    keep_watch_stop(fs);
    fs->keep_watch = NULL;
    while (watch->runs)
        keep_watch_forget(watch, watch->runs->directory);
    ids_release(&watch->files);
    trees_release(&watch->trees);
    loads_release(fs);
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}
