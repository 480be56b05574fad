/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the command, listening to it, and ending it. */
#include "fs/export_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "fs/export_child.h"
#include "fs/mount_table.h"

/* What the command says goes into the log; its last line is why it failed. */
struct run_talk {
    const char *path;
    char line[EXPORT_PROBLEM_MAX];
    size_t length;
};

static void run_log_line(struct run_talk *talk)
{
    for (size_t i = 0; i < talk->length; i++) {
        if ((uint8_t)talk->line[i] < ' ')
            talk->line[i] = '?';
    }
    talk->line[talk->length] = '\0';
    if (talk->length > 0)
        log_info("export path=\"%s\": %s", talk->path, talk->line);
    talk->length = 0;
}

static void run_hear(struct run_talk *talk, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n')
            run_log_line(talk);
        else if (talk->length < sizeof talk->line - 1)
            talk->line[talk->length++] = bytes[i];
    }
}

/* The mount is gone from where the daemon lives: only what the export has open keeps it. */
static bool run_is_unmounted(const char *mountpoint)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) < 0)
        return false;
    const struct mount_entry *entry = mount_table_find(&table, mountpoint);
    return !entry || !mount_entry_is_ours(entry);
}

/* Reads what the child says until it has ended, or has to. False: it had to. */
static bool run_listen(const struct export_child *child, const char *mountpoint, int end_fd,
                       struct run_talk *talk)
{
    cleanup_fd int mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    struct pollfd events[] = {{.fd = child->output, .events = POLLIN},
                              {.fd = end_fd, .events = POLLIN},
                              {.fd = mounts, .events = POLLPRI}};
    for (;;) {
        char bytes[512];
        if (poll(events, sizeof events / sizeof *events, -1) < 0 && errno != EINTR)
            return false;
        if (events[1].revents || (events[2].revents && run_is_unmounted(mountpoint)))
            return false;
        ssize_t got = events[0].revents ? read(child->output, bytes, sizeof bytes) : -1;
        if (got == 0)
            return true;
        if (got > 0)
            run_hear(talk, bytes, (size_t)got);
    }
}

int export_run(const struct export_order *order, enum export_reason reason, const char *mountpoint,
               int end_fd, char problem[EXPORT_PROBLEM_MAX])
{
    const char *arguments[EXPORT_ARGUMENTS_MAX + 1];
    struct run_talk talk = {.path = order->path};
    struct export_child child;
    export_order_arguments(order, reason, arguments);
    errint error = export_child_start(&order->user, arguments, &child);
    if (error)
        return error;
    bool ended = run_listen(&child, mountpoint, end_fd, &talk);
    if (!ended)
        export_child_stop(&child);
    int code = export_child_wait(&child);
    close(child.output);
    if (talk.length > 0)
        run_log_line(&talk);
    snprintf(problem, EXPORT_PROBLEM_MAX, "%s", talk.line);
    return ended ? code : -ECANCELED;
}
