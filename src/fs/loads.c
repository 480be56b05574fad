/* SPDX-License-Identifier: Apache-2.0 */
/* Who has read what. */
#include "fs/loads.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "base/text.h"
#include "fs/filesystem.h"

/* "PROCESS START DIRECTORY " of each, in the order in which they were read. */
#define LOADS_SETTING "loaded-by"
/* So long a thread is held for the same. */
#define LOADS_FRESH_NS CLOCK_NS_PER_SECOND

enum {
    LOADS_PROCESSES = 1024, /* the one that read longest ago gives way */
    LOADS_DIRECTORIES = 16, /* of one process; the second gives way */
    LOADS_LEVELS = 5,       /* a directory and those above it, up to the run */
    LOADS_PENDING = 65536,  /* opens that are not looked at yet; more are not noted */
};

/* A directory that was read in, and those above it. */
struct load_directory {
    uint64_t way[LOADS_LEVELS];
};

struct load_process {
    struct load_process *next; /* the one that read last is the first */
    pid_t id;
    uint64_t start; /* tells it from others that had its number before */
    int fd;         /* pidfd: readable when it has ended */
    struct load_directory directories[LOADS_DIRECTORIES];
    size_t count;
    size_t last; /* index of the one that was read last */
};

struct loads {
    pthread_mutex_t lock; /* nothing is called with it */
    struct load_process *first;
    bool changed;                 /* since it was written down */
    struct ids processes, files;  /* opens that are not looked at yet, in their order */
    pid_t thread, thread_process; /* that was found last */
    int64_t thread_at;            /* clock_monotonic() */
};

/* -- processes --------------------------------------------------------------------------------------------
 */

/* The process of a thread; 0: it has ended. The same thread opens many files in a row: /proc is not read each
 * time. */
static pid_t loads_find_process(struct loads *loads, pid_t thread)
{
    struct process process;
    int64_t now = clock_monotonic();
    pthread_mutex_lock(&loads->lock);
    bool known = loads->thread == thread && now - loads->thread_at < LOADS_FRESH_NS;
    pid_t id = loads->thread_process;
    pthread_mutex_unlock(&loads->lock);
    if (known)
        return id;
    if (process_of_thread(thread, &process) < 0)
        return 0;
    pthread_mutex_lock(&loads->lock);
    loads->thread = thread;
    loads->thread_process = process.pid;
    loads->thread_at = now;
    pthread_mutex_unlock(&loads->lock);
    return process.pid;
}

/* In ticks since the boot; 0: it has ended. */
static uint64_t loads_read_start(pid_t id)
{
    struct process process;
    return process_of_thread(id, &process) == 0 && process.pid == id ? process.started : 0;
}

static bool loads_runs(const struct load_process *process)
{
    struct pollfd event = {.fd = process->fd, .events = POLLIN};
    return poll(&event, 1, 0) == 0;
}

static void loads_free(struct load_process *process)
{
    close(process->fd);
    free(process);
}

/* Those that have ended go, and those that are too many. The lock is held. */
static void loads_sweep(struct loads *loads)
{
    size_t count = 0;
    for (struct load_process **link = &loads->first; *link;) {
        struct load_process *process = *link;
        if (loads_runs(process) && ++count <= LOADS_PROCESSES) {
            link = &process->next;
            continue;
        }
        *link = process->next;
        loads_free(process);
    }
}

/* NULL: it has ended, or there is no memory. */
static struct load_process *loads_make(struct loads *loads, pid_t id)
{
    int fd = (int)syscall(SYS_pidfd_open, id, 0);
    struct load_process *process = fd < 0 ? NULL : calloc(1, sizeof *process);
    if (!process) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    *process = (struct load_process){.next = loads->first, .id = id, .start = loads_read_start(id), .fd = fd};
    return loads->first = process;
}

/* The process, moved to the front. */
static struct load_process *loads_find(struct loads *loads, pid_t id)
{
    for (struct load_process **link = &loads->first; *link; link = &(*link)->next) {
        struct load_process *process = *link;
        if (process->id != id)
            continue;
        *link = process->next;
        if (!loads_runs(process)) {
            loads_free(process);
            break;
        }
        process->next = loads->first;
        return loads->first = process;
    }
    loads_sweep(loads);
    return loads_make(loads, id);
}

/* -- noting -----------------------------------------------------------------------------------------------
 */

bool loads_note(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    struct loads *loads = fs->loads;
    pid_t process = loads && thread ? loads_find_process(loads, thread) : 0;
    if (process == 0)
        return false;
    pthread_mutex_lock(&loads->lock);
    bool first = loads->files.count == 0;
    bool fits = loads->files.count < LOADS_PENDING && ids_append(&loads->files, ino) == 0;
    if (fits && ids_append(&loads->processes, (uint64_t)process) < 0)
        loads->files.count--;
    pthread_mutex_unlock(&loads->lock);
    return first && fits;
}

static void loads_find_way(struct filesystem *fs, uint64_t directory, struct load_directory *out)
{
    *out = (struct load_directory){0};
    for (int level = 0; level < LOADS_LEVELS; level++) {
        out->way[level] = directory;
        if (directory == META_ROOT_INO || meta_parent(fs->meta, directory, &directory) < 0)
            return;
    }
}

/* Whether it is new. */
static bool loads_add(struct load_process *process, const struct load_directory *directory)
{
    for (size_t i = 0; i < process->count; i++) {
        if (process->directories[i].way[0] == directory->way[0]) {
            process->last = i;
            return false;
        }
    }
    if (process->count == LOADS_DIRECTORIES) {
        process->count--;
        memmove(process->directories + 1, process->directories + 2,
                (process->count - 1) * sizeof *process->directories);
    }
    process->last = process->count;
    process->directories[process->count++] = *directory;
    return true;
}

static void loads_note_directory(struct filesystem *fs, pid_t process, uint64_t directory)
{
    struct load_directory way;
    loads_find_way(fs, directory, &way);
    pthread_mutex_lock(&fs->loads->lock);
    struct load_process *found = loads_find(fs->loads, process);
    fs->loads->changed |= found && loads_add(found, &way);
    pthread_mutex_unlock(&fs->loads->lock);
}

void loads_settle(struct filesystem *fs)
{
    struct loads *loads = fs->loads;
    struct meta_name name;
    size_t count;
    if (!loads)
        return;
    pthread_mutex_lock(&loads->lock);
    cleanup_ids struct ids processes = loads->processes, files = loads->files;
    loads->processes = loads->files = (struct ids){0};
    pthread_mutex_unlock(&loads->lock);
    for (size_t i = 0; i < files.count; i++) {
        if (meta_find_names(fs->meta, files.at[i], NULL, &name, 1, &count) == 0 && count > 0)
            loads_note_directory(fs, (pid_t)processes.at[i], name.parent);
    }
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

/* The child of `run` that the directory is, or lies in; 0: it lies elsewhere. */
static uint64_t loads_child_of(const struct load_directory *directory, uint64_t run)
{
    for (int level = 1; level < LOADS_LEVELS; level++) {
        if (directory->way[level] == run)
            return directory->way[level - 1];
    }
    return 0;
}

static bool loads_process_has(const struct load_process *process, uint64_t run, uint64_t checkpoint)
{
    uint64_t first = 0, last = 0;
    bool found = false;
    for (size_t i = 0; i < process->count; i++) {
        uint64_t child = loads_child_of(&process->directories[i], run);
        if (!child)
            continue;
        first = first ? first : child;
        last = found ? last : child;
        found |= i == process->last;
    }
    return checkpoint == first || checkpoint == last;
}

bool loads_has(struct filesystem *fs, uint64_t run, uint64_t checkpoint, pid_t except)
{
    struct loads *loads = fs->loads;
    bool has = false;
    if (!loads)
        return false;
    loads_settle(fs);
    pid_t process = except ? loads_find_process(loads, except) : 0;
    pthread_mutex_lock(&loads->lock);
    for (const struct load_process *at = loads->first; at && !has; at = at->next)
        has = at->id != process && loads_process_has(at, run, checkpoint) && loads_runs(at);
    pthread_mutex_unlock(&loads->lock);
    return has;
}

/* -- for a successor --------------------------------------------------------------------------------------
 */

errint loads_keep(struct filesystem *fs)
{
    struct loads *loads = fs->loads;
    cleanup_text struct text text = {0};
    if (!loads)
        return 0;
    pthread_mutex_lock(&loads->lock);
    bool changed = loads->changed;
    loads->changed = false;
    loads_sweep(loads);
    for (const struct load_process *at = loads->first; at && changed; at = at->next) {
        for (size_t i = 0; i < at->count; i++)
            text_print(&text, "%d %" PRIu64 " %" PRIu64 " ", (int)at->id, at->start,
                       at->directories[i].way[0]);
    }
    pthread_mutex_unlock(&loads->lock);
    if (!changed)
        return 0;
    text_append_byte(&text, '\0');
    return text.failed ? -ENOMEM : meta_setting_put(fs->meta, LOADS_SETTING, text.at);
}

errint loads_start(struct filesystem *fs)
{
    cleanup_free char *value = NULL;
    struct loads *loads = calloc(1, sizeof *loads);
    if (!loads)
        return -ENOMEM;
    pthread_mutex_init(&loads->lock, NULL);
    fs->loads = loads;
    errint error = meta_setting_get(fs->meta, LOADS_SETTING, &value);
    int id, used;
    uint64_t start, directory;
    for (const char *at = value; !error && at; at += used) {
        if (sscanf(at, "%d %" SCNu64 " %" SCNu64 " %n", &id, &start, &directory, &used) != 3)
            break;
        if (id > 0 && start != 0 && loads_read_start(id) == start)
            loads_note_directory(fs, id, directory);
    }
    return error == -ENOENT ? 0 : error;
}

void loads_release(struct filesystem *fs)
{
    struct loads *loads = fs->loads;
    fs->loads = NULL;
    if (!loads)
        return;
    while (loads->first) {
        struct load_process *process = loads->first;
        loads->first = process->next;
        loads_free(process);
    }
    ids_release(&loads->processes);
    ids_release(&loads->files);
    pthread_mutex_destroy(&loads->lock);
    free(loads);
}
