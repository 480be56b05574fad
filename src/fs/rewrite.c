/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping what is about to be written over, and the list of what is kept. */
#include "fs/rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/grow.h"
#include "base/log.h"
#include "base/process.h"
#include "ckpt/rewritten.h"
#include "fs/checkpoints.h"
#include "fs/filesystem.h"
#include "fs/rewrite_internal.h"
#include "fs/rewrite_judge.h"
#include "fs/writers.h"

enum { REWRITE_NAMES = 8 /* hard links of a file that are looked at */ };

/* -- the list; with the lock ------------------------------------------------------------------------------
 */

struct rewrite_entry *rewrite_entry_of(const struct rewrite *rewrite, uint64_t checkpoint)
{
    for (size_t i = 0; i < rewrite->count; i++) {
        if (rewrite->at[i].kept.checkpoint == checkpoint)
            return &rewrite->at[i];
    }
    return NULL;
}

static errint rewrite_reserve(struct rewrite *rewrite)
{
    return grow_reserve(rewrite->at, rewrite->capacity, rewrite->count + 1) ? 0 : -ENOMEM;
}

static struct rewrite_entry *rewrite_append(struct rewrite *rewrite, const struct meta_kept *kept)
{
    struct rewrite_entry *entry = &rewrite->at[rewrite->count++];
    *entry = (struct rewrite_entry){.kept = *kept};
    atomic_store(&rewrite->any, rewrite->count);
    return entry;
}

void rewrite_end_entry(struct rewrite *rewrite, struct rewrite_entry *entry)
{
    for (size_t i = 0; i < entry->writer_count; i++)
        close(entry->writers[i].fd);
    size_t behind = (size_t)(rewrite->at + rewrite->count - (entry + 1));
    memmove(entry, entry + 1, behind * sizeof *entry);
    atomic_store(&rewrite->any, --rewrite->count);
}

/* The process that the thread belongs to is watched from now on. */
static errint rewrite_watch(struct rewrite_entry *entry, pid_t thread)
{
    struct process process;
    errint error = thread > 0 ? process_of_thread(thread, &process) : -ESRCH;
    if (error)
        return error;
    for (size_t i = 0; i < entry->writer_count; i++) {
        if (entry->writers[i].process == process.pid) {
            entry->writers[i].thread = thread;
            return 0;
        }
    }
    int fd = entry->writer_count < REWRITE_WRITERS ? process_watch(&process) : -EMFILE;
    if (fd < 0)
        return fd;
    entry->writers[entry->writer_count++] = (struct rewrite_writer){thread, process.pid, fd};
    return 0;
}

static void rewrite_note_writer(struct rewrite_entry *entry, pid_t thread)
{
    bool known = entry->strangers;
    entry->touches++;
    for (size_t i = 0; i < entry->writer_count && !known; i++)
        known = entry->writers[i].thread == thread;
    if (!known && rewrite_watch(entry, thread) < 0)
        entry->strangers = true;
}

/* -- directories of no interest ---------------------------------------------------------------------------
 */

static bool rewrite_is_quiet(struct rewrite *rewrite, uint64_t directory, uint64_t *generation)
{
    bool quiet = false;
    pthread_mutex_lock(&rewrite->lock);
    *generation = rewrite->generation;
    for (size_t i = 0; i < REWRITE_QUIET && !quiet; i++)
        quiet = rewrite->quiet[i] == directory;
    pthread_mutex_unlock(&rewrite->lock);
    return quiet;
}

static void rewrite_set_quiet(struct rewrite *rewrite, uint64_t directory, uint64_t generation)
{
    pthread_mutex_lock(&rewrite->lock);
    if (generation == rewrite->generation) {
        rewrite->quiet[rewrite->next_quiet] = directory;
        rewrite->next_quiet = (rewrite->next_quiet + 1) % REWRITE_QUIET;
    }
    pthread_mutex_unlock(&rewrite->lock);
}

void rewrite_forget_directories(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    if (!rewrite)
        return;
    pthread_mutex_lock(&rewrite->lock);
    memset(rewrite->quiet, 0, sizeof rewrite->quiet);
    rewrite->generation++;
    pthread_mutex_unlock(&rewrite->lock);
}

/* -- before a change --------------------------------------------------------------------------------------
 */

/* Whether it may ever be torn, as it is. */
static bool rewrite_may_be_kept(const struct meta_checkpoint *row)
{
    return (row->marks & CHECKPOINT_WHOLE) && !(row->marks & CHECKPOINT_COPY) && row->run != row->directory;
}

/* A model without the rest of a checkpoint may be a save under way: what is added only belongs to it. */
static bool rewrite_is_due(const struct meta_checkpoint *row, enum rewrite_change change)
{
    return change == REWRITE_CHANGES || row->state != CHECKPOINT_WEIGHTS;
}

/* The lock is held, so that nobody goes on before it is done. */
static errint rewrite_keep(struct filesystem *fs, const struct meta_checkpoint *row, pid_t thread)
{
    struct rewrite *rewrite = fs->rewrite;
    struct meta_kept kept;
    const struct meta_kept_take wanted = {.checkpoint = row->directory,
                                          .partial = row->state == CHECKPOINT_WEIGHTS,
                                          .bytes = row->bytes,
                                          .now = clock_file_time()};
    errint error = rewrite_reserve(rewrite);
    if (!error)
        error = fault_hit("fs.keep");
    if (!error)
        error = meta_kept_take(fs->meta, &wanted, &kept);
    if (error)
        return error;
    fault_hit("fs.kept"); /* too late for an error: it is there to kill */
    rewrite_note_writer(rewrite_append(rewrite, &kept), thread);
    return 0;
}

static void rewrite_tell(struct filesystem *fs, const struct meta_checkpoint *row, errint error)
{
    cleanup_free char *path = NULL;
    if (meta_path(fs->meta, row->directory, &path) < 0)
        path = NULL;
    if (error)
        log_warning("path=\"%s\" step=%lld: it is being written over, and what it was cannot be kept: %s",
                    path ? path : "?", (long long)row->step, strerror(-error));
    else
        log_info("path=\"%s\" step=%lld: it is being written over; what it was is kept until that is done",
                 path ? path : "?", (long long)row->step);
}

/* What is about to happen in a directory. */
struct rewrite_event {
    enum rewrite_change change;
    uint64_t ino; /* of the file that is changed; 0 where a name is made */
    pid_t thread;
};

/* A file that was made since the checkpoint is kept is none that it was complete with: numbers only grow. */
static bool rewrite_is_needed(const struct rewrite_entry *entry, const struct rewrite_event *event)
{
    return event->change == REWRITE_CHANGES && (!entry || event->ino < entry->kept.ino);
}

/* Whether it is complete, and none that others write in as well, as the run's own directory. */
static bool rewrite_may_end(const struct meta_checkpoint *row)
{
    return row->state == CHECKPOINT_COMPLETE && row->run != row->directory;
}

/* Returns whether the directory is of no interest as long as the checkpoint's row stays. */
static bool rewrite_before(struct filesystem *fs, const struct meta_checkpoint *row,
                           const struct rewrite_event *event)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, row->directory);
    bool keeps = !entry && rewrite_may_be_kept(row) && rewrite_is_due(row, event->change);
    bool needed = rewrite_is_needed(entry, event), kept = entry;
    if (entry)
        rewrite_note_writer(entry, event->thread);
    errint error = keeps ? rewrite_keep(fs, row, event->thread) : 0;
    pthread_mutex_unlock(&rewrite->lock);
    if (keeps)
        rewrite_tell(fs, row, error);
    /* A look under way may find it complete once more while this begins. */
    if ((keeps && !error) || (needed && (kept || rewrite_may_end(row))))
        checkpoints_begin_rewrite(fs, row->directory, needed);
    if (keeps && !error)
        /* A successor must know of it, too. */
        writers_note_now(fs, row->run, event->thread);
    /* Where it cannot be kept, it still is complete no more by a change of what is needed. */
    return error ? needed || !rewrite_may_end(row)
                 : !kept && !rewrite_may_be_kept(row) && !rewrite_may_end(row);
}

static void rewrite_before_name(struct filesystem *fs, uint64_t directory, const struct rewrite_event *event)
{
    struct meta_checkpoint row;
    uint64_t generation;
    if (!fs->rewrite || rewrite_is_quiet(fs->rewrite, directory, &generation))
        return;
    uint64_t checkpoint = checkpoints_root(fs, directory);
    if (!checkpoint || checkpoints_get(fs, checkpoint, &row) < 0 || rewrite_before(fs, &row, event))
        rewrite_set_quiet(fs->rewrite, directory, generation);
}

void rewrite_before_addition(struct filesystem *fs, uint64_t directory, pid_t thread)
{
    rewrite_before_name(fs, directory, &(struct rewrite_event){.change = REWRITE_ADDS, .thread = thread});
}

void rewrite_before_replacement(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino,
                                pid_t thread)
{
    enum rewrite_change change = rewritten_is_needed(name) ? REWRITE_CHANGES : REWRITE_EDITS;
    rewrite_before_name(fs, directory, &(struct rewrite_event){change, ino, thread});
}

void rewrite_before_file(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    struct meta_name names[REWRITE_NAMES];
    size_t count = 0;
    if (!fs->rewrite || !checkpoints_has_any(fs))
        return;
    if (meta_find_names(fs->meta, ino, NULL, names, REWRITE_NAMES, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++)
        rewrite_before_replacement(fs, names[i].parent, names[i].bytes, ino, thread);
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

static errint rewrite_load(struct filesystem *fs, struct rewrite *rewrite)
{
    cleanup_free struct meta_kept *rows = NULL;
    size_t count = 0;
    errint error = meta_kept_read(fs->meta, &rows, &count);
    for (size_t i = 0; i < count && !error; i++) {
        error = rewrite_reserve(rewrite);
        /* How those end who changed something then is not known. */
        if (!error)
            rewrite_append(rewrite, &rows[i])->strangers = true;
    }
    return error;
}

errint rewrite_prepare(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    fs->rewrite = calloc(1, sizeof *fs->rewrite);
    if (!fs->rewrite)
        return -ENOMEM;
    pthread_mutex_init(&fs->rewrite->lock, NULL);
    return rewrite_load(fs, fs->rewrite);
}

void rewrite_start(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    cleanup_ids struct ids checkpoints = {0};
    if (!rewrite)
        return;
    if (rewrite_list(rewrite, &checkpoints) < 0)
        log_warning("no memory to look at what is being written over now; the next change of it does that");
    for (size_t i = 0; i < checkpoints.count; i++) {
        struct meta_checkpoint row;
        struct rewrite_seen seen;
        bool adds = false;
        /* Where it is not known, it is none to send readers to. */
        if (rewrite_find(fs, checkpoints.at[i], &seen) && rewrite_only_adds(fs, &seen, &adds) < 0)
            adds = false;
        if (checkpoints_get(fs, checkpoints.at[i], &row) == 0 && row.state == CHECKPOINT_COMPLETE)
            checkpoints_begin_rewrite(fs, checkpoints.at[i], !adds);
        else
            checkpoints_touch_directory(fs, checkpoints.at[i]);
    }
}

void rewrite_release(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    if (!rewrite)
        return;
    fs->rewrite = NULL;
    while (rewrite->count > 0)
        rewrite_end_entry(rewrite, &rewrite->at[rewrite->count - 1]);
    free(rewrite->at);
    ids_release(&rewrite->dropped);
    pthread_mutex_destroy(&rewrite->lock);
    free(rewrite);
}
