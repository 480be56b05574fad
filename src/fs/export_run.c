/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the command, listening to it, and ending it. */
#include "fs/export_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/log.h"
#include "fs/mount_table.h"

enum { RUN_PATIENCE_MS = 2000, RUN_SIGNALLED = 128 };

/* What the command says goes into the log; its last line is why it failed. */
struct run_talk {
    const char *path, *mountpoint;
    char line[EXPORT_PROBLEM_MAX];
};

static void run_log_line(void *context, const char *line)
{
    struct run_talk *talk = context;
    snprintf(talk->line, sizeof talk->line, "%s", line);
    for (char *at = talk->line; *at; at++) {
        if ((uint8_t)*at < ' ')
            *at = '?';
    }
    log_info("export path=\"%s\": %s", talk->path, talk->line);
}

/* The mount is gone from where the daemon lives: only what the export has open keeps it. */
static bool run_is_unmounted(void *context)
{
    const struct run_talk *talk = context;
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) < 0)
        return false;
    const struct mount_entry *entry = mount_table_find(&table, talk->mountpoint);
    return !entry || !mount_entry_is_ours(entry);
}

/* What is kept of the environment: where the program's libraries are, and how it prints. */
enum { RUN_VARIABLES = 4, RUN_VARIABLE_MAX = 4200 };

static void run_fill_environment(const char **out, char lines[][RUN_VARIABLE_MAX])
{
    static const char *const kept[RUN_VARIABLES] = {"PATH", "LD_LIBRARY_PATH", "LANG", "TZ"};
    size_t count = 0;
    for (size_t i = 0; i < RUN_VARIABLES; i++) {
        const char *value = getenv(kept[i]);
        if (value && snprintf(lines[count], RUN_VARIABLE_MAX, "%s=%s", kept[i], value) < RUN_VARIABLE_MAX) {
            out[count] = lines[count];
            count++;
        }
    }
    out[count] = NULL;
}

int export_run(const struct export_order *order, enum export_reason reason, const char *mountpoint,
               int end_fd, char problem[EXPORT_PROBLEM_MAX])
{
    const char *arguments[EXPORT_ARGUMENTS_MAX + 1], *environment[RUN_VARIABLES + 1];
    char variables[RUN_VARIABLES][RUN_VARIABLE_MAX];
    struct run_talk talk = {.path = order->path, .mountpoint = mountpoint};
    cleanup_fd int mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    int status = 0;
    export_order_arguments(order, reason, arguments);
    run_fill_environment(environment, variables);
    const struct run_as child = {
        .user = &order->user,
        .arguments = arguments,
        .environment = environment,
        .patience = RUN_PATIENCE_MS,
        .stop_fd = end_fd,
        .watch = mounts < 0 ? NULL : run_is_unmounted,
        .watch_fd = mounts,
        .line = run_log_line,
        .context = &talk,
    };
    errint error = run_as(&child, &status);
    snprintf(problem, EXPORT_PROBLEM_MAX, "%s", talk.line);
    if (error)
        return error;
    return WIFSIGNALED(status) ? RUN_SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
}
