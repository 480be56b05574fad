/* SPDX-License-Identifier: Apache-2.0 */
/* What a mount says of saves under way, of its runs and of its space, besides its state. */
#include "fs/overview.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/clock.h"
#include "format/plain_text.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/export.h"
#include "fs/trash.h"
#include "fs/visible.h"

/* So many of those that are to be exported are told. */
enum { OVERVIEW_EXPORTS = 50 };

/* Later members matter too: each returns whether it worked. */
static bool overview_add_text(cJSON *object, const char *key, const char *text)
{
    if (!text)
        return cJSON_AddNullToObject(object, key);
    cleanup_free char *plain = plain_text(text);
    return plain && cJSON_AddStringToObject(object, key, plain);
}

static bool overview_add_number(cJSON *object, const char *key, double number, bool known)
{
    return known ? cJSON_AddNumberToObject(object, key, number) : cJSON_AddNullToObject(object, key);
}

static bool overview_add_time(cJSON *object, const char *key, int64_t time)
{
    struct timespec at = clock_to_timespec(time);
    struct tm utc;
    char text[64];
    if (time <= 0 || !gmtime_r(&at.tv_sec, &utc) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
        return cJSON_AddNullToObject(object, key);
    return cJSON_AddStringToObject(object, key, text);
}

static cJSON *overview_add_row(cJSON *array)
{
    cJSON *row = cJSON_CreateObject();
    if (row && cJSON_AddItemToArray(array, row))
        return row;
    cJSON_Delete(row);
    return NULL;
}

/* -- saves ------------------------------------------------------------------------------------------------
 */

static bool overview_add_writers(cJSON *row, const struct save *save)
{
    cJSON *writers = cJSON_AddArrayToObject(row, "writers");
    bool fine = writers;
    for (size_t i = 0; i < save->writer_count && fine; i++) {
        const struct save_writer *writer = &save->writers[i];
        cJSON *entry = overview_add_row(writers);
        fine = entry && overview_add_number(entry, "pid", writer->pid, writer->pid > 0) &&
               overview_add_text(entry, "name", writer->name[0] ? writer->name : NULL);
    }
    return fine && cJSON_AddNumberToObject(row, "writers_left_out", (double)save->writers_left_out);
}

static bool overview_fill_save(cJSON *row, const struct save *save)
{
    return overview_add_text(row, "path", save->path) &&
           overview_add_number(row, "step", (double)save->step, save->step >= 0) &&
           cJSON_AddNumberToObject(row, "files", (double)save->files) &&
           cJSON_AddNumberToObject(row, "open_files", (double)save->open) &&
           cJSON_AddNumberToObject(row, "written_bytes", (double)save->written) &&
           overview_add_number(row, "expected_bytes", (double)save->expected, save->expected >= 0) &&
           overview_add_number(row, "bytes_per_second", save->rate, save->rate >= 0) &&
           overview_add_number(row, "remaining_seconds", (double)save->left, save->left >= 0) &&
           overview_add_writers(row, save);
}

static bool overview_add_saves(cJSON *document, const struct saves *saves)
{
    cJSON *array = cJSON_AddArrayToObject(document, "saves");
    bool fine = array;
    for (size_t i = 0; i < saves->count && fine; i++) {
        cJSON *row = overview_add_row(array);
        fine = row && overview_fill_save(row, &saves->at[i]);
    }
    return fine && cJSON_AddNumberToObject(document, "other_writers", (double)saves->elsewhere);
}

/* -- runs -------------------------------------------------------------------------------------------------
 */

void overview_forecast(const struct overview *overview, const struct outlook_run *run, struct forecast *out)
{
    const struct forecast_asked asked = {.available = overview->available,
                                         .size = run->bytes,
                                         .fresh = run->fresh < 0 ? run->bytes : run->fresh,
                                         .step = run->step,
                                         .steps = run->steps,
                                         .time = run->time,
                                         .apart = run->apart};
    forecast_make(&asked, out);
}

static bool overview_add_next(cJSON *row, const struct overview *overview, const struct outlook_run *run)
{
    struct forecast forecast;
    cJSON *next = cJSON_AddObjectToObject(row, "next");
    overview_forecast(overview, run, &forecast);
    return next && cJSON_AddNumberToObject(next, "bytes", (double)run->bytes) &&
           cJSON_AddBoolToObject(next, "fits", forecast.fits) &&
           overview_add_number(next, "checkpoints_that_fit", (double)forecast.count, forecast.count >= 0) &&
           overview_add_number(next, "full_at_step", (double)forecast.step, forecast.step >= 0) &&
           overview_add_time(next, "full_at", forecast.time);
}

static bool overview_add_last(cJSON *row, const struct outlook_run *run)
{
    cJSON *last = cJSON_AddObjectToObject(row, "last");
    return last && overview_add_text(last, "path", run->last) &&
           overview_add_number(last, "step", (double)run->step, run->step >= 0) &&
           overview_add_text(last, "state", run->state) && overview_add_time(last, "time", run->time) &&
           cJSON_AddNumberToObject(last, "bytes", (double)run->bytes) &&
           overview_add_number(last, "new_bytes", (double)run->fresh, run->fresh >= 0);
}

static bool overview_fill_run(cJSON *row, const struct overview *overview, const struct outlook_run *run)
{
    bool fine = overview_add_text(row, "path", run->path) &&
                cJSON_AddNumberToObject(row, "checkpoints", (double)run->checkpoints) &&
                cJSON_AddNumberToObject(row, "completed", (double)run->completed.count);
    if (!run->last)
        return fine && cJSON_AddNullToObject(row, "last") && cJSON_AddNullToObject(row, "next");
    return fine && overview_add_last(row, run) && overview_add_next(row, overview, run);
}

/* Null when nothing is known yet. */
static bool overview_add_runs(cJSON *document, const struct overview *overview)
{
    if (!overview->outlook)
        return cJSON_AddNullToObject(document, "runs");
    cJSON *array = cJSON_AddArrayToObject(document, "runs");
    bool fine = array;
    for (size_t i = 0; i < overview->run_count && fine; i++) {
        cJSON *row = overview_add_row(array);
        fine = row && overview_fill_run(row, overview, overview->runs[i]);
    }
    return fine && cJSON_AddNumberToObject(document, "runs_left_out", (double)overview->outlook->left_out);
}

/* -- space ------------------------------------------------------------------------------------------------
 */

size_t overview_list_freed(const struct overview *overview, struct overview_freed out[OVERVIEW_FREED_MAX])
{
    static const struct reclaim_survey nothing;
    static const char *const needed = "when the space is needed";
    if (!overview->outlook)
        return 0;
    const struct keep_room_survey *gives = &overview->outlook->gives;
    const struct reclaim_survey *survey =
        overview->outlook->reclaim_known ? &overview->outlook->reclaim : &nothing;
    const struct overview_freed all[] = {
        {"objects that no file uses", "now", survey->remove.bytes},
        {"dead chunks", "now",
         survey->can_punch ? survey->punch.bytes - survey->held.bytes : survey->repack.bytes},
        {"dead chunks of objects that are open", "when they are closed", survey->held.bytes},
        {"deleted files that are open", "when they are closed", survey->open.bytes},
        {"checkpoints that no policy wants", "soon", gives->goes},
        {"removed checkpoints in the trash", needed, trash_bytes(overview->fs)},
        {"the optimizer's state of older checkpoints", needed, gives->sheds},
        {"checkpoints that policies can spare", needed, gives->expendable},
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && count < OVERVIEW_FREED_MAX; i++) {
        if (all[i].bytes > 0)
            out[count++] = all[i];
    }
    return count;
}

static bool overview_add_space(cJSON *document, const struct overview *overview)
{
    const struct store *store = overview->fs->store;
    struct overview_freed freed[OVERVIEW_FREED_MAX];
    cJSON *space = cJSON_AddObjectToObject(document, "space");
    bool fine = space && cJSON_AddNumberToObject(space, "available_bytes", (double)overview->available) &&
                cJSON_AddNumberToObject(space, "kept_free_bytes", (double)trash_kept(overview->fs)) &&
                cJSON_AddNumberToObject(space, "reserve_bytes", (double)store->reserve_size) &&
                cJSON_AddBoolToObject(space, "reserve_spent", store->reserve_spent);
    if (!overview->everything)
        return fine;
    size_t count = overview_list_freed(overview, freed);
    cJSON *array = cJSON_AddArrayToObject(space, "freed_next");
    fine = fine && array;
    for (size_t i = 0; i < count && fine; i++) {
        cJSON *row = overview_add_row(array);
        fine = row && overview_add_text(row, "what", freed[i].what) &&
               overview_add_text(row, "when", freed[i].when) &&
               cJSON_AddNumberToObject(row, "bytes", (double)freed[i].bytes);
    }
    return fine;
}

/* -- exports ----------------------------------------------------------------------------------------------
 */

static bool overview_add_export(cJSON *array, struct filesystem *fs, const struct export_told *told)
{
    cleanup_free char *path = NULL;
    if (meta_path(fs->meta, told->ino, &path) < 0)
        return true; /* it is gone */
    cJSON *row = overview_add_row(array);
    const char *state = told->running ? "running" : told->failures > 0 ? "failed" : "waiting";
    return row && overview_add_text(row, "path", path) && overview_add_text(row, "state", state) &&
           cJSON_AddNumberToObject(row, "failures", told->failures) &&
           overview_add_text(row, "problem", told->problem[0] ? told->problem : NULL);
}

static bool overview_add_exports(cJSON *document, const struct report *report)
{
    struct filesystem *fs = report->fs;
    cJSON *array = cJSON_AddArrayToObject(document, "exports");
    cleanup_free struct export_told *told = calloc(OVERVIEW_EXPORTS, sizeof *told);
    bool fine = array && told;
    size_t count = fine ? export_list(fs, told, OVERVIEW_EXPORTS) : 0;
    for (size_t i = 0; i < count && fine; i++) {
        if (visible_to_caller(report->request, told[i].ino))
            fine = overview_add_export(array, fs, &told[i]);
    }
    return fine;
}

/* -- all of it --------------------------------------------------------------------------------------------
 */

/* Leaves out what whoever asks may not know of. */
static errint overview_filter(struct overview *overview, fuse_req_t request)
{
    size_t count = overview->outlook ? overview->outlook->count : 0, kept = 0;
    overview->runs = calloc(count + 1, sizeof *overview->runs);
    if (!overview->runs)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct outlook_run *run = &overview->outlook->runs[i];
        if (overview->everything || visible_to_caller(request, run->ino))
            overview->runs[overview->run_count++] = run;
    }
    for (size_t i = 0; i < overview->saves.count; i++) {
        struct save *save = &overview->saves.at[i];
        if (overview->everything || visible_to_caller(request, save->directory))
            overview->saves.at[kept++] = *save;
        else
            free(save->path);
    }
    overview->saves.count = kept;
    return 0;
}

errint overview_look(struct report *report, struct overview *out)
{
    struct filesystem *fs = report->fs;
    struct statvfs disk;
    *out = (struct overview){.fs = fs, .everything = visible_sees_all(report->uid)};
    out->outlook = outlook_take(fs, report_stops, report);
    errint error = report_stops(report) ? -ECANCELED : saves_look(fs, out->outlook, &out->saves);
    if (!error)
        error = overview_filter(out, report->request);
    if (!error && fstatvfs(fs->store->fd, &disk) == 0)
        out->available = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    return error;
}

void overview_release(struct overview *overview)
{
    outlook_give(overview->fs, overview->outlook);
    saves_release(&overview->saves);
    free(overview->runs);
}

errint control_describe_all(struct report *report, cJSON **out)
{
    cleanup_overview struct overview overview;
    *out = NULL;
    errint error = overview_look(report, &overview);
    if (error)
        return error;
    cJSON *document = control_describe(report->fs, report->uid);
    if (document && overview_add_saves(document, &overview.saves) && overview_add_runs(document, &overview) &&
        overview_add_space(document, &overview) && overview_add_exports(document, report)) {
        *out = document;
        return 0;
    }
    cJSON_Delete(document);
    return -ENOMEM;
}

/* -- the largest checkpoint -------------------------------------------------------------------------------
 */

static void overview_answer_largest(struct report *report)
{
    struct filesystem *fs = report->fs;
    struct control_largest answer = {0};
    struct outlook_largest largest;
    struct statvfs disk;
    answer.known = outlook_largest(fs, report_stops, report, &largest);
    if (report_stops(report)) {
        report_fail(report, -ECANCELED);
        return;
    }
    if (answer.known && fstatvfs(fs->store->fd, &disk) == 0) {
        answer.bytes = (uint64_t)largest.bytes;
        answer.available_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    }
    cleanup_free char *path = NULL;
    if (answer.bytes > 0 && visible_to_caller(report->request, largest.ino) &&
        meta_path(fs->meta, largest.ino, &path) == 0)
        snprintf(answer.path, sizeof answer.path, "%s", path);
    fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

void control_largest(fuse_req_t request, size_t room)
{
    report_within(request, room, sizeof(struct control_largest),
                  &(struct report){.ino = META_ROOT_INO, .answer = overview_answer_largest});
}
