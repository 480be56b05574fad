/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of exports and the threads that run them. */
#include "fs/export.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/grow.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/wait.h"
#include "fs/checkpoints.h"
#include "fs/control.h"
#include "fs/events.h"
#include "fs/export_order.h"
#include "fs/export_run.h"
#include "fs/filesystem.h"

enum {
    EXPORT_RETRY_SECONDS = 60, /* after the first failure; then twice as long each time */
    EXPORT_RETRY_DOUBLINGS = 6,
    EXPORT_HALT_SECONDS = 5,
    EXPORT_ADDED_SECONDS = 10, /* what is added all the time is exported as often */
    EXPORT_ADDED_SECONDS_TEST = 2,
    /* Of one user one runs at a time: a target that hangs, or is locked, is its user's matter. */
    EXPORT_THREADS = 4,
};

/* Whose it is has not been found out. */
#define EXPORT_NOBODY ((uid_t)-1)

struct export_entry {
    uint64_t ino;
    enum export_reason reason;
    uid_t uid; /* who it was run as last, or is to be; EXPORT_NOBODY: it is to be found out */
    bool running;
    bool again;  /* it was asked for once more while it ran */
    int64_t due; /* clock_monotonic() */
    unsigned failed;
    char problem[EXPORT_PROBLEM_MAX]; /* of the last try; "": none */
};

struct exporter {
    struct filesystem *fs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[EXPORT_THREADS];
    size_t thread_count;
    bool stopping;
    int end_fd;     /* readable: what runs has to end */
    int64_t halted; /* nothing begins before; clock_monotonic() */
    size_t running;
    struct export_entry **entries;
    size_t count, capacity;
};

/* -- the queue --------------------------------------------------------------------------------------------
 */

/* With the lock. */
static struct export_entry *export_find(const struct exporter *exporter, uint64_t ino)
{
    for (size_t i = 0; i < exporter->count; i++) {
        if (exporter->entries[i]->ino == ino)
            return exporter->entries[i];
    }
    return NULL;
}

/* With the lock. NULL: no memory. */
static struct export_entry *export_add(struct exporter *exporter, uint64_t ino)
{
    if (!grow_reserve(exporter->entries, exporter->capacity, exporter->count + 1))
        return NULL;
    struct export_entry *entry = calloc(1, sizeof *entry);
    if (entry) {
        entry->ino = ino;
        entry->uid = EXPORT_NOBODY;
        exporter->entries[exporter->count++] = entry;
    }
    return entry;
}

/* `delay`: ns that it may wait for more; what waits already does not wait longer. */
static errint export_enqueue(struct filesystem *fs, uint64_t ino, enum export_reason reason, int64_t delay)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return -EROFS;
    pthread_mutex_lock(&exporter->lock);
    struct export_entry *entry = export_find(exporter, ino);
    bool waits = entry && (!entry->running || entry->again);
    if (!entry)
        entry = export_add(exporter, ino);
    if (entry && (delay == 0 || !waits)) {
        entry->again = entry->running;
        entry->due = clock_monotonic() + delay;
        entry->failed = 0;
        entry->uid = EXPORT_NOBODY;
        if (reason > entry->reason)
            entry->reason = reason;
        pthread_cond_broadcast(&exporter->wake);
    }
    pthread_mutex_unlock(&exporter->lock);
    return entry ? 0 : -ENOMEM;
}

static bool export_is_queued(struct exporter *exporter, uint64_t ino)
{
    pthread_mutex_lock(&exporter->lock);
    bool queued = export_find(exporter, ino);
    pthread_mutex_unlock(&exporter->lock);
    return queued;
}

/* With the lock. */
static void export_remove(struct exporter *exporter, struct export_entry *entry)
{
    for (size_t i = 0; i < exporter->count; i++) {
        if (exporter->entries[i] != entry)
            continue;
        exporter->count--;
        memmove(&exporter->entries[i], &exporter->entries[i + 1],
                (exporter->count - i) * sizeof(struct export_entry *));
        break;
    }
    free(entry);
}

void export_checkpoint(struct filesystem *fs, uint64_t ino)
{
    if (export_enqueue(fs, ino, EXPORT_BECAUSE_COMPLETE, 0) == -ENOMEM)
        log_warning("inode %llu: not exported: no memory", (unsigned long long)ino);
}

void export_pinned(struct filesystem *fs, uint64_t ino)
{
    if (export_enqueue(fs, ino, EXPORT_BECAUSE_PINNED, 0) == -ENOMEM)
        log_warning("inode %llu: not exported: no memory", (unsigned long long)ino);
}

size_t export_waiting(struct filesystem *fs)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return 0;
    pthread_mutex_lock(&exporter->lock);
    size_t count = exporter->count;
    pthread_mutex_unlock(&exporter->lock);
    return count;
}

size_t export_list(struct filesystem *fs, struct export_told *out, size_t room)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return 0;
    pthread_mutex_lock(&exporter->lock);
    size_t count = exporter->count < room ? exporter->count : room;
    for (size_t i = 0; i < count; i++) {
        const struct export_entry *entry = exporter->entries[i];
        out[i] =
            (struct export_told){.ino = entry->ino, .running = entry->running, .failures = entry->failed};
        snprintf(out[i].problem, sizeof out[i].problem, "%s", entry->problem);
    }
    pthread_mutex_unlock(&exporter->lock);
    return count;
}

/* -- what is recorded -------------------------------------------------------------------------------------
 */

/* NULL: nothing any more. */
static errint export_mark(struct filesystem *fs, uint64_t ino, const char *value)
{
    const struct meta_policy_change change = {EXPORT_KEY_MARK, value};
    return meta_policy_change(fs->meta, ino, &change, 1);
}

/* The directory's own. -ENOENT. */
static errint export_read_mark(struct filesystem *fs, uint64_t ino, struct meta_policy_found *out)
{
    errint error = meta_policy_find(fs->meta, ino, EXPORT_KEY_MARK, out);
    return !error && out->levels > 0 ? -ENOENT : error;
}

bool export_is_pending(struct filesystem *fs, uint64_t ino)
{
    cleanup_free struct meta_policy_found *found = malloc(sizeof *found);
    struct exporter *exporter = fs->exporter;
    if (exporter && export_is_queued(exporter, ino))
        return true;
    return found && export_read_mark(fs, ino, found) == 0 &&
           strncmp(found->value, EXPORT_MARK_DONE, sizeof EXPORT_MARK_DONE - 1) != 0;
}

/* -- one export -------------------------------------------------------------------------------------------
 */

/* What runs has to end. With the lock. */
static void export_end_child(const struct exporter *exporter)
{
    const uint64_t one = 1;
    if (exporter->end_fd >= 0 && write(exporter->end_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        log_warning("an export cannot be ended: %m");
}

/* Forgets what was meant for an export that has ended. With the lock. */
static void export_begin_anew(const struct exporter *exporter)
{
    uint64_t count;
    if (!exporter->stopping && exporter->running == 0 && read(exporter->end_fd, &count, sizeof count) < 0 &&
        errno != EAGAIN)
        log_warning("an export cannot be begun: %m");
}

static void export_note_done(struct exporter *exporter, uint64_t ino, const struct export_order *order,
                             enum export_reason reason)
{
    char mark[META_POLICY_VALUE_MAX];
    bool picks = order->when.kind == POLICY_EXPORT_BEST || order->when.kind == POLICY_EXPORT_LATEST;
    const char *name = order->checkpoint;
    if (picks && reason != EXPORT_BECAUSE_ASKED)
        name = order->when.kind == POLICY_EXPORT_BEST ? "best" : "latest";
    int length = snprintf(mark, sizeof mark, EXPORT_MARK_DONE "%s/%s", order->target, name);
    errint error = length >= (int)sizeof mark ? -ENAMETOOLONG : export_mark(exporter->fs, ino, mark);
    if (error && error != -ENOENT)
        log_warning("export path=\"%s\": that it is done cannot be recorded: %s", order->path,
                    strerror(-error));
    log_info("exported path=\"%s\" into=\"%s\" uid=%u", order->path, order->target, order->user.uid);
    events_emit(exporter->fs,
                &(struct event){
                    .kind = EVENT_EXPORTED, .ino = ino, .step = -1, .bytes = -1, .reason = order->target});
}

static void export_tell_failure(struct exporter *exporter, uint64_t ino, const char *problem)
{
    events_emit(
        exporter->fs,
        &(struct event){.kind = EVENT_EXPORT_FAILED, .ino = ino, .step = -1, .bytes = -1, .reason = problem});
}

/* With the lock: whether the user has none that runs. Then this one is his. */
static bool export_take_turn(struct exporter *exporter, struct export_entry *entry, uid_t uid)
{
    bool free = true;
    pthread_mutex_lock(&exporter->lock);
    for (size_t i = 0; i < exporter->count && free; i++) {
        const struct export_entry *other = exporter->entries[i];
        free = other == entry || !other->running || other->uid != uid;
    }
    entry->uid = uid;
    pthread_mutex_unlock(&exporter->lock);
    return free;
}

/* What is to be done. 0; -ENOENT: nothing; or why not. */
static errint export_find_order(struct exporter *exporter, const struct export_entry *entry,
                                enum export_reason reason, struct export_order *order,
                                char problem[EXPORT_PROBLEM_MAX])
{
    errint error = export_order_find(exporter->fs, entry->ino, reason, order);
    if (error == -ENOTDIR)
        return -ENOENT;
    if (error == -EPERM)
        snprintf(problem, EXPORT_PROBLEM_MAX,
                 "who set the policy is not known, or cannot be acted for: set it again");
    else if (error)
        snprintf(problem, EXPORT_PROBLEM_MAX, "%s", strerror(-error));
    return error;
}

/* 0: nothing is left to do; -ECANCELED; -EBUSY: its turn comes later; another negative errno: it is to be
 * tried again. */
static errint export_try(struct exporter *exporter, struct export_entry *entry, enum export_reason reason,
                         char problem[EXPORT_PROBLEM_MAX])
{
    struct filesystem *fs = exporter->fs;
    uint64_t ino = entry->ino;
    cleanup_free struct export_order *order = calloc(1, sizeof *order);
    errint error = order ? export_find_order(exporter, entry, reason, order, problem) : -ENOMEM;
    if (error == -ENOENT) {
        export_mark(fs, ino, NULL); /* nobody wants it, or it is gone */
        return 0;
    }
    if (error)
        return error;
    if (!export_take_turn(exporter, entry, order->user.uid))
        return -EBUSY;
    error = export_mark(fs, ino, export_order_pending[reason]);
    int code = error ? error : export_run(order, reason, fs->options->mountpoint, exporter->end_fd, problem);
    if (code == 0)
        export_note_done(exporter, ino, order, reason);
    if (code == EXPORT_EXIT_NONE_PICKED)
        export_mark(fs, ino, NULL);
    if (code == 0 || code == EXPORT_EXIT_NONE_PICKED || code == -ENOENT)
        return 0;
    if (!problem[0])
        snprintf(problem, EXPORT_PROBLEM_MAX, "the command ended with %d", code);
    return code < 0 ? code : -EIO;
}

static int64_t export_delay(unsigned failed)
{
    unsigned doublings = failed < EXPORT_RETRY_DOUBLINGS ? failed : EXPORT_RETRY_DOUBLINGS;
    return (int64_t)(EXPORT_RETRY_SECONDS << doublings) * CLOCK_NS_PER_SECOND;
}

/* With the lock. */
static void export_note_failure(struct exporter *exporter, struct export_entry *entry, const char *problem)
{
    log_warning("export inode=%llu failed: %s; it is tried again", (unsigned long long)entry->ino, problem);
    /* The same again is no news. */
    if (entry->failed == 0 || strcmp(entry->problem, problem) != 0)
        export_tell_failure(exporter, entry->ino, problem);
    snprintf(entry->problem, sizeof entry->problem, "%s", problem);
    if (!entry->again)
        entry->due = clock_monotonic() + export_delay(entry->failed);
    entry->failed++;
}

/* With the lock, which is given up meanwhile. */
static void export_work_on(struct exporter *exporter, struct export_entry *entry)
{
    char problem[EXPORT_PROBLEM_MAX] = "";
    enum export_reason reason = entry->reason;
    entry->running = true;
    exporter->running++;
    pthread_mutex_unlock(&exporter->lock);
    errint error = export_try(exporter, entry, reason, problem);
    pthread_mutex_lock(&exporter->lock);
    entry->running = false;
    exporter->running--;
    export_begin_anew(exporter);
    if (error && error != -ECANCELED && error != -EBUSY)
        export_note_failure(exporter, entry, problem);
    uint64_t ino = !error && !entry->again ? entry->ino : 0;
    if (ino)
        export_remove(exporter, entry);
    else
        entry->again = false;
    pthread_cond_broadcast(&exporter->wake);
    if (ino) {
        /* It may be what its run's policy waited for to remove it. */
        pthread_mutex_unlock(&exporter->lock);
        checkpoints_touch_directory(exporter->fs, ino);
        pthread_mutex_lock(&exporter->lock);
    }
}

/* With the lock. */
static bool export_has_turn(const struct exporter *exporter, const struct export_entry *entry)
{
    for (size_t i = 0; i < exporter->count; i++) {
        const struct export_entry *other = exporter->entries[i];
        if (other->running && other->uid == entry->uid && entry->uid != EXPORT_NOBODY)
            return false;
    }
    return !entry->running;
}

/* With the lock. The one that is due for longest; NULL: none is. */
static struct export_entry *export_next(const struct exporter *exporter)
{
    struct export_entry *next = NULL;
    int64_t now = clock_monotonic();
    for (size_t i = 0; i < exporter->count && now >= exporter->halted; i++) {
        struct export_entry *entry = exporter->entries[i];
        if (entry->due <= now && (!next || entry->due < next->due) && export_has_turn(exporter, entry))
            next = entry;
    }
    return next;
}

static void *export_thread(void *context)
{
    struct exporter *exporter = context;
    pthread_mutex_lock(&exporter->lock);
    while (!exporter->stopping) {
        struct export_entry *entry = export_next(exporter);
        if (entry)
            export_work_on(exporter, entry);
        else
            wait_signal(&exporter->wake, &exporter->lock);
    }
    pthread_mutex_unlock(&exporter->lock);
    return NULL;
}

/* -- from outside -----------------------------------------------------------------------------------------
 */

errint export_request(struct filesystem *fs, uint64_t ino)
{
    cleanup_free struct export_order *order = calloc(1, sizeof *order);
    if (!fs->exporter)
        return -EROFS;
    errint error = order ? export_order_find(fs, ino, EXPORT_BECAUSE_ASKED, order) : -ENOMEM;
    if (!error)
        error = export_mark(fs, ino, export_order_pending[EXPORT_BECAUSE_ASKED]);
    return error ? error : export_enqueue(fs, ino, EXPORT_BECAUSE_ASKED, 0);
}

void export_added(struct filesystem *fs, uint64_t ino)
{
    cleanup_free struct export_order *order = calloc(1, sizeof *order);
    int64_t delay =
        (clock_is_test() ? EXPORT_ADDED_SECONDS_TEST : EXPORT_ADDED_SECONDS) * CLOCK_NS_PER_SECOND;
    if (!fs->exporter)
        return;
    errint error = order ? export_order_find(fs, ino, EXPORT_BECAUSE_COMPLETE, order) : -ENOMEM;
    if (error == -ENOENT || error == -ENOTDIR)
        return; /* nobody wants it */
    /* The daemon may end before its turn. */
    if (!error && !export_is_queued(fs->exporter, ino))
        error = export_mark(fs, ino, export_order_pending[EXPORT_BECAUSE_COMPLETE]);
    if (export_enqueue(fs, ino, EXPORT_BECAUSE_COMPLETE, delay) == -ENOMEM)
        error = -ENOMEM;
    if (error && error != -EPERM) /* which is told when its turn has come */
        log_warning("inode %llu: what was added may not be exported: %s", (unsigned long long)ino,
                    strerror(-error));
}

/* False: it is not in the queue. */
static bool export_tell_queued(struct exporter *exporter, uint64_t ino, struct control_export *answer)
{
    pthread_mutex_lock(&exporter->lock);
    const struct export_entry *entry = export_find(exporter, ino);
    if (entry) {
        answer->state = entry->running      ? CONTROL_EXPORT_RUNNING
                        : entry->failed > 0 ? CONTROL_EXPORT_FAILED
                                            : CONTROL_EXPORT_WAITING;
        snprintf(answer->text, sizeof answer->text, "%s", entry->problem);
    }
    pthread_mutex_unlock(&exporter->lock);
    return entry;
}

errint export_tell(struct filesystem *fs, uint64_t ino, struct control_export *answer)
{
    cleanup_free struct meta_policy_found *found = malloc(sizeof *found);
    *answer = (struct control_export){.state = CONTROL_EXPORT_NONE};
    if (!found)
        return -ENOMEM;
    if (fs->exporter && export_tell_queued(fs->exporter, ino, answer))
        return 0;
    errint error = export_read_mark(fs, ino, found);
    if (error == -ENOENT)
        return 0;
    if (error)
        return error;
    size_t done = sizeof EXPORT_MARK_DONE - 1;
    bool is_done = strncmp(found->value, EXPORT_MARK_DONE, done) == 0;
    answer->state = is_done ? CONTROL_EXPORT_DONE : CONTROL_EXPORT_WAITING;
    snprintf(answer->text, sizeof answer->text, "%s", is_done ? found->value + done : "");
    return 0;
}

bool export_halt(struct filesystem *fs)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return false;
    pthread_mutex_lock(&exporter->lock);
    bool runs = exporter->running > 0;
    exporter->halted = clock_monotonic() + EXPORT_HALT_SECONDS * CLOCK_NS_PER_SECOND;
    if (runs)
        export_end_child(exporter);
    pthread_mutex_unlock(&exporter->lock);
    return runs;
}

/* -- its life ---------------------------------------------------------------------------------------------
 */

static errint export_load(struct exporter *exporter, enum export_reason reason)
{
    cleanup_ids struct ids pending = {0};
    errint error =
        meta_policy_holders(exporter->fs->meta, EXPORT_KEY_MARK, export_order_pending[reason], &pending);
    for (size_t i = 0; i < pending.count && !error; i++) {
        struct export_entry *entry = export_add(exporter, pending.at[i]);
        if (!entry)
            return -ENOMEM;
        entry->reason = reason;
    }
    return error;
}

errint export_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct exporter *exporter = calloc(1, sizeof *exporter);
    if (!exporter)
        return -ENOMEM;
    exporter->fs = fs;
    pthread_mutex_init(&exporter->lock, NULL);
    pthread_cond_init(&exporter->wake, NULL);
    fs->exporter = exporter;
    exporter->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    errint error = exporter->end_fd < 0 ? -errno : 0;
    for (unsigned i = 0; i < EXPORT_REASONS && !error; i++)
        error = export_load(exporter, (enum export_reason)i);
    while (!error && exporter->thread_count < EXPORT_THREADS) {
        error = thread_create(&exporter->threads[exporter->thread_count], "export", export_thread, exporter);
        exporter->thread_count += !error;
    }
    return error;
}

void export_stop(struct filesystem *fs)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return;
    pthread_mutex_lock(&exporter->lock);
    exporter->stopping = true;
    export_end_child(exporter);
    pthread_cond_broadcast(&exporter->wake);
    pthread_mutex_unlock(&exporter->lock);
    for (size_t i = 0; i < exporter->thread_count; i++)
        pthread_join(exporter->threads[i], NULL);
    while (exporter->count > 0)
        export_remove(exporter, exporter->entries[0]);
    free(exporter->entries);
    if (exporter->end_fd >= 0)
        close(exporter->end_fd);
    pthread_cond_destroy(&exporter->wake);
    pthread_mutex_destroy(&exporter->lock);
    free(exporter);
    fs->exporter = NULL;
}
