/* SPDX-License-Identifier: Apache-2.0 */
/* Events as lines of JSON. */
#include "fs/event.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "format/utf8.h"

static const char *const event_names[EVENT_KINDS] = {
    [EVENT_COMPLETE] = "complete",
    [EVENT_DURABLE] = "durable",
    [EVENT_TORN] = "torn",
    [EVENT_REMOVED] = "removed",
    [EVENT_EXPORTED] = "exported",
    [EVENT_BEST] = "best",
    [EVENT_RESTORED] = "restored",
    [EVENT_ASSEMBLED] = "assembled",
    [EVENT_WITHDRAWN] = "withdrawn",
    [EVENT_POLICY] = "policy",
    [EVENT_EXPORT_FAILED] = "export-failed",
    [EVENT_SHED] = "shed",
};

const char *event_kind_name(enum event_kind kind)
{
    return event_names[kind];
}

bool event_kind_parse(const char *name, enum event_kind *out)
{
    for (unsigned i = 0; i < EVENT_KINDS; i++) {
        if (strcmp(name, event_names[i]) == 0) {
            *out = (enum event_kind)i;
            return true;
        }
    }
    return false;
}

/* -- printing ---------------------------------------------------------------------------------------------
 */

static bool event_add_time(cJSON *object, int64_t time)
{
    struct timespec at = clock_to_timespec(time);
    struct tm utc;
    char text[64], seconds[32];
    if (!gmtime_r(&at.tv_sec, &utc) || !strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &utc))
        return cJSON_AddNullToObject(object, "time");
    snprintf(text, sizeof text, "%s.%03ldZ", seconds, at.tv_nsec / (1000 * 1000));
    return cJSON_AddStringToObject(object, "time", text);
}

/* NULL and a path that is too long are null. */
static bool event_add_text(cJSON *object, const char *key, const char *text)
{
    return text ? cJSON_AddStringToObject(object, key, text) : cJSON_AddNullToObject(object, key);
}

static bool event_add_number(cJSON *object, const char *key, int64_t number)
{
    return number >= 0 ? cJSON_AddNumberToObject(object, key, (double)number)
                       : cJSON_AddNullToObject(object, key);
}

static const char *event_without_slash(const char *path)
{
    return path ? path + strspn(path, "/") : NULL;
}

static char *event_print_json(const struct event *event, uint64_t sequence, int64_t time)
{
    cJSON *object = cJSON_CreateObject();
    bool fine = object && cJSON_AddNumberToObject(object, "sequence", (double)sequence) &&
                event_add_time(object, time) && event_add_text(object, "event", event_names[event->kind]) &&
                event_add_text(object, "path", event_without_slash(event->path)) &&
                event_add_text(object, "run", event_without_slash(event->run)) &&
                event_add_number(object, "step", event->step) &&
                event_add_text(object, "framework", event->framework) &&
                event_add_text(object, "reason", event->reason) &&
                event_add_number(object, "bytes", event->bytes);
    char *text = fine ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    return text;
}

char *event_print(const struct event *event, uint64_t sequence, int64_t time)
{
    cleanup_free char *text = event_print_json(event, sequence, time);
    char *line = NULL;
    if (text && strlen(text) + 1 > EVENT_LINE_MAX) {
        struct event brief = *event;
        brief.path = brief.run = brief.framework = brief.reason = NULL;
        free(text);
        text = event_print_json(&brief, sequence, time);
    }
    if (!text || asprintf(&line, "%s\n", text) < 0)
        return NULL;
    return line;
}

void event_make_readable(char *line)
{
    size_t length = strlen(line);
    for (size_t at = 0; at < length;) {
        size_t size = 1;
        while (size <= UTF8_LONGEST && at + size <= length && !utf8_is_valid(line + at, size))
            size++;
        bool fine = size <= UTF8_LONGEST && at + size <= length;
        if (!fine)
            line[at] = '?';
        at += fine ? size : 1;
    }
}
