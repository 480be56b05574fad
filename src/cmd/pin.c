/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs pin` and `ckptfs unpin`: checkpoints that no policy removes. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "fs/control.h"

/* A directory, or one file that is a checkpoint. */
static int pin_set(const char *path, uint32_t pinned)
{
    struct statfs figures;
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &figures) < 0)
        return directory_explain(path, errno);
    if (figures.f_type != FUSE_SUPER_MAGIC)
        return directory_explain(path, ENOTTY);
    int error = directory_ask(fd, CKPTFS_IOCTL_PIN, &pinned);
    return error ? directory_explain(path, error) : EXIT_FINE;
}

/* All of them are tried; the exit code is that of the first that failed. */
static int pin_run_as(const struct command *command, int argc, char **argv, uint32_t pinned)
{
    static const struct option long_options[] = {{0}};
    int code = EXIT_FINE;
    if (getopt_long(argc, argv, ":", long_options, NULL) != -1)
        return command_usage_error(command, "unknown option: %s", argv[optind - 1]);
    if (optind == argc)
        return command_usage_error(command, "expected CHECKPOINT...");
    for (int i = optind; i < argc; i++) {
        int failed = pin_set(argv[i], pinned);
        code = code ? code : failed;
    }
    return code;
}

static int pin_run(int argc, char **argv)
{
    return pin_run_as(&command_pin, argc, argv, 1);
}

static int unpin_run(int argc, char **argv)
{
    return pin_run_as(&command_unpin, argc, argv, 0);
}

const struct command command_pin = {
    .name = "pin",
    .synopsis = "CHECKPOINT...",
    .summary = "keep checkpoints whatever the policy of their run says",
    .details = "A pin stays with a checkpoint that is renamed. `ckptfs ls` shows it. The owner of the "
               "checkpoint and\n"
               "root may set it.\n",
    .run = pin_run,
};

const struct command command_unpin = {
    .name = "unpin",
    .synopsis = "CHECKPOINT...",
    .summary = "let the policy of their run decide about checkpoints again",
    .run = unpin_run,
};
