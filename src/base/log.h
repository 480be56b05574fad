/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line an event, to stderr (with systemd's <N> priorities when the journal reads it), to a file, or to
 * syslog. A message is written once, where its cause is known. Thread-safe; never fails.
 */
#ifndef CKPTFS_BASE_LOG_H
#define CKPTFS_BASE_LOG_H

#include <stdarg.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
};

enum log_target {
    LOG_TO_STDERR,
    LOG_TO_SYSLOG,
};

/* Chooses where lines go and the least important level that is written. `ident` is copied. */
void log_configure(enum log_target target, enum log_level level, const char *ident);

/* Lines on stderr begin with the time from now on (RFC 3339, UTC): for what goes on for days. Not for the
 * journal. */
void log_show_time(void);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_write_arguments(enum log_level level, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
