/* SPDX-License-Identifier: Apache-2.0 */
/* Where log lines go. */
#include "base/log.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

static struct {
    enum log_target target;
    enum log_level level;
    bool journal;
    bool shows_time;
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

void log_show_time(void)
{
    log_settings.shows_time = true;
}

/* What every line on stderr begins with: its length. */
static size_t log_begin(char *line, size_t size, enum log_level level)
{
    if (log_settings.journal)
        return (size_t)snprintf(line, size, "<%d>", (int)level);
    size_t used = 0;
    time_t now = time(NULL);
    struct tm parts;
    if (log_settings.shows_time && gmtime_r(&now, &parts))
        used = strftime(line, size, "%Y-%m-%dT%H:%M:%SZ ", &parts);
    return used + (size_t)snprintf(line + used, size - used, "%s: ", log_settings.ident);
}

/* Names of files are told, too: they shall neither make lines of their own nor speak to a terminal. */
static void log_make_plain(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
    }
}

void log_write_arguments(enum log_level level, const char *format, va_list arguments)
{
    if (level > log_settings.level)
        return;
    /* One write(2) a line, so that lines of several processes do not mix. */
    char line[2048];
    size_t used = log_settings.target == LOG_TO_SYSLOG ? 0 : log_begin(line, sizeof line, level);
    size_t room = sizeof line - used - 1;
    int text = vsnprintf(line + used, room, format, arguments);
    if (text < 0)
        return;
    log_make_plain(line + used);
    if (log_settings.target == LOG_TO_SYSLOG) {
        syslog((int)level, "%s", line);
        return;
    }
    size_t length = used + strlen(line + used);
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
