/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs ls --json`. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "cmd/ls.h"
#include "format/plain_text.h"

/* Later members matter too: each returns whether it worked. */
static bool ls_add_text(cJSON *object, const char *key, const char *text)
{
    cleanup_free char *plain = plain_text(text);
    return plain && cJSON_AddStringToObject(object, key, plain);
}

static bool ls_add_number(cJSON *object, const char *key, double number, bool known)
{
    return known ? cJSON_AddNumberToObject(object, key, number) : cJSON_AddNullToObject(object, key);
}

static cJSON *ls_add_row(cJSON *array)
{
    cJSON *row = cJSON_CreateObject();
    if (row && cJSON_AddItemToArray(array, row))
        return row;
    cJSON_Delete(row);
    return NULL;
}

static bool ls_add_time(cJSON *row, int64_t time)
{
    struct timespec at = clock_to_timespec(time);
    struct tm utc;
    char text[64];
    if (time <= 0 || !gmtime_r(&at.tv_sec, &utc) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
        return cJSON_AddNullToObject(row, "time");
    return cJSON_AddStringToObject(row, "time", text);
}

/* Values that are no numbers are null: JSON has none. */
static bool ls_add_metric(cJSON *row, const struct run_checkpoint *checkpoint)
{
    if (!checkpoint->measured)
        return cJSON_AddNullToObject(row, "metric");
    cJSON *metric = cJSON_AddObjectToObject(row, "metric");
    return metric && ls_add_text(metric, "name", checkpoint->metric.name) &&
           cJSON_AddNumberToObject(metric, "value", checkpoint->metric.value);
}

static bool ls_add_metrics(cJSON *row, const struct trainer_progress *progress)
{
    cJSON *metrics = cJSON_AddObjectToObject(row, "metrics");
    bool fine = metrics;
    for (size_t i = 0; i < progress->metric_count && fine; i++) {
        cleanup_free char *name = plain_text(progress->metrics[i].name);
        fine = name && cJSON_AddNumberToObject(metrics, name, progress->metrics[i].value);
    }
    return fine;
}

static bool ls_add_mounted(cJSON *row, const struct ls_mounted *mounted)
{
    const struct control_life *life = &mounted->life;
    bool known = mounted->known;
    return ls_add_number(row, "stored_bytes", (double)mounted->usage.stored_bytes, known) &&
           ls_add_number(row, "writing_files", (double)life->writing, known) &&
           ls_add_number(row, "unsynced_files", (double)life->unsynced, known) &&
           ls_add_number(row, "torn_files", (double)life->torn, known);
}

static bool ls_add_notes(cJSON *row, const struct complete *complete)
{
    cJSON *notes = cJSON_AddArrayToObject(row, "notes");
    bool fine = notes;
    for (size_t i = 0; i < complete->note_count && fine; i++) {
        cJSON *note = ls_add_row(notes);
        fine = note && cJSON_AddBoolToObject(note, "missing", complete->notes[i].missing) &&
               ls_add_text(note, "text", complete->notes[i].text);
    }
    return fine;
}

static bool ls_fill_json(cJSON *row, const struct run_checkpoint *checkpoint,
                         const struct ls_mounted *mounted)
{
    const struct complete *complete = &checkpoint->complete;
    return ls_add_text(row, "path", *checkpoint->path ? checkpoint->path : ".") &&
           ls_add_number(row, "step", (double)checkpoint->step, checkpoint->step >= 0) &&
           ls_add_time(row, complete->time) && ls_add_text(row, "framework", complete->framework) &&
           ls_add_number(row, "world_size", (double)complete->world_size, complete->world_size > 0) &&
           ls_add_text(row, "state", ls_state(checkpoint, mounted)) &&
           ls_add_text(row, "structure", complete_state_name(complete->state)) &&
           cJSON_AddBoolToObject(row, "latest", checkpoint->latest) &&
           cJSON_AddBoolToObject(row, "best", checkpoint->best) &&
           cJSON_AddBoolToObject(row, "pinned", mounted->marks.pinned) &&
           cJSON_AddBoolToObject(row, "shed", checkpoint->complete.shed) && ls_add_metric(row, checkpoint) &&
           ls_add_metrics(row, &complete->progress) &&
           cJSON_AddBoolToObject(row, "template_missing", checkpoint->no_template) &&
           cJSON_AddNumberToObject(row, "files", (double)complete->files) &&
           cJSON_AddNumberToObject(row, "logical_bytes", (double)complete->bytes) &&
           ls_add_mounted(row, mounted) && ls_add_notes(row, complete);
}

errint ls_add_json(cJSON *array, const struct ls_run *shown)
{
    cJSON *object = ls_add_row(array);
    if (!object || !ls_add_text(object, "path", shown->path))
        return -ENOMEM;
    cJSON *checkpoints = cJSON_AddArrayToObject(object, "checkpoints");
    for (size_t i = 0; checkpoints && i < shown->run->count; i++) {
        cJSON *row = ls_add_row(checkpoints);
        if (!row || !ls_fill_json(row, &shown->run->at[i], &shown->mounted[i]))
            return -ENOMEM;
    }
    return checkpoints ? 0 : -ENOMEM;
}
