/* SPDX-License-Identifier: Apache-2.0 */
/* A run's checkpoints as a table. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/size_text.h"
#include "cmd/ls.h"
#include "format/plain_text.h"

enum { LS_CELL_MAX = 192, LS_COLUMNS = 9 };

/* The cells of a row but its name, which is of any length and comes last. */
struct ls_row {
    char cells[LS_COLUMNS][LS_CELL_MAX];
};

enum ls_column {
    LS_STEP,
    LS_SAVED,
    LS_STATE,
    LS_MARKS,
    LS_FRAMEWORK,
    LS_WORLD,
    LS_LOGICAL,
    LS_STORED,
    LS_METRIC,
};

static const struct {
    const char *head;
    bool right;
} ls_columns[LS_COLUMNS] = {
    [LS_STEP] = {"STEP", true},       [LS_SAVED] = {"SAVED", false},    [LS_STATE] = {"STATE", false},
    [LS_MARKS] = {"MARKS", false},    [LS_FRAMEWORK] = {"KIND", false}, [LS_WORLD] = {"RANKS", true},
    [LS_LOGICAL] = {"LOGICAL", true}, [LS_STORED] = {"STORED", true},   [LS_METRIC] = {"METRIC", false},
};

/* -- cells ------------------------------------------------------------------------------------------------
 */

static void ls_put(struct ls_row *row, enum ls_column column, const char *text)
{
    snprintf(row->cells[column], LS_CELL_MAX, "%s", text);
}

static void ls_put_number(struct ls_row *row, enum ls_column column, int64_t number, bool known)
{
    snprintf(row->cells[column], LS_CELL_MAX, known ? "%" PRId64 : "-", number);
}

static void ls_put_time(struct ls_row *row, int64_t time)
{
    struct timespec at = clock_to_timespec(time);
    struct tm local;
    ls_put(row, LS_SAVED, "-");
    if (time > 0 && localtime_r(&at.tv_sec, &local))
        strftime(row->cells[LS_SAVED], LS_CELL_MAX, "%Y-%m-%d %H:%M", &local);
}

static errint ls_put_metric(struct ls_row *row, const struct run_checkpoint *checkpoint)
{
    ls_put(row, LS_METRIC, "-");
    if (!checkpoint->measured)
        return 0;
    cleanup_free char *name = plain_text(checkpoint->metric.name);
    if (!name)
        return -ENOMEM;
    snprintf(row->cells[LS_METRIC], LS_CELL_MAX, "%s %.6g", name, checkpoint->metric.value);
    return 0;
}

static void ls_put_marks(struct ls_row *row, const struct run_checkpoint *checkpoint,
                         const struct ls_mounted *mounted)
{
    const struct {
        bool has;
        const char *name;
    } marks[] = {{checkpoint->best, "best"},
                 {checkpoint->latest, "latest"},
                 {mounted->marks.pinned != 0, "pinned"},
                 {checkpoint->complete.shed, "shed"}};
    char text[LS_CELL_MAX] = "";
    size_t length = 0;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (marks[i].has)
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", length > 0 ? ", " : "",
                                       marks[i].name);
    }
    ls_put(row, LS_MARKS, length > 0 ? text : "-");
}

static errint ls_fill(struct ls_row *row, const struct run_checkpoint *checkpoint,
                      const struct ls_mounted *mounted)
{
    const struct complete *complete = &checkpoint->complete;
    char text[SIZE_TEXT_MAX];
    ls_put_number(row, LS_STEP, checkpoint->step, checkpoint->step >= 0);
    ls_put_time(row, complete->time);
    ls_put(row, LS_STATE, ls_state(checkpoint, mounted));
    ls_put_marks(row, checkpoint, mounted);
    ls_put(row, LS_FRAMEWORK, complete->framework);
    ls_put_number(row, LS_WORLD, complete->world_size, complete->world_size > 0);
    ls_put(row, LS_LOGICAL, size_text((double)complete->bytes, text));
    ls_put(row, LS_STORED, "-");
    if (mounted->known)
        ls_put(row, LS_STORED, size_text((double)mounted->usage.stored_bytes, text));
    return ls_put_metric(row, checkpoint);
}

/* -- the table --------------------------------------------------------------------------------------------
 */

static void ls_print_cell(const char *text, size_t width, bool right)
{
    /* Names of metrics may have letters of more than a byte, which only shifts what follows. */
    printf(right ? "%*s  " : "%-*s  ", (int)width, text);
}

/* A column that says nothing in any row is left out. */
static void ls_measure(const struct ls_row *rows, size_t count, size_t widths[LS_COLUMNS])
{
    for (size_t column = 0; column < LS_COLUMNS; column++) {
        bool says = column == LS_STEP;
        widths[column] = strlen(ls_columns[column].head);
        for (size_t i = 0; i < count; i++) {
            size_t length = strlen(rows[i].cells[column]);
            says |= strcmp(rows[i].cells[column], "-") != 0;
            if (length > widths[column])
                widths[column] = length;
        }
        if (!says)
            widths[column] = 0;
    }
}

static void ls_print_row(const struct ls_row *row, const size_t widths[LS_COLUMNS], const char *name)
{
    for (size_t column = 0; column < LS_COLUMNS; column++) {
        if (widths[column] > 0)
            ls_print_cell(row ? row->cells[column] : ls_columns[column].head, widths[column],
                          ls_columns[column].right);
    }
    puts(name);
}

static errint ls_print_notes(const struct run_checkpoint *checkpoint)
{
    const struct complete *complete = &checkpoint->complete;
    for (size_t i = 0; i < complete->note_count; i++) {
        cleanup_free char *text = plain_text(complete->notes[i].text);
        if (!text)
            return -ENOMEM;
        printf("    %s: %s\n", complete->notes[i].missing ? "missing" : "note", text);
    }
    if (complete->notes_left_out > 0)
        printf("    note: %zu more\n", complete->notes_left_out);
    return 0;
}

static errint ls_print_checkpoint(const struct run_checkpoint *checkpoint, const struct ls_row *row,
                                  const size_t widths[LS_COLUMNS], bool why)
{
    cleanup_free char *name = plain_text(*checkpoint->path ? checkpoint->path : ".");
    if (!name)
        return -ENOMEM;
    ls_print_row(row, widths, name);
    if (checkpoint->no_template && why)
        puts("    note: template missing: no config.json says what model the shards are of");
    return why ? ls_print_notes(checkpoint) : 0;
}

errint ls_print(const struct ls_run *shown, bool why)
{
    const struct run *run = shown->run;
    cleanup_free struct ls_row *rows = calloc(run->count, sizeof *rows);
    cleanup_free char *path = plain_text(shown->path);
    size_t widths[LS_COLUMNS];
    errint error = rows && path ? 0 : -ENOMEM;
    bool no_template = false;
    for (size_t i = 0; i < run->count && !error; i++) {
        error = ls_fill(&rows[i], &run->at[i], &shown->mounted[i]);
        no_template |= run->at[i].no_template;
    }
    if (error)
        return error;
    ls_measure(rows, run->count, widths);
    printf("%s%s\n", path, no_template ? ": template missing" : "");
    ls_print_row(NULL, widths, "NAME");
    for (size_t i = 0; i < run->count && !error; i++)
        error = ls_print_checkpoint(&run->at[i], &rows[i], widths, why);
    return error;
}
