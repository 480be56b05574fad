/* SPDX-License-Identifier: Apache-2.0 */
/* The status as text. */
#include "fs/status_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size_text.h"
#include "format/plain_text.h"

enum { STATUS_LABEL_WIDTH = 24, STATUS_INDENT = 2 };

/* Texts come out of files that nobody trusts. */
static void status_append_plain(struct text *out, const char *text)
{
    cleanup_free char *plain = plain_text(text);
    if (plain)
        text_append_word(out, plain);
    else
        out->failed = true;
}

static void status_append_bytes(struct text *out, double bytes)
{
    char text[SIZE_TEXT_MAX];
    text_append_word(out, size_text(bytes, text));
}

static void status_append_seconds(struct text *out, double seconds)
{
    uint64_t whole = seconds > 0 ? (uint64_t)seconds : 0;
    if (whole >= 86400)
        text_print(out, "%" PRIu64 " d ", whole / 86400);
    if (whole >= 3600)
        text_print(out, "%" PRIu64 " h ", whole / 3600 % 24);
    if (whole >= 60)
        text_print(out, "%" PRIu64 " min ", whole / 60 % 60);
    text_print(out, "%" PRIu64 " s", whole % 60);
}

/* -- by shape ---------------------------------------------------------------------------------------------
 */

static bool status_key_ends_with(const char *key, const char *end)
{
    size_t length = strlen(key), tail = strlen(end);
    return length > tail && strcmp(key + length - tail, end) == 0;
}

static void status_append_number(struct text *out, const char *key, double number)
{
    if (status_key_ends_with(key, "_bytes"))
        status_append_bytes(out, number);
    else if (status_key_ends_with(key, "_kib"))
        status_append_bytes(out, number * 1024);
    else if (status_key_ends_with(key, "_seconds"))
        status_append_seconds(out, number);
    else
        text_print(out, "%.15g", number);
}

static void status_append_label(struct text *out, const char *key, int depth)
{
    char label[64];
    snprintf(label, sizeof label, "%s", key);
    /* The unit is printed with the number. */
    static const char *const units[] = {"_bytes", "_kib", "_seconds"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (status_key_ends_with(label, units[i]))
            label[strlen(label) - strlen(units[i])] = '\0';
    }
    for (char *at = label; *at; at++)
        *at = *at == '_' ? ' ' : *at;
    text_print(out, "%*s%-*s", depth * STATUS_INDENT, "", STATUS_LABEL_WIDTH - depth * STATUS_INDENT, label);
}

static void status_append_scalar(struct text *out, const char *key, const cJSON *value)
{
    if (cJSON_IsString(value))
        status_append_plain(out, value->valuestring);
    else if (cJSON_IsNumber(value))
        status_append_number(out, key, value->valuedouble);
    else if (cJSON_IsBool(value))
        text_append_word(out, cJSON_IsTrue(value) ? "yes" : "no");
    else
        text_append_word(out, "-");
    text_append_word(out, "\n");
}

static bool status_is_watched(const char *key)
{
    static const char *const keys[] = {"saves", "other_writers", "runs", "runs_left_out", "space", "exports"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

static void status_append_object(struct text *out, const cJSON *object, int depth)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        const char *key = value->string ? value->string : "";
        bool nested = cJSON_IsObject(value) || cJSON_IsArray(value);
        if ((nested && !value->child) || (depth == 0 && status_is_watched(key)))
            continue;
        status_append_label(out, key, depth);
        if (nested) {
            text_append_word(out, "\n");
            status_append_object(out, value, depth + 1);
        } else {
            status_append_scalar(out, key, value);
        }
    }
}

void status_text_print(struct text *out, const cJSON *document)
{
    status_append_object(out, document, 0);
}

/* -- members ----------------------------------------------------------------------------------------------
 */

static bool status_has(const cJSON *object, const char *key)
{
    return cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(object, key));
}

static double status_number(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

/* "?" where it is missing. */
static const char *status_string(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "?";
}

/* -- saves ------------------------------------------------------------------------------------------------
 */

static void status_append_writers(struct text *out, const cJSON *save)
{
    const cJSON *writer;
    const char *before = "  by ";
    cJSON_ArrayForEach(writer, cJSON_GetObjectItemCaseSensitive(save, "writers"))
    {
        text_append_word(out, before);
        if (status_has(writer, "pid")) {
            status_append_plain(out, status_string(writer, "name"));
            text_print(out, " (%.0f)", status_number(writer, "pid"));
        } else {
            text_append_word(out, "a process that is not known here");
        }
        before = ", ";
    }
    if (status_number(save, "writers_left_out") > 0)
        text_print(out, " and %.0f more", status_number(save, "writers_left_out"));
}

static void status_append_save(struct text *out, const cJSON *save)
{
    double written = status_number(save, "written_bytes"), expected = status_number(save, "expected_bytes");
    text_append_word(out, "  ");
    status_append_plain(out, status_string(save, "path"));
    status_append_writers(out, save);
    text_append_word(out, "\n    ");
    status_append_bytes(out, written);
    if (status_has(save, "expected_bytes")) {
        text_append_word(out, " of ");
        status_append_bytes(out, expected);
        if (expected > 0)
            text_print(out, " (%.0f %%)", written / expected * 100);
    }
    if (status_has(save, "bytes_per_second")) {
        text_append_word(out, ", ");
        status_append_bytes(out, status_number(save, "bytes_per_second"));
        text_append_word(out, "/s");
    }
    if (status_has(save, "remaining_seconds")) {
        text_append_word(out, ", ");
        status_append_seconds(out, status_number(save, "remaining_seconds"));
        text_append_word(out, " left");
    }
    text_append_word(out, "\n");
}

static void status_append_saves(struct text *out, const cJSON *document)
{
    const cJSON *saves = cJSON_GetObjectItemCaseSensitive(document, "saves"), *save;
    if (!saves)
        return;
    text_append_word(out, saves->child ? "saves under way\n" : "saves under way         none\n");
    cJSON_ArrayForEach(save, saves)
    {
        status_append_save(out, save);
    }
    double others = status_number(document, "other_writers");
    if (others > 0)
        text_print(out, "  other files open for writing: %.0f\n", others);
}

/* -- runs -------------------------------------------------------------------------------------------------
 */

static void status_append_last(struct text *out, const cJSON *last)
{
    text_append_word(out, "    last  ");
    status_append_plain(out, status_string(last, "path"));
    text_print(out, ", %s, %s, ", status_string(last, "state"), status_string(last, "time"));
    status_append_bytes(out, status_number(last, "bytes"));
    if (status_has(last, "new_bytes")) {
        text_append_word(out, ", of it new ");
        status_append_bytes(out, status_number(last, "new_bytes"));
    }
    text_append_word(out, "\n");
}

static void status_append_next(struct text *out, const cJSON *next)
{
    text_append_word(out, "    next  ");
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(next, "fits")))
        text_append_word(out, "DOES NOT FIT");
    else if (!status_has(next, "checkpoints_that_fit"))
        text_append_word(out, "nothing of it would be new: there is no end of space");
    else
        text_print(out, "there is room for %.0f more", status_number(next, "checkpoints_that_fit"));
    if (status_has(next, "full_at_step"))
        text_print(out, ", full at step %.0f", status_number(next, "full_at_step"));
    const cJSON *when = cJSON_GetObjectItemCaseSensitive(next, "full_at");
    if (cJSON_IsString(when))
        text_print(out, ", %s", when->valuestring);
    if (status_has(next, "checkpoints_that_fit"))
        text_append_word(out, ", if none is removed");
    text_append_word(out, "\n");
}

static void status_append_run(struct text *out, const cJSON *run)
{
    const cJSON *last = cJSON_GetObjectItemCaseSensitive(run, "last");
    text_append_word(out, "  ");
    status_append_plain(out, status_string(run, "path"));
    text_print(out, "  %.0f of %.0f complete\n", status_number(run, "completed"),
               status_number(run, "checkpoints"));
    if (cJSON_IsObject(last)) {
        status_append_last(out, last);
        status_append_next(out, cJSON_GetObjectItemCaseSensitive(run, "next"));
    }
}

static void status_append_runs(struct text *out, const cJSON *document)
{
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(document, "runs"), *run;
    if (!runs)
        return;
    if (cJSON_IsNull(runs))
        text_append_word(out, "runs                    being looked at\n");
    else
        text_append_word(out, runs->child ? "runs\n" : "runs                    none\n");
    cJSON_ArrayForEach(run, runs)
    {
        status_append_run(out, run);
    }
    if (status_number(document, "runs_left_out") > 0)
        text_print(out, "  and %.0f more\n", status_number(document, "runs_left_out"));
}

/* -- space ------------------------------------------------------------------------------------------------
 */

static void status_append_space(struct text *out, const cJSON *document)
{
    const cJSON *space = cJSON_GetObjectItemCaseSensitive(document, "space"), *freed;
    if (!space)
        return;
    text_append_word(out, "space                   ");
    status_append_bytes(out, status_number(space, "available_bytes"));
    text_append_word(out, " free, ");
    status_append_bytes(out, status_number(space, "reserve_bytes"));
    text_append_word(out, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(space, "reserve_spent"))
                              ? " reserve, SPENT"
                              : " reserve");
    if (status_number(space, "kept_free_bytes") > 0) {
        text_append_word(out, ", ");
        status_append_bytes(out, status_number(space, "kept_free_bytes"));
        text_append_word(out, " to be kept free");
    }
    text_append_word(out, "\n");
    cJSON_ArrayForEach(freed, cJSON_GetObjectItemCaseSensitive(space, "freed_next"))
    {
        text_append_word(out, "  freed next  ");
        status_append_bytes(out, status_number(freed, "bytes"));
        text_append_word(out, "  ");
        status_append_plain(out, status_string(freed, "what"));
        text_append_word(out, ", ");
        status_append_plain(out, status_string(freed, "when"));
        text_append_word(out, "\n");
    }
}

/* -- exports ----------------------------------------------------------------------------------------------
 */

static void status_append_export(struct text *out, const cJSON *export)
{
    double failures = status_number(export, "failures");
    text_append_word(out, "  ");
    status_append_plain(out, status_string(export, "path"));
    text_append_word(out, ", ");
    text_append_word(out, status_string(export, "state"));
    if (failures > 1)
        text_print(out, " %.0f times", failures);
    else if (failures > 0)
        text_append_word(out, " once");
    if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(export, "problem"))) {
        text_append_word(out, ": ");
        status_append_plain(out, status_string(export, "problem"));
    }
    text_append_word(out, "\n");
}

static void status_append_exports(struct text *out, const cJSON *document)
{
    const cJSON *exports = cJSON_GetObjectItemCaseSensitive(document, "exports"), *export;
    if (!exports || !exports->child)
        return;
    text_append_word(out, "to be exported\n");
    cJSON_ArrayForEach(export, exports)
    {
        status_append_export(out, export);
    }
}

void status_text_watch(struct text *out, const cJSON *document)
{
    status_append_saves(out, document);
    status_append_runs(out, document);
    status_append_space(out, document);
    status_append_exports(out, document);
}
