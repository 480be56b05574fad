/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands. Each is one file with one row; main.c's table lists the rows. Usage texts come from the rows.
 */
#ifndef CKPTFS_CMD_COMMAND_H
#define CKPTFS_CMD_COMMAND_H

#include <stdbool.h>

struct command {
    const char *name;
    const char *synopsis; /* what follows the name: "[-f] STORE MOUNTPOINT" */
    const char *summary;  /* one line */
    const char *details;  /* options and what is worth knowing; ends with a newline; NULL: nothing */
    const char *alias[2]; /* names of the program itself that mean this command */
    bool hidden;          /* not listed: only the program itself uses it */
    /* argv[0] is the command's name. Returns an exit code (cmd/exit.h). */
    int (*run)(int argc, char **argv);
};

extern const struct command command_mount;
extern const struct command command_mount_helper;
extern const struct command command_umount;
extern const struct command command_status;
extern const struct command command_restart;
extern const struct command command_du;
extern const struct command command_gc;
extern const struct command command_verify;
extern const struct command command_fsck;
extern const struct command command_assemble;
extern const struct command command_export;
extern const struct command command_inspect;
extern const struct command command_ls;
extern const struct command command_policy;
extern const struct command command_pin;
extern const struct command command_unpin;
extern const struct command command_events;
extern const struct command command_wait;
extern const struct command command_template;
extern const struct command command_undelete;
extern const struct command command_daemon;

/* Writes one line about a wrong command line, and where help is. Returns EXIT_USAGE. */
int command_usage_error(const struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Parses a whole number of seconds, at most a year; false when it is none. */
bool command_parse_seconds(const char *text, unsigned *out);

#endif
