/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of exports and the thread that runs them. */
#include "fs/export.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/control.h"
#include "fs/events.h"
#include "fs/export_order.h"
#include "fs/export_run.h"
#include "fs/filesystem.h"

enum {
    EXPORT_RETRY_SECONDS = 60, /* after the first failure; then twice as long each time */
    EXPORT_RETRY_DOUBLINGS = 6,
    EXPORT_HALT_SECONDS = 5,
};

struct export_entry {
    uint64_t ino;
    enum export_reason reason;
    bool again;  /* it was asked for once more while it ran */
    int64_t due; /* clock_monotonic() */
    unsigned failed;
    char problem[EXPORT_PROBLEM_MAX]; /* of the last try; "": none */
};

struct exporter {
    struct filesystem *fs;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool thread_runs, stopping;
    int end_fd;       /* readable: what runs has to end */
    int64_t halted;   /* nothing begins before; clock_monotonic() */
    uint64_t running; /* 0: none */
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
    if (exporter->count == exporter->capacity) {
        size_t capacity = 2 * exporter->capacity + 16;
        struct export_entry **grown = reallocarray(exporter->entries, capacity, sizeof *grown);
        if (!grown)
            return NULL;
        exporter->entries = grown;
        exporter->capacity = capacity;
    }
    struct export_entry *entry = calloc(1, sizeof *entry);
    if (entry) {
        entry->ino = ino;
        exporter->entries[exporter->count++] = entry;
    }
    return entry;
}

static errint export_enqueue(struct filesystem *fs, uint64_t ino, enum export_reason reason)
{
    struct exporter *exporter = fs->exporter;
    if (!exporter)
        return -EROFS;
    pthread_mutex_lock(&exporter->lock);
    struct export_entry *entry = export_find(exporter, ino);
    if (!entry)
        entry = export_add(exporter, ino);
    if (entry) {
        entry->again = exporter->running == ino;
        entry->due = clock_monotonic();
        entry->failed = 0;
        if (reason > entry->reason)
            entry->reason = reason;
        pthread_cond_signal(&exporter->wake);
    }
    pthread_mutex_unlock(&exporter->lock);
    return entry ? 0 : -ENOMEM;
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
    if (export_enqueue(fs, ino, EXPORT_BECAUSE_COMPLETE) == -ENOMEM)
        log_warning("inode %llu: not exported: no memory", (unsigned long long)ino);
}

void export_pinned(struct filesystem *fs, uint64_t ino)
{
    if (export_enqueue(fs, ino, EXPORT_BECAUSE_PINNED) == -ENOMEM)
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
    if (exporter) {
        pthread_mutex_lock(&exporter->lock);
        bool queued = export_find(exporter, ino);
        pthread_mutex_unlock(&exporter->lock);
        if (queued)
            return true;
    }
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
    if (!exporter->stopping && read(exporter->end_fd, &count, sizeof count) < 0 && errno != EAGAIN)
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

/* 0: nothing is left to do; -ECANCELED; another negative errno: it is to be tried again. */
static errint export_try(struct exporter *exporter, uint64_t ino, enum export_reason reason,
                         char problem[EXPORT_PROBLEM_MAX])
{
    struct filesystem *fs = exporter->fs;
    cleanup_free struct export_order *order = calloc(1, sizeof *order);
    errint error = order ? export_order_find(fs, ino, reason, order) : -ENOMEM;
    if (error == -ENOENT || error == -ENOTDIR) {
        export_mark(fs, ino, NULL); /* nobody wants it, or it is gone */
        return 0;
    }
    if (error) {
        snprintf(problem, EXPORT_PROBLEM_MAX, "%s",
                 error == -EPERM ? "who set the policy is not known, or cannot be acted for: set it again"
                                 : strerror(-error));
        return error;
    }
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

/* With the lock, which is given up meanwhile. */
static void export_work_on(struct exporter *exporter, struct export_entry *entry)
{
    char problem[EXPORT_PROBLEM_MAX] = "";
    uint64_t ino = entry->ino;
    enum export_reason reason = entry->reason;
    exporter->running = ino;
    pthread_mutex_unlock(&exporter->lock);
    errint error = export_try(exporter, ino, reason, problem);
    if (error && error != -ECANCELED)
        log_warning("export inode=%llu failed: %s; it is tried again", (unsigned long long)ino, problem);
    pthread_mutex_lock(&exporter->lock);
    exporter->running = 0;
    export_begin_anew(exporter);
    if (!error && !entry->again) {
        export_remove(exporter, entry);
    } else {
        if (error && error != -ECANCELED && !entry->again)
            entry->due = clock_monotonic() + export_delay(entry->failed++);
        snprintf(entry->problem, sizeof entry->problem, "%s", problem);
        entry->again = false;
    }
    pthread_cond_broadcast(&exporter->wake);
}

/* With the lock. The one that is due for longest; NULL: none is. */
static struct export_entry *export_next(const struct exporter *exporter)
{
    struct export_entry *next = NULL;
    int64_t now = clock_monotonic();
    for (size_t i = 0; i < exporter->count && now >= exporter->halted; i++) {
        struct export_entry *entry = exporter->entries[i];
        if (entry->due <= now && (!next || entry->due < next->due))
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
    return error ? error : export_enqueue(fs, ino, EXPORT_BECAUSE_ASKED);
}

/* False: it is not in the queue. */
static bool export_tell_queued(struct exporter *exporter, uint64_t ino, struct control_export *answer)
{
    pthread_mutex_lock(&exporter->lock);
    const struct export_entry *entry = export_find(exporter, ino);
    if (entry) {
        answer->state = exporter->running == ino ? CONTROL_EXPORT_RUNNING
                        : entry->failed > 0      ? CONTROL_EXPORT_FAILED
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
    bool runs = exporter->running;
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
    if (!error)
        error = -pthread_create(&exporter->thread, NULL, export_thread, exporter);
    exporter->thread_runs = !error;
    if (!error)
        pthread_setname_np(exporter->thread, "export");
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
    if (exporter->thread_runs)
        pthread_join(exporter->thread, NULL);
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
