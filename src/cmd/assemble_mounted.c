/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the mount that a checkpoint lies on. */
#include "cmd/assemble_mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/log.h"
#include "base/size_text.h"
#include "cmd/exit.h"
#include "format/plain_text.h"
#include "fs/control.h"
#include "fs/mount_table.h"

#define MOUNTED_VIEWS  "/.ckptfs"
#define MOUNTED_MODELS MOUNTED_VIEWS "/models"

/* Most assemblies take less; a long one is looked at less often. */
enum { MOUNTED_PAUSE_MS = 20, MOUNTED_PAUSE_MAX_MS = 200 };

/* -- where it lies ----------------------------------------------------------------------------------------
 */

/* The mount of ours that an open file lies on; NULL: none. */
static const struct mount_entry *mounted_at(const struct mount_table *table, int fd, const char *path)
{
    struct stat status;
    char device[32];
    if (fstat(fd, &status) < 0)
        return NULL;
    snprintf(device, sizeof device, "%u:%u", major(status.st_dev), minor(status.st_dev));
    for (size_t i = table->count; i-- > 0;) {
        const struct mount_entry *entry = &table->entries[i];
        size_t length = strlen(entry->mountpoint);
        bool below = !path || (strncmp(path, entry->mountpoint, length) == 0 &&
                               (path[length] == '/' || path[length] == '\0'));
        if (below && mount_entry_is_ours(entry) && strcmp(entry->device, device) == 0)
            return entry;
    }
    return NULL;
}

bool assemble_is_mounted(int directory)
{
    cleanup_mount_table struct mount_table table = {0};
    return mount_table_read(&table) == 0 && mounted_at(&table, directory, NULL) != NULL;
}

int64_t assemble_stored_bytes(int directory, const char *name)
{
    struct control_usage usage;
    cleanup_fd int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && ioctl(fd, CKPTFS_IOCTL_USAGE, &usage) == 0 ? (int64_t)usage.unique_bytes : -1;
}

/* Whether the real path is one of the view's. */
static bool mounted_is_view(const struct mount_entry *entry, const char *path)
{
    const char *below = path + strlen(entry->mountpoint);
    size_t length = sizeof MOUNTED_MODELS - 1;
    return strncmp(below, MOUNTED_MODELS, length) == 0 && (below[length] == '/' || below[length] == '\0');
}

/* The directory as the mount's view shows it. */
static void mounted_print_view(const struct mount_entry *entry, const char *path)
{
    printf("%s%s%s\n", entry->mountpoint, mounted_is_view(entry, path) ? "" : MOUNTED_MODELS,
           path + strlen(entry->mountpoint));
}

char *assemble_view_of(const char *path)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_fd int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_free char *real = directory < 0 ? NULL : realpath(path, NULL);
    const struct mount_entry *entry =
        real && mount_table_read(&table) == 0 ? mounted_at(&table, directory, real) : NULL;
    char *view;
    if (!entry || mounted_is_view(entry, real) ||
        asprintf(&view, "%s" MOUNTED_MODELS "%s", entry->mountpoint, real + strlen(entry->mountpoint)) < 0)
        return NULL;
    return view;
}

char *assemble_mountpoint_of(const char *path)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    cleanup_free char *real = fd < 0 ? NULL : realpath(path, NULL);
    const struct mount_entry *entry =
        real && mount_table_read(&table) == 0 ? mounted_at(&table, fd, real) : NULL;
    return entry ? strdup(entry->mountpoint) : NULL;
}

char *assemble_origin_of(const char *path)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    cleanup_free char *real = fd < 0 ? NULL : realpath(path, NULL);
    const struct mount_entry *entry =
        real && mount_table_read(&table) == 0 ? mounted_at(&table, fd, real) : NULL;
    char *origin;
    if (!entry)
        return steal_pointer(real);
    const char *below = real + strlen(entry->mountpoint);
    if (mounted_is_view(entry, real))
        below += sizeof MOUNTED_MODELS - 1;
    return asprintf(&origin, "%s:%s", entry->source, below) < 0 ? NULL : origin;
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

static void mounted_show(const struct control_assemble *answer, bool *shown)
{
    char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX];
    if (!isatty(STDERR_FILENO))
        return;
    *shown = true;
    if (answer->state == CONTROL_ASSEMBLE_RUNNING)
        fprintf(stderr, "\033[K%.0f %%, %s of %s\r",
                answer->total > 0 ? 100.0 * (double)answer->done / (double)answer->total : 100.0,
                size_text((double)answer->done, done), size_text((double)answer->total, total));
    else
        fprintf(stderr, "\033[Kwaiting%s%s\r", answer->reason[0] ? ": " : "", answer->reason);
}

/* One question: 0 and the answer, or -errno. */
static errint mounted_ask_state(int directory, bool ask, struct control_assemble *answer)
{
    *answer = (struct control_assemble){.ask = ask};
    if (ioctl(directory, CKPTFS_IOCTL_ASSEMBLE, answer) < 0)
        return -errno;
    answer->reason[sizeof answer->reason - 1] = '\0';
    return 0;
}

/* A daemon that took over knows nothing of what the last one was asked. */
static errint mounted_wait(int directory, struct control_assemble *answer)
{
    bool ask = true, shown = false;
    errint error;
    for (long pause = MOUNTED_PAUSE_MS;; pause = pause < MOUNTED_PAUSE_MAX_MS ? pause * 2 : pause) {
        error = mounted_ask_state(directory, ask, answer);
        if (error || answer->state == CONTROL_ASSEMBLE_DONE || answer->state == CONTROL_ASSEMBLE_REFUSED)
            break;
        ask = answer->state == CONTROL_ASSEMBLE_NONE;
        mounted_show(answer, &shown);
        nanosleep(&(struct timespec){.tv_nsec = pause * 1000000}, NULL);
    }
    if (shown)
        fputs("\r\033[K", stderr);
    return error;
}

static int mounted_explain(const char *path, errint error)
{
    switch (-error) {
    case EPERM:
        log_error("%s: only its owner, who may write it, and root can have it assembled", path);
        return EXIT_NOT_PERMITTED;
    case EROFS: log_error("%s: the mount is read-only: nothing is assembled on it", path); return EXIT_FAILED;
    case ENOTTY:
        log_error("%s: the mount's daemon is of an older version, which cannot be asked", path);
        return EXIT_FAILED;
    case ENOTCONN:
    case ECONNABORTED: log_error("%s: the mount's daemon is gone", path); return EXIT_MOUNTPOINT_DEAD;
    default: log_error("%s: %s", path, strerror(-error)); return EXIT_FAILED;
    }
}

int assemble_in_view(const char *path)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_fd int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        log_error("%s: %m", path);
        return EXIT_FAILED;
    }
    cleanup_free char *real = realpath(path, NULL);
    const struct mount_entry *entry =
        real && mount_table_read(&table) == 0 ? mounted_at(&table, directory, real) : NULL;
    if (!entry)
        return -1;
    struct control_assemble answer;
    errint error = mounted_wait(directory, &answer);
    if (error)
        return mounted_explain(path, error);
    if (answer.state == CONTROL_ASSEMBLE_DONE) {
        mounted_print_view(entry, real);
        return EXIT_FINE;
    }
    cleanup_free char *reason = plain_text(answer.reason);
    log_error("%s: not assembled: %s", path, reason ? reason : "no memory");
    return EXIT_FAILED;
}
