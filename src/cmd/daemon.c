/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs daemon`: what a keeper starts to serve its mount. Not for people. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mount_options.h"
#include "fs/keeper.h"
#include "fs/serve.h"

/* An open descriptor's number, or -1. */
static int daemon_parse_descriptor(const char *text)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    return *text && *end == '\0' && errno == 0 && number >= 0 && number <= INT_MAX ? (int)number : -1;
}

static int daemon_parse(int argc, char **argv, struct fs_options *serve, struct mount_options *options)
{
    static const struct option long_options[] = {
        {"store", required_argument, NULL, 's'},   {"mountpoint", required_argument, NULL, 'm'},
        {"fuse-fd", required_argument, NULL, 'f'}, {"state-fd", required_argument, NULL, 't'},
        {"lock-fd", required_argument, NULL, 'l'}, {"ready-fd", required_argument, NULL, 'r'},
        {"log", required_argument, NULL, 'g'},     {0}};
    char problem[256];
    int option;
    while ((option = getopt_long(argc, argv, ":o:", long_options, NULL)) != -1) {
        switch (option) {
        case 's': serve->store_path = optarg; break;
        case 'm': serve->mountpoint = optarg; break;
        case 'f': serve->fuse_fd = daemon_parse_descriptor(optarg); break;
        case 't': serve->state_fd = daemon_parse_descriptor(optarg); break;
        case 'l': serve->lock_fd = daemon_parse_descriptor(optarg); break;
        case 'r': serve->ready_fd = daemon_parse_descriptor(optarg); break;
        case 'g':
            if (strcmp(optarg, "syslog") == 0)
                log_configure(LOG_TO_SYSLOG, LOG_LEVEL_INFO, "ckptfs");
            break;
        case 'o':
            /* The mounting command accepted these; an older daemon program may not know one of a newer. */
            if (mount_options_add(options, optarg, problem) != 0)
                return command_usage_error(&command_daemon, "%s", problem);
            break;
        default: return command_usage_error(&command_daemon, "unknown option: %s", argv[optind - 1]);
        }
    }
    if (!serve->store_path || !serve->mountpoint || serve->fuse_fd < 0 || serve->state_fd < 0 ||
        serve->lock_fd < 0 || argc != optind)
        return command_usage_error(&command_daemon,
                                   "this command is for the keeper of a mount; use `ckptfs mount`");
    return EXIT_FINE;
}

static int daemon_run(int argc, char **argv)
{
    cleanup_mount_options struct mount_options options;
    struct fs_options serve = {.fuse_fd = -1, .state_fd = -1, .lock_fd = -1, .ready_fd = -1};
    /* One that is run as /proc/self/exe would be called "exe". */
    prctl(PR_SET_NAME, KEEPER_PROCESS_NAME);
    log_show_time();
    if (mount_options_init(&options) != 0)
        return EXIT_FAILED;
    int code = daemon_parse(argc, argv, &serve, &options);
    if (code)
        return code;
    serve.allow_other = options.allow_other;
    serve.read_only = options.flags & MS_RDONLY;
    serve.passthrough = options.passthrough;
    serve.sharing = options.sharing;
    serve.hooks = options.hooks;
    serve.verify_on_share = options.verify_on_share;
    serve.share_owners = options.share_owners;
    serve.assemble = options.assemble;
    serve.trash = *options.trash ? options.trash : NULL;
    serve.trash_age = *options.trash_age ? options.trash_age : NULL;
    serve.min_free = options.min_free;
    serve.full_timeout = options.full_timeout;
    serve.inline_limit = options.inline_limit;
    serve.threads = options.threads;
    serve.backup_interval = options.backup_interval;
    serve.read_ahead_kib = options.read_ahead_kib;
    return fs_serve(&serve);
}

const struct command command_daemon = {
    .name = "daemon",
    .synopsis =
        "--store PATH --mountpoint PATH --fuse-fd N --state-fd N --lock-fd N --ready-fd N [-o OPTIONS]",
    .summary = "serve a mount for its keeper",
    .details = NULL,
    .hidden = true,
    .run = daemon_run,
};
