/* SPDX-License-Identifier: Apache-2.0 */
/* Where log lines go. */
#include "base/log.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

static struct {
    enum log_target target;
    enum log_level level;
    bool journal;
    char ident[64];
} log_settings = {.target = LOG_TO_STDERR, .level = LOG_LEVEL_INFO, .ident = "ckptfs"};

void log_configure(enum log_target target, enum log_level level, const char *ident)
{
    log_settings.target = target;
    log_settings.level = level;
    log_settings.journal = target == LOG_TO_STDERR && getenv("JOURNAL_STREAM") != NULL;
    snprintf(log_settings.ident, sizeof log_settings.ident, "%s", ident);
    if (target == LOG_TO_SYSLOG)
        openlog(log_settings.ident, LOG_PID, LOG_DAEMON);
}

void log_write_arguments(enum log_level level, const char *format, va_list arguments)
{
    if (level > log_settings.level)
        return;
    if (log_settings.target == LOG_TO_SYSLOG) {
        vsyslog((int)level, format, arguments);
        return;
    }
    /* One write(2) a line, so that lines of several processes do not mix. */
    char line[2048];
    int used = log_settings.journal ? snprintf(line, sizeof line, "<%d>", (int)level)
                                    : snprintf(line, sizeof line, "%s: ", log_settings.ident);
    size_t room = sizeof line - (size_t)used - 1;
    int text = vsnprintf(line + used, room, format, arguments);
    if (text < 0)
        return;
    size_t length = (size_t)used + ((size_t)text < room ? (size_t)text : room - 1);
    line[length++] = '\n';
    fwrite(line, 1, length, stderr);
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_write_arguments(level, format, arguments);
    va_end(arguments);
}
