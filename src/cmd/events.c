/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs events`: what a mount's daemon has done by itself, and does. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/event_stream.h"
#include "cmd/exit.h"
#include "format/plain_text.h"

struct events_command {
    bool json, follow, since;
    uint64_t after; /* lines with greater numbers */
    char time[32];  /* and from this time on, as the lines have it; "": any */
    struct event_stream stream;
};

/* -- since when -------------------------------------------------------------------------------------------
 */

/* "90s", "10m", "2h", "7d": so long ago. */
static bool events_parse_ago(const char *text, time_t *out)
{
    static const struct {
        char letter;
        long seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 24 * 3600}};
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    long number = strtol(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (*end == units[i].letter && end[1] == '\0' && errno == 0 && number <= 100000000) {
            *out = time(NULL) - number * units[i].seconds;
            return true;
        }
    }
    return false;
}

/* "2026-11-27" or "2026-11-27T10:00:00Z", in UTC. */
static bool events_parse_date(const char *text, time_t *out)
{
    static const char *const formats[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct tm parts = {0};
        const char *end = strptime(text, formats[i], &parts);
        if (end && *end == '\0') {
            *out = timegm(&parts);
            return true;
        }
    }
    return false;
}

static bool events_parse_since(struct events_command *command, const char *text)
{
    time_t time;
    struct tm parts;
    command->since = true;
    if (*text && strspn(text, "0123456789") == strlen(text)) {
        errno = 0;
        command->after = strtoull(text, NULL, 10);
        return errno == 0;
    }
    /* Without the zone, so that fractions of the same second are later. */
    return (events_parse_ago(text, &time) || events_parse_date(text, &time)) && gmtime_r(&time, &parts) &&
           strftime(command->time, sizeof command->time, "%Y-%m-%dT%H:%M:%S", &parts) > 0;
}

/* -- printing ---------------------------------------------------------------------------------------------
 */

static void events_print_text(const char *text, const char *before)
{
    cleanup_free char *plain = text ? plain_text(text) : NULL;
    if (plain && *plain)
        printf("%s%s", before, plain);
}

static void events_print(const cJSON *event)
{
    const char *time = event_stream_text(event, "time"), *kind = event_stream_text(event, "event");
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(event, "count");
    printf("%-24.24s  %-9.20s", time ? time : "", kind ? kind : "?");
    events_print_text(event_stream_text(event, "path"), "  ");
    if (cJSON_IsNumber(count))
        printf("  %.0f events", count->valuedouble);
    events_print_text(event_stream_text(event, "reason"), ": ");
    putchar('\n');
}

static bool events_take(void *context, const char *line, const cJSON *event)
{
    struct events_command *command = context;
    const char *time = event_stream_text(event, "time");
    bool lost = event_stream_text(event, "path") == NULL;
    if (!lost && !event_stream_is_at(event, command->stream.path, true))
        return true;
    if (command->time[0] && time && strcmp(time, command->time) < 0)
        return true;
    if (command->json)
        puts(line);
    else
        events_print(event);
    return fflush(stdout) == 0;
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int events_follow(struct events_command *command)
{
    for (;;) {
        /* Whoever read what is printed may go before the next event comes. */
        struct pollfd fds[] = {{.fd = command->stream.fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents & (POLLERR | POLLNVAL))
            return 0;
        int more = event_stream_read(&command->stream, events_take, command);
        if (more <= 0)
            return more;
    }
}

static int events_run_path(struct events_command *command, const char *path)
{
    cleanup_fd int fd = -1;
    int code = directory_open(path, &fd);
    if (code)
        return code;
    errint error = event_stream_open(fd, command->follow, &command->stream);
    if (!error && (command->since || !command->follow))
        error = event_stream_kept(&command->stream, command->after + 1, events_take, command);
    if (!error && command->follow)
        error = events_follow(command);
    if (error == -EXDEV) {
        log_error("%s: is reached through a bind mount without the root of the mount: it cannot be followed",
                  path);
        return EXIT_FAILED;
    }
    return error ? directory_explain(path, -error) : EXIT_FINE;
}

static int events_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"json", no_argument, NULL, 'j'},
                                                 {"follow", no_argument, NULL, 'f'},
                                                 {"since", required_argument, NULL, 's'},
                                                 {0}};
    struct events_command command = {.stream = EVENT_STREAM_CLOSED};
    int option;
    while ((option = getopt_long(argc, argv, ":jfs:", long_options, NULL)) != -1) {
        if (option == 'j')
            command.json = true;
        else if (option == 'f')
            command.follow = true;
        else if (option != 's')
            return command_usage_error(&command_events, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        else if (!events_parse_since(&command, optarg))
            return command_usage_error(&command_events,
                                       "--since: expected a number, a time or an age, found '%s'", optarg);
    }
    if (argc - optind > 1)
        return command_usage_error(&command_events, "expected at most one PATH, found %d", argc - optind);
    int code = events_run_path(&command, optind < argc ? argv[optind] : ".");
    event_stream_close(&command.stream);
    return code;
}

const struct command command_events = {
    .name = "events",
    .synopsis = "[-j] [-f] [-s SINCE] [PATH]",
    .summary = "print what a mount's daemon has done by itself",
    .details =
        "  -j, --json         lines of JSON, as .ckptfs/events has them\n"
        "  -f, --follow       only what comes, until the mount ends; with --since, what is kept first\n"
        "  -s, --since SINCE  only what is newer than the event with this number, or not older than a time\n"
        "                     (2026-11-27, 2026-11-27T10:00:00Z) or an age (90s, 10m, 2h, 7d)\n"
        "\n"
        "PATH is a directory on the mount: only events of it and of what is below it; default: the working\n"
        "directory.\n",
    .run = events_run,
};
