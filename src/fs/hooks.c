/* SPDX-License-Identifier: Apache-2.0 */
/* Which hook an event has, and running it. */
#include "fs/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/hook_environment.h"
#include "fs/policy.h"
#include "fs/run_as.h"
#include "meta/event.h"

enum {
    HOOKS_AT_A_TIME = 8,
    HOOKS_OF_ONE_USER = 2,       /* at a time: nobody's hooks keep those of all others waiting */
    HOOKS_WAITING_OF_ONE = 1000, /* more are left to the next start */
    HOOKS_WAITING = 16 * HOOKS_WAITING_OF_ONE,
    HOOKS_LINES = 200, /* of one hook's output, that are logged */
    HOOKS_MOMENT_NS = 50 * 1000 * 1000,
};

struct hooks {
    struct workers *workers;
    int stop_fd; /* can be read while those that run are to be killed */
    atomic_bool stopping;
    atomic_uint running;
    pthread_mutex_t lock;            /* guards all below */
    int64_t paused_until;            /* clock_monotonic(); INT64_MAX: for ever */
    struct hooks_job *first, **last; /* that wait */
    size_t waiting;
    uint32_t users[HOOKS_AT_A_TIME]; /* of those that have been taken */
    size_t taken;
};

struct hooks_job {
    struct hooks_job *next;
    struct filesystem *fs;
    uint32_t uid; /* who has set the hook; UINT32_MAX: nobody any more */
    uint64_t sequence, directory;
    struct hook_facts facts;
    char *text;
    char key[64];
    unsigned lines;
};

/* -- which hook -------------------------------------------------------------------------------------------
 */

static errint hooks_find(struct filesystem *fs, uint64_t directory, const char *key, struct policy_value *out)
{
    const struct policy_key *known = policy_find_key(key);
    errint error = known ? policy_find(fs, directory, known, out) : -ENOENT;
    bool set = !error && (out->source == POLICY_FROM_DIRECTORY || out->source == POLICY_FROM_ABOVE);
    return error || set ? error : -ENOENT;
}

bool hooks_want(struct filesystem *fs, uint64_t directory, uint32_t owner, enum event_kind kind)
{
    struct policy_value value;
    char key[64];
    snprintf(key, sizeof key, POLICY_HOOK "%s", event_kind_name(kind));
    if (!fs->hooks || hooks_find(fs, directory, key, &value) != 0 || value.found.uid == UINT32_MAX)
        return false;
    const struct event_viewer setter = events_viewer(value.found.uid);
    return setter.sees_all || setter.uid == owner;
}

bool hooks_may_run_as(const struct filesystem *fs, uint32_t uid)
{
    return fs->hooks && run_as_may(uid);
}

/* -- running it -------------------------------------------------------------------------------------------
 */

/* Whatever it writes: it shall not write escapes into whoever's terminal shows the log. */
static void hooks_log_line(void *context, const char *line)
{
    struct hooks_job *job = context;
    char plain[1024];
    size_t length = strnlen(line, sizeof plain - 1);
    for (size_t i = 0; i < length; i++)
        plain[i] = (unsigned char)line[i] < ' ' || line[i] == 0x7f ? ' ' : line[i];
    plain[length] = '\0';
    job->lines++;
    if (job->lines <= HOOKS_LINES)
        log_info("%s %s: %s", job->key, job->facts.path, plain);
    else if (job->lines == HOOKS_LINES + 1)
        log_info("%s %s: what it writes from here on is dropped", job->key, job->facts.path);
}

static void hooks_log_end(const struct hooks_job *job, errint error, int status, unsigned seconds)
{
    const char *path = job->facts.path;
    if (error == -ETIME)
        log_warning("%s %s: took longer than %u s and was killed", job->key, path, seconds);
    else if (error == -ECANCELED)
        log_info("%s %s: was ended, and is run again later", job->key, path);
    else if (error)
        log_warning("%s %s: cannot be run: %s", job->key, path, strerror(-error));
    else if (WIFSIGNALED(status))
        log_warning("%s %s: was killed by signal %d", job->key, path, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        log_warning("%s %s: failed with exit status %d", job->key, path, WEXITSTATUS(status));
    else
        log_info("%s %s: done", job->key, path);
}

static unsigned hooks_seconds(struct filesystem *fs, uint64_t directory)
{
    struct policy_value value;
    const struct policy_key *key = policy_find_key(POLICY_HOOK_TIMEOUT);
    unsigned long seconds = 0;
    if (policy_find(fs, directory, key, &value) == 0 && key->fits(value.found.value))
        seconds = strtoul(value.found.value, NULL, 10);
    return seconds ? (unsigned)seconds : (unsigned)strtoul(key->fallback, NULL, 10);
}

static errint hooks_run_command(struct hooks_job *job, const struct policy_value *value)
{
    struct filesystem *fs = job->fs;
    struct hook_environment environment;
    int status = 0;
    unsigned seconds = hooks_seconds(fs, job->directory);
    errint error =
        hook_environment_make(fs->options->mountpoint, &job->facts, value->found.uid, &environment);
    struct run_as_user user;
    const struct run_as order = {
        .user = &user,
        .command = value->found.value,
        .environment = (const char *const *)environment.at,
        .input = job->text,
        .input_length = strlen(job->text),
        .seconds = seconds,
        .stop_fd = fs->hooks->stop_fd,
        .line = hooks_log_line,
        .context = job,
    };
    if (!error)
        error = run_as_find_user(value->found.uid, value->found.gid, &user);
    if (!error)
        error = run_as(&order, &status);
    hooks_log_end(job, error, status, seconds);
    hook_environment_release(&environment);
    return error;
}

/* -- pauses -----------------------------------------------------------------------------------------------
 */

void hooks_pause(struct filesystem *fs, unsigned seconds)
{
    struct hooks *hooks = fs->hooks;
    if (!hooks)
        return;
    pthread_mutex_lock(&hooks->lock);
    int64_t until = seconds ? clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND : INT64_MAX;
    if (until > hooks->paused_until)
        hooks->paused_until = until;
    eventfd_write(hooks->stop_fd, 1);
    pthread_mutex_unlock(&hooks->lock);
}

unsigned hooks_running(struct filesystem *fs)
{
    return fs->hooks ? atomic_load(&fs->hooks->running) : 0;
}

/* Until there is none; false: no more hooks are run at all. */
static bool hooks_wait_for_pause(struct hooks *hooks)
{
    const struct timespec moment = {.tv_nsec = HOOKS_MOMENT_NS};
    eventfd_t ignored;
    while (!atomic_load(&hooks->stopping)) {
        pthread_mutex_lock(&hooks->lock);
        bool over = clock_monotonic() >= hooks->paused_until;
        if (over && !atomic_load(&hooks->stopping))
            eventfd_read(hooks->stop_fd, &ignored);
        pthread_mutex_unlock(&hooks->lock);
        if (over)
            return !atomic_load(&hooks->stopping);
        nanosleep(&moment, NULL);
    }
    return false;
}

static void hooks_free_job(struct hooks_job *job)
{
    hook_facts_release(&job->facts);
    free(job->text);
    free(job);
}

/* What somebody else has set meanwhile need not see the event. */
static errint hooks_find_for(const struct hooks_job *job, struct policy_value *value)
{
    errint error = hooks_find(job->fs, job->directory, job->key, value);
    return error ? error : value->found.uid == job->uid ? 0 : -ENOENT;
}

static void hooks_run(struct hooks_job *job)
{
    struct filesystem *fs = job->fs;
    struct policy_value value;
    errint error = -ECANCELED;
    while (error == -ECANCELED && hooks_wait_for_pause(fs->hooks)) {
        error = hooks_find_for(job, &value);
        atomic_fetch_add(&fs->hooks->running, 1);
        if (!error)
            error = hooks_run_command(job, &value);
        atomic_fetch_sub(&fs->hooks->running, 1);
    }
    if (error != -ECANCELED)
        error = meta_event_settle(fs->meta, job->sequence);
    if (error && error != -ECANCELED)
        log_warning("%s %s: the next start runs it again: %s", job->key, job->facts.path, strerror(-error));
    hooks_free_job(job);
}

/* -- turns ------------------------------------------------------------------------------------------------
 */

/* With the lock. */
static size_t hooks_count_taken(const struct hooks *hooks, uint32_t uid)
{
    size_t count = 0;
    for (size_t i = 0; i < hooks->taken; i++)
        count += hooks->users[i] == uid;
    return count;
}

/* With the lock. */
static size_t hooks_count_waiting(const struct hooks *hooks, uint32_t uid)
{
    size_t count = 0;
    for (const struct hooks_job *job = hooks->first; job; job = job->next)
        count += job->uid == uid;
    return count;
}

/* The first one whose user has a turn; NULL: none. */
static struct hooks_job *hooks_take(struct hooks *hooks)
{
    struct hooks_job *job = NULL;
    pthread_mutex_lock(&hooks->lock);
    for (struct hooks_job **link = &hooks->first; *link && !job; link = &(*link)->next) {
        if (hooks_count_taken(hooks, (*link)->uid) >= HOOKS_OF_ONE_USER)
            continue;
        job = *link;
        *link = job->next;
        hooks->last = *link ? hooks->last : link;
        hooks->waiting--;
        hooks->users[hooks->taken++] = job->uid;
        break;
    }
    pthread_mutex_unlock(&hooks->lock);
    return job;
}

static void hooks_give_turn_back(struct hooks *hooks, uint32_t uid)
{
    size_t i = 0;
    pthread_mutex_lock(&hooks->lock);
    while (hooks->users[i] != uid)
        i++;
    hooks->users[i] = hooks->users[--hooks->taken];
    pthread_mutex_unlock(&hooks->lock);
}

/* For each that was added: runs those whose turn it is. One that waits for its user's turn is taken by who
 * gives that back. */
static void hooks_work(void *context, unsigned worker)
{
    (void)worker;
    struct hooks *hooks = context;
    struct hooks_job *job;
    while ((job = hooks_take(hooks))) {
        uint32_t uid = job->uid;
        hooks_run(job);
        hooks_give_turn_back(hooks, uid);
    }
}

static struct hooks_job *hooks_make_job(struct filesystem *fs, uint64_t sequence, uint64_t directory,
                                        const char *text)
{
    struct policy_value value;
    struct hooks_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    *job = (struct hooks_job){.fs = fs, .sequence = sequence, .directory = directory, .text = strdup(text)};
    if (job->text && hook_facts_read(text, &job->facts) == 0) {
        snprintf(job->key, sizeof job->key, POLICY_HOOK "%.32s", job->facts.event);
        event_make_readable(job->text);
        job->uid = hooks_find(fs, directory, job->key, &value) == 0 ? value.found.uid : UINT32_MAX;
        return job;
    }
    hooks_free_job(job);
    return NULL;
}

/* False: too many wait. */
static bool hooks_queue(struct hooks *hooks, struct hooks_job *job)
{
    pthread_mutex_lock(&hooks->lock);
    bool fits = hooks->waiting < HOOKS_WAITING && hooks_count_waiting(hooks, job->uid) < HOOKS_WAITING_OF_ONE;
    if (fits) {
        *hooks->last = job;
        hooks->last = &job->next;
        hooks->waiting++;
    }
    pthread_mutex_unlock(&hooks->lock);
    return fits;
}

void hooks_add(struct filesystem *fs, uint64_t sequence, uint64_t directory, const char *text)
{
    struct hooks *hooks = fs->hooks;
    if (!hooks || atomic_load(&hooks->stopping))
        return;
    struct hooks_job *job = hooks_make_job(fs, sequence, directory, text);
    bool queued = job && hooks_queue(hooks, job);
    /* Without memory it waits for whoever runs next. */
    if (queued && workers_submit(hooks->workers, hooks_work, hooks) == 0)
        return;
    log_warning("event %llu: its hook is not run now: %s; the next start runs it",
                (unsigned long long)sequence, job && !queued ? "too many wait" : "no memory");
    if (job && !queued)
        hooks_free_job(job);
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

static bool hooks_is_ours(const struct stat *status)
{
    return status->st_uid == geteuid() && !(status->st_mode & (S_IWGRP | S_IWOTH));
}

static bool hooks_are_trusted(const struct filesystem *fs)
{
    struct stat store, database;
    return fstat(fs->store->fd, &store) == 0 && hooks_is_ours(&store) &&
           fstatat(fs->store->fd, STORE_DATABASE, &database, AT_SYMLINK_NOFOLLOW) == 0 &&
           hooks_is_ours(&database);
}

errint hooks_start(struct filesystem *fs)
{
    if (fs->options->read_only || !fs->options->hooks)
        return 0;
    if (!hooks_are_trusted(fs)) {
        log_info("hooks are not run: others than this daemon's user own the store, or can write to it");
        return 0;
    }
    struct hooks *hooks = calloc(1, sizeof *hooks);
    if (!hooks)
        return -ENOMEM;
    pthread_mutex_init(&hooks->lock, NULL);
    hooks->last = &hooks->first;
    hooks->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    errint error = hooks->stop_fd < 0 ? -errno : workers_start(HOOKS_AT_A_TIME, "hook", &hooks->workers);
    if (error) {
        if (hooks->stop_fd >= 0)
            close(hooks->stop_fd);
        free(hooks);
        return error;
    }
    fs->hooks = hooks;
    return 0;
}

void hooks_stop(struct filesystem *fs)
{
    struct hooks *hooks = fs->hooks;
    if (!hooks)
        return;
    pthread_mutex_lock(&hooks->lock);
    atomic_store(&hooks->stopping, true);
    eventfd_write(hooks->stop_fd, 1);
    pthread_mutex_unlock(&hooks->lock);
    workers_stop(hooks->workers);
    /* Those whose worker could not be told are left to the next start. */
    for (struct hooks_job *job; (job = hooks->first);) {
        hooks->first = job->next;
        hooks_free_job(job);
    }
    pthread_mutex_destroy(&hooks->lock);
    fs->hooks = NULL;
    close(hooks->stop_fd);
    free(hooks);
}
