/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping what is about to be written over, and the list of what is kept. */
#include "fs/rewrite.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "fs/checkpoints.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/keep_remove.h"
#include "fs/policy.h"
#include "fs/trash.h"
#include "fs/writers.h"

enum {
    REWRITE_QUIET = 16,   /* directories that are remembered as of no interest */
    REWRITE_WRITERS = 16, /* processes of one rewrite whose end is watched */
    REWRITE_NAMES = 8,    /* hard links of a file that are looked at */
    REWRITE_LEVELS = 512,
};

struct rewrite_writer {
    pid_t thread; /* of its last request */
    pid_t process;
    int fd; /* process_watch */
};

struct rewrite_entry {
    struct meta_kept kept;
    uint64_t touches;
    struct rewrite_writer writers[REWRITE_WRITERS];
    size_t writer_count;
    bool strangers; /* the end of somebody who changed something is not known */
};

struct rewrite {
    atomic_size_t any; /* entries */
    pthread_mutex_t lock;
    struct rewrite_entry *at; /* the oldest first */
    size_t count, capacity;
    struct ids dropped; /* kept versions that are to be taken apart */
    uint64_t quiet[REWRITE_QUIET];
    size_t next_quiet;
    uint64_t generation; /* of `quiet` */
    atomic_bool checked; /* what earlier daemons left */
};

/* -- the list; with the lock ------------------------------------------------------------------------------
 */

static struct rewrite_entry *rewrite_entry_of(const struct rewrite *rewrite, uint64_t checkpoint)
{
    for (size_t i = 0; i < rewrite->count; i++) {
        if (rewrite->at[i].kept.checkpoint == checkpoint)
            return &rewrite->at[i];
    }
    return NULL;
}

static errint rewrite_reserve(struct rewrite *rewrite)
{
    if (rewrite->count < rewrite->capacity)
        return 0;
    size_t capacity = rewrite->capacity ? 2 * rewrite->capacity : 8;
    struct rewrite_entry *grown = reallocarray(rewrite->at, capacity, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    rewrite->at = grown;
    rewrite->capacity = capacity;
    return 0;
}

static struct rewrite_entry *rewrite_append(struct rewrite *rewrite, const struct meta_kept *kept)
{
    struct rewrite_entry *entry = &rewrite->at[rewrite->count++];
    *entry = (struct rewrite_entry){.kept = *kept};
    atomic_store(&rewrite->any, rewrite->count);
    return entry;
}

static void rewrite_end_entry(struct rewrite *rewrite, struct rewrite_entry *entry)
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

static bool rewrite_ended_well(const struct rewrite_entry *entry)
{
    bool well = !entry->strangers && entry->writer_count > 0;
    for (size_t i = 0; i < entry->writer_count && well; i++)
        well = process_ended_well(entry->writers[i].fd);
    return well;
}

/* Its space is given back by whoever looks next. */
static void rewrite_drop(struct filesystem *fs, struct rewrite_entry *entry)
{
    struct rewrite *rewrite = fs->rewrite;
    uint64_t ino = entry->kept.ino;
    errint error = meta_kept_drop(fs->meta, &entry->kept, clock_file_time());
    if (error) {
        log_warning("inode %llu: what was kept of it cannot be dropped now: %s",
                    (unsigned long long)entry->kept.checkpoint, strerror(-error));
        return;
    }
    rewrite_end_entry(rewrite, entry);
    if (ids_append(&rewrite->dropped, ino) < 0)
        log_warning("no memory to remove what was kept now; the next mount does it");
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

/* Returns whether the directory is of no interest as long as the checkpoint's row stays. */
static bool rewrite_before(struct filesystem *fs, const struct meta_checkpoint *row,
                           enum rewrite_change change, pid_t thread)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, row->directory);
    bool keeps = !entry && rewrite_may_be_kept(row) && rewrite_is_due(row, change);
    if (entry)
        rewrite_note_writer(entry, thread);
    errint error = keeps ? rewrite_keep(fs, row, thread) : 0;
    pthread_mutex_unlock(&rewrite->lock);
    if (keeps)
        rewrite_tell(fs, row, error);
    if (keeps && !error) {
        checkpoints_begin_rewrite(fs, row->directory);
        /* A successor must know of it, too. */
        writers_note_now(fs, row->run, thread);
    }
    return error || (!entry && !rewrite_may_be_kept(row));
}

void rewrite_before_name(struct filesystem *fs, uint64_t directory, enum rewrite_change change, pid_t thread)
{
    struct meta_checkpoint row;
    uint64_t generation;
    if (!fs->rewrite || rewrite_is_quiet(fs->rewrite, directory, &generation))
        return;
    uint64_t checkpoint = checkpoints_root(fs, directory);
    if (!checkpoint || checkpoints_get(fs, checkpoint, &row) < 0 || rewrite_before(fs, &row, change, thread))
        rewrite_set_quiet(fs->rewrite, directory, generation);
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
        rewrite_before_name(fs, names[i].parent, REWRITE_CHANGES, thread);
}

/* -- looks ------------------------------------------------------------------------------------------------
 */

bool rewrite_find(struct filesystem *fs, uint64_t checkpoint, struct rewrite_seen *out)
{
    struct rewrite *rewrite = fs->rewrite;
    *out = (struct rewrite_seen){0};
    if (!rewrite || atomic_load(&rewrite->any) == 0)
        return false;
    pthread_mutex_lock(&rewrite->lock);
    const struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        *out = (struct rewrite_seen){entry->kept, entry->touches, rewrite_ended_well(entry)};
    pthread_mutex_unlock(&rewrite->lock);
    return entry != NULL;
}

/* The checkpoints that have a kept version. */
static errint rewrite_list(struct rewrite *rewrite, struct ids *out)
{
    errint error = 0;
    pthread_mutex_lock(&rewrite->lock);
    for (size_t i = 0; i < rewrite->count && !error; i++)
        error = ids_append(out, rewrite->at[i].kept.checkpoint);
    pthread_mutex_unlock(&rewrite->lock);
    return error;
}

bool rewrite_is_in(struct filesystem *fs, uint64_t run)
{
    cleanup_ids struct ids checkpoints = {0};
    if (!rewrite_has_any(fs))
        return false;
    if (rewrite_list(fs->rewrite, &checkpoints) < 0)
        return true;
    for (size_t i = 0; i < checkpoints.count; i++) {
        struct meta_checkpoint row;
        if (checkpoints_get(fs, checkpoints.at[i], &row) == 0 && row.run == run)
            return true;
    }
    return false;
}

void rewrite_finish(struct filesystem *fs, const struct rewrite_seen *seen)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, seen->kept.checkpoint);
    if (entry && entry->touches == seen->touches && entry->kept.ino == seen->kept.ino)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

void rewrite_returned(struct filesystem *fs, uint64_t checkpoint)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        rewrite_end_entry(rewrite, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

/* Whether a path on the mount leads to it. An error: it may. */
static bool rewrite_is_reached(struct filesystem *fs, uint64_t directory)
{
    for (int level = 0; level < REWRITE_LEVELS && directory != META_ROOT_INO; level++) {
        struct meta_name name;
        size_t count = 0;
        errint error = meta_find_names(fs->meta, directory, NULL, &name, 1, &count);
        if (error || count == 0)
            return error && error != -ENOENT;
        directory = name.parent;
    }
    return true;
}

void rewrite_check(struct filesystem *fs, uint64_t checkpoint)
{
    struct rewrite *rewrite = fs->rewrite;
    struct rewrite_seen seen;
    if (!rewrite_find(fs, checkpoint, &seen) || rewrite_is_reached(fs, checkpoint))
        return;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

static bool rewrite_to_trash(struct filesystem *fs, const struct meta_kept_removal *removal)
{
    bool keeps;
    if (policy_trash(fs, removal->parent, &keeps, NULL) < 0 || !keeps)
        return false;
    errint error = meta_kept_remove(fs->meta, removal);
    if (error)
        log_warning("%s: what was kept of it cannot go to the trash: %s", removal->name, strerror(-error));
    return !error;
}

void rewrite_removed(struct filesystem *fs, uint64_t checkpoint, uint64_t parent, const char *name,
                     uint32_t remover)
{
    struct rewrite *rewrite = fs->rewrite;
    struct rewrite_seen seen;
    if (!rewrite_find(fs, checkpoint, &seen))
        return;
    const struct meta_kept_removal removal = {seen.kept,    parent,  name,
                                              strlen(name), remover, clock_file_time()};
    bool trashed = false;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        trashed = rewrite_to_trash(fs, &removal);
    if (trashed)
        rewrite_end_entry(rewrite, entry);
    else if (entry)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
    if (trashed)
        trash_note_entry(fs);
}

static void rewrite_check_all(struct filesystem *fs)
{
    cleanup_ids struct ids checkpoints = {0};
    if (rewrite_list(fs->rewrite, &checkpoints) < 0)
        return;
    for (size_t i = 0; i < checkpoints.count; i++)
        rewrite_check(fs, checkpoints.at[i]);
    atomic_store(&fs->rewrite->checked, true);
}

static uint64_t rewrite_next_dropped(struct rewrite *rewrite)
{
    pthread_mutex_lock(&rewrite->lock);
    uint64_t ino = rewrite->dropped.count > 0 ? rewrite->dropped.at[--rewrite->dropped.count] : 0;
    pthread_mutex_unlock(&rewrite->lock);
    return ino;
}

void rewrite_tidy(struct filesystem *fs)
{
    if (!fs->rewrite)
        return;
    if (!atomic_load(&fs->rewrite->checked))
        rewrite_check_all(fs);
    for (uint64_t ino = rewrite_next_dropped(fs->rewrite); ino; ino = rewrite_next_dropped(fs->rewrite)) {
        errint error = keep_remove_hidden(fs, ino);
        if (error)
            log_warning("inode %llu: its space is given back at the next start: %s", (unsigned long long)ino,
                        strerror(-error));
    }
}

/* -- space ------------------------------------------------------------------------------------------------
 */

bool rewrite_has_any(struct filesystem *fs)
{
    return fs->rewrite && atomic_load(&fs->rewrite->any) > 0;
}

bool rewrite_give_up(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    cleanup_free char *path = NULL;
    if (!rewrite_has_any(fs))
        return false;
    pthread_mutex_lock(&rewrite->lock);
    size_t before = rewrite->count;
    struct meta_kept kept = before > 0 ? rewrite->at[0].kept : (struct meta_kept){0};
    if (before > 0)
        rewrite_drop(fs, &rewrite->at[0]);
    bool given = rewrite->count < before;
    pthread_mutex_unlock(&rewrite->lock);
    if (!given)
        return false;
    if (meta_path(fs->meta, kept.checkpoint, &path) == 0)
        log_warning("path=\"%s\": what it was before it is written over is given up: the space is needed",
                    path);
    rewrite_tidy(fs);
    discard_flush(fs);
    return true;
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

static errint rewrite_load(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    cleanup_free struct meta_kept *rows = NULL;
    size_t count = 0;
    errint error = meta_kept_read(fs->meta, &rows, &count);
    for (size_t i = 0; i < count && !error; i++) {
        error = rewrite_reserve(rewrite);
        if (error)
            break;
        /* How those end who changed something then is not known. */
        rewrite_append(rewrite, &rows[i])->strangers = true;
        checkpoints_touch_directory(fs, rows[i].checkpoint);
    }
    return error;
}

errint rewrite_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    fs->rewrite = calloc(1, sizeof *fs->rewrite);
    if (!fs->rewrite)
        return -ENOMEM;
    pthread_mutex_init(&fs->rewrite->lock, NULL);
    return rewrite_load(fs);
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
