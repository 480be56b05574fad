/* SPDX-License-Identifier: Apache-2.0 */
/* `mount.ckptfs`: what mount(8) runs for fstab entries of type ckptfs and fuse.ckptfs, in its conventions. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mount.h"

/* mount(8)'s own exit codes. */
enum { HELPER_FINE = 0, HELPER_USAGE = 1, HELPER_SYSTEM = 2, HELPER_MOUNT_FAILED = 32 };

struct mount_helper {
    struct mount_options options;
    bool sloppy, fake, verbose;
};

static int mount_helper_code(int code)
{
    switch (code) {
    case EXIT_FINE: return HELPER_FINE;
    case EXIT_USAGE:
    case EXIT_NOT_PERMITTED: return HELPER_USAGE;
    case EXIT_FAILED: return HELPER_SYSTEM;
    default: return HELPER_MOUNT_FAILED;
    }
}

/* One word at a time, so that -s can forgive one and keep the rest. */
static int mount_helper_add_options(struct mount_helper *helper, const char *list)
{
    cleanup_free char *copy = strdup(list);
    char *rest = copy;
    errint error = copy ? 0 : -ENOMEM;
    for (char *word = strsep(&rest, ","); word && !error; word = strsep(&rest, ",")) {
        char problem[256];
        error = mount_options_add(&helper->options, word, problem);
        if (error == -EINVAL && helper->sloppy)
            error = 0;
        if (error == -EINVAL)
            return command_usage_error(&command_mount_helper, "%s", problem);
    }
    if (error)
        log_error("mount options: %s", strerror(-error));
    return error ? EXIT_FAILED : EXIT_FINE;
}

static int mount_helper_parse(struct mount_helper *helper, int argc, char **argv)
{
    /* -s may come after the options that it forgives. */
    const char *lists[16];
    size_t count = 0;
    int option;
    while ((option = getopt(argc, argv, ":sfnvo:t:N:")) != -1) {
        if (option == 's')
            helper->sloppy = true;
        else if (option == 'f')
            helper->fake = true;
        else if (option == 'v')
            helper->verbose = true;
        else if (option == 'o' && count < sizeof lists / sizeof *lists)
            lists[count++] = optarg;
        else if (option != 'n' && option != 't' && option != 'N')
            return command_usage_error(&command_mount_helper, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
    }
    for (size_t i = 0; i < count; i++) {
        int code = mount_helper_add_options(helper, lists[i]);
        if (code)
            return code;
    }
    if (argc - optind == 2)
        return EXIT_FINE;
    return command_usage_error(&command_mount_helper, "expected SOURCE and DIRECTORY, found %d arguments",
                               argc - optind);
}

static int mount_helper_run(int argc, char **argv)
{
    struct mount_helper helper = {0};
    int code = EXIT_FAILED;
    if (mount_options_init(&helper.options) == 0)
        code = mount_helper_parse(&helper, argc, argv);
    else
        log_error("mount options: out of memory");
    if (!code && helper.verbose)
        fprintf(stderr, "ckptfs mount -o '%s' '%s' '%s'\n", helper.options.text, argv[optind],
                argv[optind + 1]);
    if (!code && !helper.fake)
        code = mount_start(argv[optind], argv[optind + 1], &helper.options, false);
    mount_options_release(&helper.options);
    return mount_helper_code(code);
}

const struct command command_mount_helper = {
    .name = "mount-helper",
    .synopsis = "SOURCE DIRECTORY [-sfnv] [-o OPTION[,OPTION...]] [-t TYPE] [-N NAMESPACE]",
    .summary = "mount as mount(8) asks for it, with its exit codes (the program's name is mount.ckptfs)",
    .details = NULL,
    .alias = {"mount.ckptfs", "mount.fuse.ckptfs"},
    .hidden = true,
    .run = mount_helper_run,
};
