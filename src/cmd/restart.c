/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs restart`: a new daemon, from the program that is installed now, takes over a mount in use. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"

enum { RESTART_SECONDS = 60, RESTART_LOOK_MS = 50 };

struct restart_state {
    int keeper, daemon;
    double generation;
};

static int restart_read_state(const struct mount_entry *entry, unsigned seconds, struct restart_state *out)
{
    cleanup_free char *text = NULL;
    int code = mounted_ask_status(entry, seconds, &text);
    if (code)
        return code;
    cJSON *document = cJSON_Parse(text);
    const cJSON *keeper = cJSON_GetObjectItemCaseSensitive(document, "keeper_pid");
    const cJSON *daemon = cJSON_GetObjectItemCaseSensitive(document, "daemon_pid");
    const cJSON *generation = cJSON_GetObjectItemCaseSensitive(document, "generation");
    bool whole = cJSON_IsNumber(keeper) && cJSON_IsNumber(daemon) && cJSON_IsNumber(generation);
    if (whole)
        *out = (struct restart_state){keeper->valueint, daemon->valueint, generation->valuedouble};
    cJSON_Delete(document);
    if (whole)
        return EXIT_FINE;
    log_error("%s did not say who keeps it; unmount and mount it instead", entry->mountpoint);
    return EXIT_FAILED;
}

/* A number from another container's view, or one that was given to another process since, must not be
 * signalled. */
static bool restart_is_keeper(int pid)
{
    char path[64], name[32];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;
    if (pid <= 1 || length <= 0)
        return false;
    name[length] = '\0';
    return strcmp(name, KEEPER_PROCESS_NAME "\n") == 0;
}

static int restart_signal_keeper(const struct mount_entry *entry, int pid)
{
    if (!restart_is_keeper(pid)) {
        log_error("the keeper of %s is gone or in another container; unmount and mount it instead",
                  entry->mountpoint);
        return EXIT_FAILED;
    }
    if (kill(pid, SIGHUP) == 0)
        return EXIT_FINE;
    log_error("%s may not be restarted: %m; run as the user who mounted it or as root", entry->mountpoint);
    return errno == EPERM ? EXIT_NOT_PERMITTED : EXIT_FAILED;
}

static int restart_mount(const struct mount_entry *entry, unsigned seconds)
{
    int64_t deadline = clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
    struct restart_state before, now;
    int code = restart_read_state(entry, seconds, &before);
    if (!code)
        code = restart_signal_keeper(entry, before.keeper);
    if (code)
        return code;
    for (;;) {
        int64_t left = deadline - clock_monotonic();
        if (left <= 0)
            break;
        code = restart_read_state(entry, (unsigned)(left / CLOCK_NS_PER_SECOND) + 1, &now);
        if (code)
            return code;
        if (now.generation > before.generation) {
            printf("%s: process %d has taken over from %d\n", entry->mountpoint, now.daemon, before.daemon);
            return EXIT_FINE;
        }
        nanosleep(&(struct timespec){.tv_nsec = RESTART_LOOK_MS * 1000000}, NULL);
    }
    log_error("%s has still its old daemon after %u s; see the log", entry->mountpoint, seconds);
    return EXIT_TIMED_OUT;
}

static int restart_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"timeout", required_argument, NULL, 't'}, {0}};
    unsigned seconds = RESTART_SECONDS;
    int option;
    while ((option = getopt_long(argc, argv, ":t:", long_options, NULL)) != -1) {
        if (option != 't')
            return command_usage_error(&command_restart, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        if (!command_parse_seconds(optarg, &seconds))
            return command_usage_error(&command_restart, "--timeout: expected seconds, found '%s'", optarg);
    }
    if (argc - optind != 1)
        return command_usage_error(&command_restart, "expected MOUNTPOINT, found %d arguments",
                                   argc - optind);
    cleanup_mount_table struct mount_table table = {0};
    const struct mount_entry *entry;
    int code = mounted_find(argv[optind], &table, &entry);
    return code ? code : restart_mount(entry, seconds);
}

const struct command command_restart = {
    .name = "restart",
    .synopsis = "[-t SECONDS] MOUNTPOINT",
    .summary = "let a new daemon take over a mount in use, for an upgrade",
    .details = "  -t, --timeout SECONDS   do not wait longer for the new daemon (60)\n"
               "\n"
               "Open files stay open; programs notice a pause. The program that was started is found again "
               "by its path.\n",
    .run = restart_run,
};
