/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that looks for what can be assembled. */
#include "fs/assembler.h"

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
#include "fs/assemble_build.h"
#include "fs/assemble_former.h"
#include "fs/assemble_request.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/policy.h"
#include "fs/trees.h"
#include "fs/writeback.h"
#include "meta/assembled.h"

/* A save is many files: a directory is looked at when nothing was sealed in it for so long. */
#define ASSEMBLER_QUIET_NS (CLOCK_NS_PER_SECOND / 2)
/* But not put off for longer than this. */
#define ASSEMBLER_LATEST_NS (10 * CLOCK_NS_PER_SECOND)
/* While a file is written, or not on stable storage; doubled each time. */
#define ASSEMBLER_RETRY_NS     (CLOCK_NS_PER_SECOND / 2)
#define ASSEMBLER_RETRY_MAX_NS (30 * CLOCK_NS_PER_SECOND)
/* While only some of an older save's shards were saved over: each new one brings the directory back anyway.
 */
#define ASSEMBLER_MIXED_NS (60 * CLOCK_NS_PER_SECOND)
/* What is asked for goes before all that is due, and was not put off as long. */
#define ASSEMBLER_AHEAD_NS (60 * CLOCK_NS_PER_SECOND)
/* After a look that read, so many times as long as it took is rest, up to this. */
#define ASSEMBLER_REST_MAX_NS (2 * CLOCK_NS_PER_SECOND)
/* Files up to this inode number were looked at; kept in the database whenever all were. */
#define ASSEMBLER_SETTING "assembled-up-to"
/* How often that is written at most. */
#define ASSEMBLER_NOTE_NS (60 * CLOCK_NS_PER_SECOND)
/* Directories whose policy was changed, until all below them was looked at; in the database too. */
#define ASSEMBLER_TREES_SETTING "assemble-below"

enum {
    ASSEMBLER_NICE = 10,
    ASSEMBLER_REST = 4,
    ASSEMBLER_NAMES = 8,      /* of a file with many names, so many are looked after */
    ASSEMBLER_WAITING = 2048, /* from so many directories on, files are found again by their numbers */
};

struct assembler_entry {
    struct assembler_entry *next;
    uint64_t directory;
    int64_t due, latest, delay;
};

struct assembler {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    struct ids files; /* whose directories are to be put on the list */
    struct assembler_entry *waiting;
    size_t count; /* of those, and of the one that is looked at */
    bool busy;
    atomic_bool stopping;
    uint64_t found; /* files up to this number were taken up; the thread's own */
    uint64_t noted; /* what the database has */
    int64_t noted_at;
    bool finding; /* there may be more files of before this start */
    struct trees trees;
    struct assemble_requests *requests;
    bool hurry; /* somebody asks, and waits */
};

static bool assembler_stops(struct filesystem *fs)
{
    return atomic_load(&fs->assembler->stopping);
}

/* -- the queue --------------------------------------------------------------------------------------------
 */

/* To be looked at after `wait`; `delay`: and if it has to wait then, so much longer. The lock is held. */
static void assembler_enlist(struct assembler *assembler, uint64_t directory, int64_t wait, int64_t delay)
{
    int64_t now = clock_monotonic();
    struct assembler_entry *entry = assembler->waiting;
    while (entry && entry->directory != directory)
        entry = entry->next;
    if (entry) {
        entry->due = now + wait < entry->latest ? now + wait : entry->latest;
        return;
    }
    entry = malloc(sizeof *entry);
    if (!entry)
        return; /* the next file that is sealed in it, or the next start, brings it back */
    *entry = (struct assembler_entry){.next = assembler->waiting,
                                      .directory = directory,
                                      .due = now + wait,
                                      .latest = now + ASSEMBLER_LATEST_NS,
                                      .delay = delay};
    assembler->waiting = entry;
    assembler->count++;
}

void assembler_touch(struct filesystem *fs, uint64_t ino)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return;
    pthread_mutex_lock(&assembler->lock);
    if (ids_append(&assembler->files, ino) == 0)
        pthread_cond_signal(&assembler->wake);
    pthread_mutex_unlock(&assembler->lock);
}

/* What is looked at reads the namespace: so the thread finds the directory above by itself. */
void assembler_touch_directory(struct filesystem *fs, uint64_t directory)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return;
    pthread_mutex_lock(&assembler->lock);
    assembler_enlist(assembler, directory, ASSEMBLER_QUIET_NS, ASSEMBLER_RETRY_NS);
    pthread_cond_signal(&assembler->wake);
    pthread_mutex_unlock(&assembler->lock);
}

void assembler_look_below(struct filesystem *fs, uint64_t directory)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return;
    errint error = trees_add(fs, &assembler->trees, directory);
    if (error)
        log_warning("inode %llu: what is below it is not looked at for models: %s",
                    (unsigned long long)directory, strerror(-error));
    pthread_mutex_lock(&assembler->lock);
    pthread_cond_signal(&assembler->wake);
    pthread_mutex_unlock(&assembler->lock);
}

void assembler_move_directory(struct filesystem *fs, uint64_t directory, uint64_t from, uint64_t to)
{
    enum policy_assembling before, after;
    if (from != to && policy_assemble(fs, from, &before, NULL) == 0 &&
        policy_assemble(fs, to, &after, NULL) == 0 && before != after)
        assembler_look_below(fs, directory);
}

errint assembler_request(struct filesystem *fs, uint64_t directory)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return -EROFS;
    errint error = assemble_requests_add(assembler->requests, directory);
    if (error)
        return error;
    pthread_mutex_lock(&assembler->lock);
    assembler->hurry = true;
    assembler_enlist(assembler, directory, -ASSEMBLER_AHEAD_NS, ASSEMBLER_RETRY_NS);
    pthread_cond_signal(&assembler->wake);
    pthread_mutex_unlock(&assembler->lock);
    return 0;
}

errint assembler_tell(struct filesystem *fs, uint64_t directory, struct control_assemble *answer)
{
    if (!fs->assembler)
        return -EROFS;
    assemble_requests_tell(fs->assembler->requests, directory, answer);
    return 0;
}

size_t assembler_waiting(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return 0;
    pthread_mutex_lock(&assembler->lock);
    size_t waiting = assembler->count + assembler->files.count + assembler->busy + assembler->finding +
                     trees_left(&assembler->trees);
    pthread_mutex_unlock(&assembler->lock);
    return waiting;
}

/* The directories of a file's names, and those above them: a checkpoint's shards may lie one level below it.
 */
static void assembler_find_directories(struct filesystem *fs, uint64_t ino, int64_t wait)
{
    struct meta_name names[ASSEMBLER_NAMES];
    size_t count;
    if (meta_find_names(fs->meta, ino, NULL, names, ASSEMBLER_NAMES, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        uint64_t above;
        bool more = names[i].parent != META_ROOT_INO && meta_parent(fs->meta, names[i].parent, &above) == 0;
        pthread_mutex_lock(&fs->assembler->lock);
        assembler_enlist(fs->assembler, names[i].parent, wait, ASSEMBLER_RETRY_NS);
        if (more)
            assembler_enlist(fs->assembler, above, wait, ASSEMBLER_RETRY_NS);
        pthread_mutex_unlock(&fs->assembler->lock);
    }
}

/* The entry that is due first, taken off; NULL, and `until` says when. The lock is held. */
static struct assembler_entry *assembler_take(struct assembler *assembler, int64_t *until)
{
    struct assembler_entry **first = NULL;
    for (struct assembler_entry **link = &assembler->waiting; *link; link = &(*link)->next) {
        if (!first || (*link)->due < (*first)->due)
            first = link;
    }
    *until = first ? (*first)->due : INT64_MAX;
    if (!first || (*first)->due > clock_monotonic())
        return NULL;
    struct assembler_entry *entry = *first;
    *first = entry->next;
    assembler->count--;
    return entry;
}

/* -- what an earlier daemon did not come to ------------------------------------------------------------
 */

/* With the lock held, which is given up meanwhile. */
static void assembler_take_up(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    cleanup_ids struct ids files = {0};
    pthread_mutex_unlock(&assembler->lock);
    int more = meta_find_files_after(fs->meta, &assembler->found, &files);
    if (more < 0)
        log_warning("directories of before this start are not looked at for models: %s", strerror(-more));
    for (size_t i = 0; i < files.count; i++)
        assembler_find_directories(fs, files.at[i], 0);
    pthread_mutex_lock(&assembler->lock);
    assembler->finding = more > 0;
}

/* All that there was is looked at: the next start need not do it again. Unless its mount's option lets it
 * assemble what this one's does not. */
static void assembler_note(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    char text[24];
    trees_finish(fs, &assembler->trees);
    if (assembler->found == assembler->noted || fs->options->assemble > POLICY_ASSEMBLING_VIEW)
        return;
    snprintf(text, sizeof text, "%" PRIu64, assembler->found);
    errint error = meta_setting_put(fs->meta, ASSEMBLER_SETTING, text);
    if (error && error != -ENOSPC)
        log_warning("the next start looks at directories again for models: %s", strerror(-error));
    assembler->noted = assembler->found;
    assembler->noted_at = clock_monotonic();
}

static errint assembler_read_noted(struct filesystem *fs)
{
    cleanup_free char *value = NULL;
    errint error = meta_setting_get(fs->meta, ASSEMBLER_SETTING, &value);
    if (!error)
        fs->assembler->found = strtoull(value, NULL, 10);
    fs->assembler->noted = fs->assembler->found;
    return error == -ENOENT ? 0 : error;
}

/* -- directories whose policy was changed -----------------------------------------------------------------
 */

/* One of them; with the lock held, which is given up meanwhile. */
static void assembler_walk(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    assembler->busy = true;
    pthread_mutex_unlock(&assembler->lock);
    uint64_t directory = trees_next(fs, &assembler->trees);
    pthread_mutex_lock(&assembler->lock);
    if (directory)
        assembler_enlist(assembler, directory, 0, ASSEMBLER_RETRY_NS);
    assembler->busy = false;
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

/* Somebody has turned it off for the directory. */
static errint assembler_withdraw(struct filesystem *fs, uint64_t directory)
{
    bool changed = false;
    errint error = meta_assembled_withdraw(fs->meta, directory, &changed);
    if (changed) {
        writeback_kick(fs); /* that one removes what was withdrawn */
        events_emit(fs, &(struct event){.kind = EVENT_WITHDRAWN,
                                        .ino = directory,
                                        .step = -1,
                                        .bytes = -1,
                                        .reason = "the policy is assemble=off"});
    }
    return error;
}

static errint assembler_refuse(struct assemble_asked *asked)
{
    snprintf(asked->reason, sizeof asked->reason, "the policy of this directory is assemble=off");
    return -EPERM;
}

static errint assembler_look(struct filesystem *fs, uint64_t directory, struct assemble_asked *asked)
{
    struct meta_inode row;
    enum policy_assembling assembling;
    bool set;
    errint error = meta_get(fs->meta, directory, &row);
    if (!error && (!S_ISDIR(row.mode) || row.nlink == 0))
        error = -ENOENT;
    if (error)
        return error == -ENOENT && !asked ? 0 : error;
    error = policy_assemble(fs, directory, &assembling, &set);
    if (error)
        return error;
    if (assembling == POLICY_ASSEMBLING_OFF && set)
        return asked ? assembler_refuse(asked) : assembler_withdraw(fs, directory);
    int holds = assemble_check(fs, directory);
    bool unasked = assembling == POLICY_ASSEMBLING_AUTO || assembling == POLICY_ASSEMBLING_VIEW;
    if (holds || (!asked && !unasked))
        return holds < 0 ? holds : 0;
    if (atomic_load(&fs->disk_full))
        return asked ? -ENOSPC : -EBUSY;
    return assemble_build(fs, directory, asked, assembler_stops);
}

static void assembler_progress(void *context, uint64_t directory, int64_t done, int64_t total)
{
    assemble_requests_progress(context, directory, done, total);
}

/* What was asked for: who asks hears how it ended, and it is taken up again only where files are written
 * still. */
static errint assembler_look_asked(struct filesystem *fs, uint64_t directory)
{
    struct assemble_requests *requests = fs->assembler->requests;
    struct assemble_asked asked = {.progress = assembler_progress, .context = requests};
    errint error = assembler_look(fs, directory, &asked);
    if (error == -ECANCELED)
        return error;
    if (error == -EBUSY) {
        assemble_requests_wait(requests, directory, "files are written, or not on stable storage yet");
        return error;
    }
    if (error == -EAGAIN)
        assemble_requests_finish(requests, directory,
                                 "a save over an older one seems to be under way: some shards are of each");
    else if (error == -EACCES)
        assemble_requests_finish(requests, directory, "the shards are of several owners");
    else
        assemble_requests_finish(requests, directory,
                                 error && !asked.reason[0] ? strerror(-error) : asked.reason);
    return 0;
}

static void assembler_rest(struct assembler *assembler, int64_t begun)
{
    int64_t now = clock_monotonic(), rest = (now - begun) * ASSEMBLER_REST;
    struct timespec until =
        clock_to_timespec(now + (rest < ASSEMBLER_REST_MAX_NS ? rest : ASSEMBLER_REST_MAX_NS));
    while (!atomic_load(&assembler->stopping) && !assembler->hurry &&
           pthread_cond_clockwait(&assembler->wake, &assembler->lock, CLOCK_MONOTONIC, &until) == 0)
        continue;
}

/* With the lock held, which is given up meanwhile. */
static void assembler_visit(struct filesystem *fs, struct assembler_entry *entry)
{
    struct assembler *assembler = fs->assembler;
    int64_t begun = clock_monotonic();
    bool asked = assemble_requests_wants(assembler->requests, entry->directory);
    assembler->busy = true;
    assembler->hurry &= !asked;
    pthread_mutex_unlock(&assembler->lock);
    errint error =
        asked ? assembler_look_asked(fs, entry->directory) : assembler_look(fs, entry->directory, NULL);
    if (error == -EACCES)
        log_info("inode %llu: nothing is assembled here: the shards are of several owners",
                 (unsigned long long)entry->directory);
    else if (error && error != -EBUSY && error != -EAGAIN && error != -ECANCELED)
        log_warning("inode %llu: nothing is assembled here now: %s", (unsigned long long)entry->directory,
                    strerror(-error));
    pthread_mutex_lock(&assembler->lock);
    if (asked)
        entry->delay = ASSEMBLER_RETRY_NS / 2; /* who waits does not wait longer each time */
    int64_t delay = entry->delay * 2 < ASSEMBLER_RETRY_MAX_NS ? entry->delay * 2 : ASSEMBLER_RETRY_MAX_NS;
    if (error == -EBUSY)
        assembler_enlist(assembler, entry->directory, entry->delay, delay);
    else if (error == -EAGAIN)
        assembler_enlist(assembler, entry->directory, ASSEMBLER_MIXED_NS, ASSEMBLER_RETRY_NS);
    free(entry);
    assembler_rest(assembler, begun);
    assembler->busy = false;
}

/* The file's directories are put on the list; or, where that is long, it is taken up again when it is short.
 */
static void assembler_resolve_file(struct filesystem *fs, uint64_t ino)
{
    struct assembler *assembler = fs->assembler;
    pthread_mutex_lock(&assembler->lock);
    bool later = assembler->count >= ASSEMBLER_WAITING;
    if (later && ino <= assembler->found)
        assembler->found = ino - 1;
    else if (!later && !assembler->finding && ino > assembler->found)
        assembler->found = ino;
    assembler->finding |= later;
    pthread_mutex_unlock(&assembler->lock);
    if (!later)
        assembler_find_directories(fs, ino, ASSEMBLER_QUIET_NS);
}

/* The files that were touched; with the lock held, which is given up meanwhile. */
static void assembler_resolve(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    cleanup_ids struct ids files = assembler->files;
    assembler->files = (struct ids){0};
    assembler->busy = true;
    pthread_mutex_unlock(&assembler->lock);
    for (size_t i = 0; i < files.count && !assembler_stops(fs); i++) {
        if (i == 0 || files.at[i] != files.at[i - 1])
            assembler_resolve_file(fs, files.at[i]);
    }
    pthread_mutex_lock(&assembler->lock);
    assembler->busy = false;
}

static void assembler_sleep(struct filesystem *fs, int64_t until)
{
    struct assembler *assembler = fs->assembler;
    struct timespec time = clock_to_timespec(until);
    if (until != INT64_MAX)
        pthread_cond_clockwait(&assembler->wake, &assembler->lock, CLOCK_MONOTONIC, &time);
    else
        wait_signal(&assembler->wake, &assembler->lock);
}

/* One thing to do, or one sleep; with the lock held. */
static void assembler_step(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    int64_t until;
    if (assembler->files.count > 0) {
        assembler_resolve(fs);
        return;
    }
    struct assembler_entry *entry = assembler_take(assembler, &until);
    if (entry) {
        assembler_visit(fs, entry);
    } else if (assembler->count < ASSEMBLER_WAITING && trees_left(&assembler->trees) > 0) {
        assembler_walk(fs);
    } else if (assembler->finding && assembler->count == 0) {
        assembler_take_up(fs);
    } else {
        if (assembler->count == 0 && clock_monotonic() - assembler->noted_at >= ASSEMBLER_NOTE_NS) {
            pthread_mutex_unlock(&assembler->lock);
            assembler_note(fs);
            pthread_mutex_lock(&assembler->lock);
            if (assembler->files.count > 0 || assembler->waiting || trees_left(&assembler->trees) > 0)
                return;
        }
        assembler_sleep(fs, until);
    }
}

static void *assembler_run(void *context)
{
    struct filesystem *fs = context;
    struct assembler *assembler = fs->assembler;
    /* Of this thread only: Linux keeps a nice value for each. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), ASSEMBLER_NICE);
    pthread_mutex_lock(&assembler->lock);
    while (!atomic_load(&assembler->stopping))
        assembler_step(fs);
    bool idle = assembler->count == 0 && assembler->files.count == 0 && !assembler->finding &&
                trees_left(&assembler->trees) == 0;
    pthread_mutex_unlock(&assembler->lock);
    if (idle)
        assembler_note(fs);
    return NULL;
}

errint assembler_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct assembler *assembler = calloc(1, sizeof *assembler);
    struct assemble_requests *requests = assembler ? assemble_requests_make() : NULL;
    if (!requests) {
        free(assembler);
        return -ENOMEM;
    }
    pthread_mutex_init(&assembler->lock, NULL);
    pthread_cond_init(&assembler->wake, NULL);
    assembler->requests = requests;
    assembler->finding = true;
    fs->assembler = assembler;
    errint error = assembler_read_noted(fs);
    if (!error)
        error = trees_start(fs, &assembler->trees, ASSEMBLER_TREES_SETTING);
    if (!error) {
        error = -pthread_create(&assembler->thread, NULL, assembler_run, fs);
        if (error)
            trees_release(&assembler->trees);
    }
    if (error) {
        fs->assembler = NULL;
        assemble_requests_free(requests);
        free(assembler);
        return error;
    }
    pthread_setname_np(assembler->thread, "assemble");
    return 0;
}

void assembler_stop(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return;
    atomic_store(&assembler->stopping, true);
    pthread_mutex_lock(&assembler->lock);
    pthread_cond_signal(&assembler->wake);
    pthread_mutex_unlock(&assembler->lock);
    pthread_join(assembler->thread, NULL);
    fs->assembler = NULL;
    while (assembler->waiting) {
        struct assembler_entry *entry = assembler->waiting;
        assembler->waiting = entry->next;
        free(entry);
    }
    ids_release(&assembler->files);
    trees_release(&assembler->trees);
    assemble_requests_free(assembler->requests);
    pthread_cond_destroy(&assembler->wake);
    pthread_mutex_destroy(&assembler->lock);
    free(assembler);
}
