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

#include "base/text.h"
#include "fs/filesystem.h"

/* "PROCESS START DIRECTORY " of each, in the order in which they were read. */
#define LOADS_SETTING "loaded-by"

enum {
    LOADS_PROCESSES = 1024, /* the one that read longest ago gives way */
    LOADS_DIRECTORIES = 16, /* of one process; the second gives way */
    LOADS_LEVELS = 4,       /* so deep a file lies in a checkpoint at most */
};

struct load_process {
    struct load_process *next; /* the one that read last is the first */
    pid_t id;
    uint64_t start; /* tells it from others that had its number before */
    int fd;         /* pidfd: readable when it has ended */
    uint64_t directories[LOADS_DIRECTORIES];
    size_t count;
    size_t last; /* index of the one that was read last */
};

struct loads {
    pthread_mutex_t lock;
    struct load_process *first;
};

/* -- processes --------------------------------------------------------------------------------------------
 */

/* A line of /proc/ID/NAME: the bytes that were read; -1: there is none. */
static ssize_t loads_read_proc(pid_t id, const char *name, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)id, name);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, out, size - 1);
    if (length >= 0)
        out[length] = '\0';
    return length;
}

/* The process of a thread; 0: it has ended. */
static pid_t loads_find_process(pid_t thread)
{
    char text[1024];
    const char *line =
        loads_read_proc(thread, "status", text, sizeof text) > 0 ? strstr(text, "\nTgid:") : NULL;
    return line ? (pid_t)strtol(line + sizeof "\nTgid:" - 1, NULL, 10) : 0;
}

/* In ticks since the boot: the 20th field after the name, which ends with the last bracket. 0: unknown. */
static uint64_t loads_read_start(pid_t id)
{
    char text[1024];
    const char *at = loads_read_proc(id, "stat", text, sizeof text) > 0 ? strrchr(text, ')') : NULL;
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
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

/* Whether it is new. */
static bool loads_add(struct load_process *process, uint64_t directory)
{
    for (size_t i = 0; i < process->count; i++) {
        if (process->directories[i] == directory) {
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
    process->directories[process->count++] = directory;
    return true;
}

static bool loads_note_directory(struct loads *loads, pid_t process, uint64_t directory)
{
    pthread_mutex_lock(&loads->lock);
    struct load_process *found = loads_find(loads, process);
    bool added = found && loads_add(found, directory);
    pthread_mutex_unlock(&loads->lock);
    return added;
}

bool loads_note(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    struct meta_name name;
    size_t count;
    if (!fs->loads || thread == 0)
        return false;
    pid_t process = loads_find_process(thread);
    if (process == 0 || meta_find_names(fs->meta, ino, NULL, &name, 1, &count) < 0 || count == 0)
        return false;
    return loads_note_directory(fs->loads, process, name.parent);
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

/* The child of `run` that the directory is, or lies in; 0: it lies elsewhere. */
static uint64_t loads_child_of(struct filesystem *fs, uint64_t run, uint64_t directory)
{
    uint64_t child = 0;
    for (int level = 0; level < LOADS_LEVELS; level++) {
        if (directory == run)
            return child;
        child = directory;
        if (directory == META_ROOT_INO || meta_parent(fs->meta, directory, &directory) < 0)
            break;
    }
    return 0;
}

/* The lock is held: the namespace's is taken within. */
static bool loads_process_has(struct filesystem *fs, const struct load_process *process, uint64_t run,
                              uint64_t checkpoint)
{
    uint64_t first = 0, last = 0;
    bool found = false;
    for (size_t i = 0; i < process->count; i++) {
        uint64_t child = loads_child_of(fs, run, process->directories[i]);
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
    pid_t process = except ? loads_find_process(except) : 0;
    pthread_mutex_lock(&loads->lock);
    loads_sweep(loads);
    for (const struct load_process *at = loads->first; at && !has; at = at->next)
        has = at->id != process && loads_process_has(fs, at, run, checkpoint);
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
    loads_sweep(loads);
    for (const struct load_process *at = loads->first; at; at = at->next) {
        for (size_t i = 0; i < at->count; i++)
            text_print(&text, "%d %" PRIu64 " %" PRIu64 " ", (int)at->id, at->start, at->directories[i]);
    }
    pthread_mutex_unlock(&loads->lock);
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
            loads_note_directory(loads, id, directory);
    }
    return error == -ENOENT ? 0 : error;
}

void loads_release(struct filesystem *fs)
{
    struct loads *loads = fs->loads;
    fs->loads = NULL;
    while (loads && loads->first) {
        struct load_process *process = loads->first;
        loads->first = process->next;
        loads_free(process);
    }
    if (loads)
        pthread_mutex_destroy(&loads->lock);
    free(loads);
}
