/* SPDX-License-Identifier: Apache-2.0 */
/* Command dispatch: one table. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "config.h"

static const struct command *const commands[] = {
    &command_mount,        &command_umount, &command_status, &command_restart,  &command_du,
    &command_gc,           &command_verify, &command_fsck,   &command_assemble, &command_inspect,
    &command_ls,           &command_policy, &command_pin,    &command_unpin,    &command_template,
    &command_mount_helper, &command_daemon, &command_events, &command_wait,     &command_export,
    &command_undelete,
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

int command_usage_error(const struct command *command, const char *format, ...)
{
    char problem[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    log_error("%s: %s; see `ckptfs %s --help`", command->name, problem, command->name);
    return EXIT_USAGE;
}

bool command_parse_seconds(const char *text, unsigned *out)
{
    enum { SECONDS_MAX = 366 * 24 * 3600 };
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    unsigned long number = strtoul(text, &end, 10);
    *out = (unsigned)number;
    return *end == '\0' && number <= SECONDS_MAX;
}

static void main_print_help(FILE *out)
{
    fputs("usage: ckptfs COMMAND [ARGUMENTS]\n\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (!commands[i]->hidden)
            fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\nckptfs COMMAND --help tells more about a command; ckptfs --version names the version.\n", out);
}

static void main_print_command_help(const struct command *command)
{
    printf("usage: ckptfs %s %s\n\n%s\n", command->name, command->synopsis, command->summary);
    if (command->details)
        printf("\n%s", command->details);
}

static const struct command *main_find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

/* The command that the program's own name means; NULL for none. */
static const struct command *main_find_alias(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = slash ? slash + 1 : program;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        for (size_t j = 0; j < sizeof commands[i]->alias / sizeof *commands[i]->alias; j++) {
            if (commands[i]->alias[j] && strcmp(commands[i]->alias[j], name) == 0)
                return commands[i];
        }
    }
    return NULL;
}

/* Output that did not arrive (a full disk, a closed pipe) is a failure. */
static int main_flush(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    log_error("standard output: %m");
    return code ? code : EXIT_FAILED;
}

static int main_run_command(const struct command *command, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            main_print_command_help(command);
            return main_flush(EXIT_FINE);
        }
    }
    return main_flush(command->run(argc, argv));
}

int main(int argc, char **argv)
{
    log_configure(LOG_TO_STDERR, LOG_LEVEL_INFO, "ckptfs");
    const struct command *command = argc > 0 ? main_find_alias(argv[0]) : NULL;
    if (command)
        return main_run_command(command, argc, argv);
    if (argc < 2) {
        main_print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        main_print_help(stdout);
        return main_flush(EXIT_FINE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("ckptfs %s\n", PACKAGE_VERSION);
        return main_flush(EXIT_FINE);
    }
    command = main_find_command(argv[1]);
    if (!command) {
        log_error("unknown command '%s'; see `ckptfs --help`", argv[1]);
        return EXIT_USAGE;
    }
    return main_run_command(command, argc - 1, argv + 1);
}
