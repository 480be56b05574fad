/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that compares model files with shards. */
#include "fs/share_models.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/filesystem.h"
#include "fs/share_vicinity.h"
#include "meta/assembled.h"

/* A save is many files: a directory is looked at when none of it was settled for so long. */
#define SHARE_MODELS_QUIET_NS CLOCK_NS_PER_SECOND
/* But not put off for longer than this. */
#define SHARE_MODELS_LATEST_NS (20 * CLOCK_NS_PER_SECOND)
/* While a file is seen in a way that forbids to touch it, or is not hashed yet; doubled each time. */
#define SHARE_MODELS_RETRY_NS     (5 * CLOCK_NS_PER_SECOND)
#define SHARE_MODELS_RETRY_MAX_NS (300 * CLOCK_NS_PER_SECOND)
/* Files up to this inode number were looked at; kept in the database whenever all were. */
#define SHARE_MODELS_SETTING "models-shared-up-to"
/* How often that is written at most. */
#define SHARE_MODELS_NOTE_NS (60 * CLOCK_NS_PER_SECOND)
/* After each look, so that what an earlier daemon left does not keep the namespace busy. */
#define SHARE_MODELS_PAUSE_NS (CLOCK_NS_PER_SECOND / 200)

enum {
    SHARE_MODELS_NICE = 10,
    SHARE_MODELS_NAMES = 8,      /* of a file with many names, so many are looked after */
    SHARE_MODELS_WAITING = 2048, /* from so many directories on, files are found again by their numbers */
    SHARE_MODELS_UNREADY = 6,    /* so often a directory is looked at again for a file that is not hashed */
};

struct share_models_entry {
    struct share_models_entry *next;
    uint64_t directory;
    int64_t due, latest, delay;
    unsigned unready; /* looks in a row that met a file that was not hashed */
};

struct share_models {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    struct ids files; /* whose directories are to be put on the list */
    struct share_models_entry *waiting;
    size_t count; /* of those */
    bool busy;
    atomic_bool stopping;
    uint64_t found; /* files up to this number were taken up; while `finding`, the thread's own */
    /* The thread's own. */
    uint64_t noted; /* what the database has */
    int64_t noted_at;
    bool finding; /* there may be more files of before this start; read with the lock */
    struct vicinity_known known;
};

static bool share_models_stops(struct filesystem *fs)
{
    return atomic_load(&fs->share_models->stopping);
}

/* -- the queue --------------------------------------------------------------------------------------------
 */

/* To be looked at after `wait`. Once it is on the list, each further file puts it off a little. The lock is
 * held. */
static void share_models_enlist(struct share_models *models, const struct share_models_entry *wanted,
                                int64_t wait)
{
    int64_t now = clock_monotonic();
    struct share_models_entry *entry = models->waiting;
    while (entry && entry->directory != wanted->directory)
        entry = entry->next;
    if (entry) {
        entry->due = now + wait < entry->latest ? now + wait : entry->latest;
        entry->unready = 0;
        return;
    }
    entry = malloc(sizeof *entry);
    if (!entry)
        return; /* the next file that is settled in it, or the next start, brings it back */
    *entry = *wanted;
    entry->due = now + wait;
    entry->latest = now + (wait > SHARE_MODELS_LATEST_NS ? wait : SHARE_MODELS_LATEST_NS);
    entry->next = models->waiting;
    models->waiting = entry;
    models->count++;
}

static void share_models_enlist_new(struct share_models *models, uint64_t directory, int64_t wait)
{
    const struct share_models_entry wanted = {.directory = directory, .delay = SHARE_MODELS_RETRY_NS};
    share_models_enlist(models, &wanted, wait);
}

void share_models_touch(struct filesystem *fs, uint64_t ino)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return;
    pthread_mutex_lock(&models->lock);
    if (ids_append(&models->files, ino) == 0)
        pthread_cond_signal(&models->wake);
    pthread_mutex_unlock(&models->lock);
}

void share_models_pass(struct filesystem *fs, uint64_t ino)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return;
    pthread_mutex_lock(&models->lock);
    if (!models->finding && ino > models->found)
        models->found = ino;
    pthread_mutex_unlock(&models->lock);
}

void share_models_touch_directory(struct filesystem *fs, uint64_t directory)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return;
    pthread_mutex_lock(&models->lock);
    share_models_enlist_new(models, directory, SHARE_MODELS_QUIET_NS);
    pthread_cond_signal(&models->wake);
    pthread_mutex_unlock(&models->lock);
}

size_t share_models_waiting(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return 0;
    pthread_mutex_lock(&models->lock);
    size_t waiting = models->count + models->files.count + models->busy + models->finding;
    pthread_mutex_unlock(&models->lock);
    return waiting;
}

/* The directories of a file's names, and those above them: shards may lie one level below their checkpoint.
 */
static void share_models_find_directories(struct filesystem *fs, uint64_t ino, int64_t wait)
{
    struct meta_name names[SHARE_MODELS_NAMES];
    size_t count;
    if (meta_find_names(fs->meta, ino, NULL, names, SHARE_MODELS_NAMES, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        uint64_t above;
        bool more = names[i].parent != META_ROOT_INO && meta_parent(fs->meta, names[i].parent, &above) == 0;
        pthread_mutex_lock(&fs->share_models->lock);
        share_models_enlist_new(fs->share_models, names[i].parent, wait);
        if (more)
            share_models_enlist_new(fs->share_models, above, wait);
        pthread_mutex_unlock(&fs->share_models->lock);
    }
}

/* The entry that is due first, taken off; NULL, and `until` says when. The lock is held. */
static struct share_models_entry *share_models_take(struct share_models *models, int64_t *until)
{
    struct share_models_entry **first = NULL;
    for (struct share_models_entry **link = &models->waiting; *link; link = &(*link)->next) {
        if (!first || (*link)->due < (*first)->due)
            first = link;
    }
    *until = first ? (*first)->due : INT64_MAX;
    if (!first || (*first)->due > clock_monotonic())
        return NULL;
    struct share_models_entry *entry = *first;
    *first = entry->next;
    models->count--;
    return entry;
}

/* -- what an earlier daemon did not come to ---------------------------------------------------------------
 */

/* With the lock held, which is given up meanwhile. */
static void share_models_take_up(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    cleanup_ids struct ids files = {0};
    pthread_mutex_unlock(&models->lock);
    int more = meta_find_files_after(fs->meta, &models->found, &files);
    if (more < 0)
        log_warning("files of before this start are not compared with shards: %s", strerror(-more));
    for (size_t i = 0; i < files.count; i++)
        share_models_find_directories(fs, files.at[i], 0);
    pthread_mutex_lock(&models->lock);
    models->finding = more > 0;
}

/* All that there was is looked at: the next start need not do it again. */
static void share_models_note(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    char text[24];
    pthread_mutex_lock(&models->lock);
    uint64_t found = models->found;
    pthread_mutex_unlock(&models->lock);
    if (found == models->noted)
        return;
    snprintf(text, sizeof text, "%" PRIu64, found);
    errint error = meta_setting_put(fs->meta, SHARE_MODELS_SETTING, text);
    if (error && error != -ENOSPC)
        log_warning("the next start compares model files with shards again: %s", strerror(-error));
    models->noted = found;
    models->noted_at = clock_monotonic();
}

static errint share_models_read_noted(struct filesystem *fs)
{
    cleanup_free char *value = NULL;
    errint error = meta_setting_get(fs->meta, SHARE_MODELS_SETTING, &value);
    if (!error)
        fs->share_models->found = strtoull(value, NULL, 10);
    fs->share_models->noted = fs->share_models->found;
    return error == -ENOENT ? 0 : error;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static void share_models_report(uint64_t directory, errint error)
{
    if (error && error != -EBUSY && error != -EAGAIN && error != -ECANCELED && error != -ENOENT)
        log_warning("inode %llu: model files are not compared with shards here now: %s",
                    (unsigned long long)directory, strerror(-error));
}

/* With the lock held, which is given up meanwhile. */
static void share_models_visit(struct filesystem *fs, struct share_models_entry *entry)
{
    struct share_models *models = fs->share_models;
    models->busy = true;
    pthread_mutex_unlock(&models->lock);
    errint error = vicinity_share(fs, entry->directory, &models->known, share_models_stops);
    share_models_report(entry->directory, error);
    nanosleep(&(struct timespec){.tv_nsec = SHARE_MODELS_PAUSE_NS}, NULL);
    pthread_mutex_lock(&models->lock);
    int64_t delay = entry->delay;
    entry->delay = delay * 2 < SHARE_MODELS_RETRY_MAX_NS ? delay * 2 : SHARE_MODELS_RETRY_MAX_NS;
    if (error == -EAGAIN)
        entry->unready++;
    if (error == -EBUSY || (error == -EAGAIN && entry->unready < SHARE_MODELS_UNREADY))
        share_models_enlist(models, entry, delay);
    free(entry);
    models->busy = false;
}

/* The file's directories are put on the list; or, where that is long, it is taken up again when it is short.
 */
static void share_models_resolve_file(struct filesystem *fs, uint64_t ino)
{
    struct share_models *models = fs->share_models;
    pthread_mutex_lock(&models->lock);
    bool later = models->count >= SHARE_MODELS_WAITING;
    if (later && ino <= models->found)
        models->found = ino - 1;
    else if (!later && !models->finding && ino > models->found)
        models->found = ino;
    models->finding |= later;
    pthread_mutex_unlock(&models->lock);
    if (!later)
        share_models_find_directories(fs, ino, SHARE_MODELS_QUIET_NS);
}

/* The files that were touched; with the lock held, which is given up meanwhile. */
static void share_models_resolve(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    cleanup_ids struct ids files = models->files;
    models->files = (struct ids){0};
    models->busy = true;
    pthread_mutex_unlock(&models->lock);
    for (size_t i = 0; i < files.count && !share_models_stops(fs); i++) {
        if (i == 0 || files.at[i] != files.at[i - 1])
            share_models_resolve_file(fs, files.at[i]);
    }
    pthread_mutex_lock(&models->lock);
    models->busy = false;
}

/* With the lock held, which is given up meanwhile. */
static void share_models_idle(struct filesystem *fs, int64_t until)
{
    struct share_models *models = fs->share_models;
    if (models->count == 0 && clock_monotonic() - models->noted_at >= SHARE_MODELS_NOTE_NS) {
        pthread_mutex_unlock(&models->lock);
        share_models_note(fs);
        pthread_mutex_lock(&models->lock);
        if (models->files.count > 0 || models->waiting || atomic_load(&models->stopping))
            return;
    }
    struct timespec time = clock_to_timespec(until);
    if (until != INT64_MAX)
        pthread_cond_clockwait(&models->wake, &models->lock, CLOCK_MONOTONIC, &time);
    else
        wait_signal(&models->wake, &models->lock);
}

/* One thing to do, or one sleep; with the lock held. */
static void share_models_step(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    int64_t until;
    if (models->files.count > 0) {
        share_models_resolve(fs);
        return;
    }
    struct share_models_entry *entry = share_models_take(models, &until);
    if (entry)
        share_models_visit(fs, entry);
    else if (models->finding && models->count == 0)
        share_models_take_up(fs);
    else
        share_models_idle(fs, until);
}

static void *share_models_run(void *context)
{
    struct filesystem *fs = context;
    struct share_models *models = fs->share_models;
    /* Of this thread only: Linux keeps a nice value for each. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), SHARE_MODELS_NICE);
    pthread_mutex_lock(&models->lock);
    while (!atomic_load(&models->stopping))
        share_models_step(fs);
    bool idle = models->count == 0 && models->files.count == 0 && !models->finding;
    pthread_mutex_unlock(&models->lock);
    if (idle)
        share_models_note(fs);
    return NULL;
}

errint share_models_start(struct filesystem *fs)
{
    if (fs->options->sharing == FS_SHARING_OFF || fs->options->read_only)
        return 0;
    struct share_models *models = calloc(1, sizeof *models);
    if (!models)
        return -ENOMEM;
    pthread_mutex_init(&models->lock, NULL);
    pthread_cond_init(&models->wake, NULL);
    models->finding = true;
    fs->share_models = models;
    errint error = share_models_read_noted(fs);
    if (!error)
        error = -pthread_create(&models->thread, NULL, share_models_run, fs);
    if (error) {
        fs->share_models = NULL;
        free(models);
        return error;
    }
    pthread_setname_np(models->thread, "share-models");
    return 0;
}

void share_models_stop(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return;
    atomic_store(&models->stopping, true);
    pthread_mutex_lock(&models->lock);
    pthread_cond_signal(&models->wake);
    pthread_mutex_unlock(&models->lock);
    pthread_join(models->thread, NULL);
    fs->share_models = NULL;
    while (models->waiting) {
        struct share_models_entry *entry = models->waiting;
        models->waiting = entry->next;
        free(entry);
    }
    ids_release(&models->files);
    pthread_cond_destroy(&models->wake);
    pthread_mutex_destroy(&models->lock);
    free(models);
}
