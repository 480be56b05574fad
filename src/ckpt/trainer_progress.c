/* SPDX-License-Identifier: Apache-2.0 */
/* trainer_state.json (transformers, trainer_callback.py: TrainerState), read once from front to back. */
#include "ckpt/trainer_progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "format/utf8.h"

enum { TRAINER_PROGRESS_MEMORY = 64 << 10 };

struct progress_reader {
    struct json json;
    struct trainer_progress *out;
    int64_t row_step; /* of the rows whose metrics are kept; -1: none yet */
};

/* -- texts ------------------------------------------------------------------------------------------------
 */

/* Copies a name that may be printed and fits; others are left out. */
static bool progress_copy_name(char out[TRAINER_NAME_MAX], const char *text, size_t length)
{
    out[0] = '\0';
    if (length == 0 || length >= TRAINER_NAME_MAX || !utf8_is_valid(text, length))
        return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    }
    memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

/* Versions before 4.50 do not write best_global_step. */
static int64_t progress_step_of_name(const char *name)
{
    static const char start[] = "checkpoint-";
    const char *digits = name + sizeof start - 1;
    if (strncmp(name, start, sizeof start - 1) != 0)
        return -1;
    size_t length = strspn(digits, "0123456789");
    return length > 0 && length <= 18 && digits[length] == '\0' ? strtoll(digits, NULL, 10) : -1;
}

/* The last component of a path that the trainer was given. */
static bool progress_take_best_path(struct progress_reader *reader)
{
    cleanup_arena struct arena arena = {.limit = TRAINER_PROGRESS_MEMORY};
    struct json *json = &reader->json;
    const char *path;
    if (json_peek(json) != '"')
        return json_skip(json);
    if (!json_take_text(json, &arena, &path))
        return false;
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/')
        start--;
    progress_copy_name(reader->out->best_name, path + start, length - start);
    if (reader->out->best_step < 0)
        reader->out->best_step = progress_step_of_name(reader->out->best_name);
    return true;
}

/* -- the log ----------------------------------------------------------------------------------------------
 */

/* Times, rates and counters are no measure of a model. */
static bool progress_is_metric(const char *name)
{
    static const char *const others[] = {"step", "epoch", "total_flos", "learning_rate", "grad_norm"};
    static const char *const endings[] = {"_runtime", "_per_second", "_samples", "_memory_rss"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(name, others[i]) == 0)
            return false;
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t end = strlen(endings[i]);
        if (length >= end && strcmp(name + length - end, endings[i]) == 0)
            return false;
    }
    return true;
}

struct progress_row {
    struct trainer_metric at[TRAINER_METRICS_MAX];
    size_t count;
    int64_t step;
};

static bool progress_take_row(struct json *json, struct progress_row *row)
{
    struct json_text key;
    bool started = false;
    row->count = 0;
    row->step = -1;
    if (!json_take(json, '{'))
        return false;
    while (json_more(json, '}', &started)) {
        struct trainer_metric *metric = &row->at[row->count];
        double value = 0;
        bool number;
        if (!json_take_key(json, &key) || !json_take_any_number(json, &value, &number))
            return false;
        if (number && json_text_is(&key, "step") && value >= 0 && value < (double)INT64_MAX)
            row->step = (int64_t)value;
        if (!number || row->count == TRAINER_METRICS_MAX || key.length > sizeof key.start ||
            !progress_copy_name(metric->name, key.start, key.length) || !progress_is_metric(metric->name))
            continue;
        metric->value = value;
        row->count++;
    }
    return json->status == 0;
}

/* Rows of one step follow each other; those of the highest step are kept. */
static void progress_keep_row(struct progress_reader *reader, const struct progress_row *row)
{
    struct trainer_progress *out = reader->out;
    if (row->step < reader->row_step || row->step < 0)
        return;
    if (row->step > reader->row_step)
        out->metric_count = 0;
    reader->row_step = row->step;
    for (size_t i = 0; i < row->count; i++) {
        size_t at = 0;
        while (at < out->metric_count && strcmp(out->metrics[at].name, row->at[i].name) != 0)
            at++;
        if (at == TRAINER_METRICS_MAX)
            continue;
        out->metrics[at] = row->at[i];
        if (at == out->metric_count)
            out->metric_count++;
    }
}

/* The Trainer names its metric nowhere but in its arguments: the log's value at that step tells which it is.
 */
static void progress_find_best(struct trainer_progress *out, const struct progress_row *row)
{
    if (!out->has_best || row->step != out->best_step || row->step < 0)
        return;
    for (size_t i = 0; i < row->count; i++) {
        bool evaluated = strncmp(row->at[i].name, "eval_", 5) == 0;
        if (evaluated && row->at[i].value == out->best_metric && !out->best_metric_name[0])
            strcpy(out->best_metric_name, row->at[i].name);
    }
}

static bool progress_take_log(struct progress_reader *reader)
{
    struct json *json = &reader->json;
    cleanup_free struct progress_row *row = malloc(sizeof *row);
    bool started = false;
    if (!row)
        return json_fail(json, -ENOMEM);
    if (json_peek(json) != '[')
        return json_skip(json);
    json_take(json, '[');
    while (json_more(json, ']', &started)) {
        if (json_peek(json) != '{') {
            if (!json_skip(json))
                return false;
            continue;
        }
        if (!progress_take_row(json, row))
            return false;
        progress_keep_row(reader, row);
        progress_find_best(reader->out, row);
    }
    return json->status == 0;
}

/* -- the state --------------------------------------------------------------------------------------------
 */

static bool progress_take_member(struct progress_reader *reader)
{
    struct trainer_progress *out = reader->out;
    struct json *json = &reader->json;
    struct json_text key;
    if (!json_take_key(json, &key))
        return false;
    if (json_text_is(&key, "global_step"))
        return json_take_any_size(json, &out->step);
    if (json_text_is(&key, "best_global_step"))
        return json_take_any_size(json, &out->best_step);
    if (json_text_is(&key, "best_metric"))
        return json_take_any_number(json, &out->best_metric, &out->has_best);
    if (json_text_is(&key, "best_model_checkpoint"))
        return progress_take_best_path(reader);
    if (json_text_is(&key, "log_history"))
        return progress_take_log(reader);
    return json_skip(json);
}

static void progress_take_all(struct progress_reader *reader)
{
    struct json *json = &reader->json;
    bool started = false;
    if (!json_take(json, '{'))
        return;
    while (json_more(json, '}', &started)) {
        if (!progress_take_member(reader))
            return;
    }
    json_end(json);
}

errint trainer_progress_read(const struct folder *folder, struct trainer_progress *out)
{
    struct format_source source;
    *out = (struct trainer_progress){.step = -1, .best_step = -1};
    cleanup_free struct progress_reader *reader = malloc(sizeof *reader);
    if (!reader)
        return -ENOMEM;
    errint error = folder_open(folder, "trainer_state.json", &source);
    if (error)
        return error == -ENOENT || error == -EISDIR ? 0 : error;
    reader->out = out;
    reader->row_step = -1;
    json_begin(&reader->json, &source, 0, source.size);
    reader->json.python = true;
    progress_take_all(reader);
    folder_close(folder, &source);
    if (reader->json.status < 0)
        return reader->json.status;
    out->whole = reader->json.status == 0;
    /* The last rows may be of an earlier step. */
    if (reader->row_step != out->step)
        out->metric_count = 0;
    return 0;
}

bool trainer_progress_find(const struct trainer_progress *progress, const char *name, double *value)
{
    for (size_t i = 0; i < progress->metric_count; i++) {
        if (strcmp(progress->metrics[i].name, name) == 0) {
            *value = progress->metrics[i].value;
            return true;
        }
    }
    return false;
}
