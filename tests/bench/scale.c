/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills a namespace with the saves of training runs, as the daemon does and without their bytes, and measures
 * it at a quarter, at a half and at the whole of its size. Started by tests/bench/scale.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "scale_measure.h"

enum { SCALE_STEPS = 3, SCALE_KINDS_MAX = 32, SCALE_COMMON = 500 };

struct scale_options {
    const char *path; /* of the database */
    double tib;
    int small_files; /* per stored TiB */
    bool json;
};

struct scale_work {
    struct scale_options options;
    struct scale_state state, before;
    int64_t stored_by_kind[SCALE_KINDS_MAX];
    uint64_t small_files;
    struct scale_report reports[SCALE_STEPS];
};

/* -- filling ----------------------------------------------------------------------------------------------
 */

/* The kind that is furthest behind its share of the stored bytes. */
static size_t scale_next_kind(const struct scale_work *work)
{
    size_t best = 0;
    double least = 0;
    for (size_t i = 0; i < scale_kind_count; i++) {
        double had = (double)work->stored_by_kind[i] / scale_kinds[i].share;
        if (i > 0 && had >= least)
            continue;
        best = i;
        least = had;
    }
    return best;
}

static errint scale_add_run(struct scale_work *work)
{
    struct scale_run run;
    size_t kind = scale_next_kind(work);
    int64_t before = work->state.stored_bytes;
    errint error = scale_begin_run(&work->state, &scale_kinds[kind], &run);
    for (int i = 0; !error && i < SCALE_SAVES; i++)
        error = scale_save(&work->state, &run, i);
    scale_end_run(&run);
    work->stored_by_kind[kind] += work->state.stored_bytes - before;
    return error;
}

/* Logs, sources, data: half of them small enough for the database. */
static errint scale_add_small_files(struct scale_work *work, uint64_t until)
{
    uint64_t directory = 0;
    errint error = 0;
    for (; !error && work->small_files < until; work->small_files++) {
        uint64_t number = work->small_files;
        char name[32];
        snprintf(name, sizeof name, "files-%llu", (unsigned long long)number);
        if (directory == 0 || number % 1000 == 0)
            error = scale_add_directory(&work->state, META_ROOT_INO, name, &directory);
        snprintf(name, sizeof name, "%llu", (unsigned long long)number);
        if (!error)
            error = scale_add_file(&work->state, directory, name, number % 2 ? 2000 : 65536, number % 2,
                                   (UINT64_C(3) << 62) + number);
    }
    return error;
}

static errint scale_fill(struct scale_work *work, double tib)
{
    errint error = 0;
    while (!error && (double)work->state.stored_bytes < tib * 1099511627776.0)
        error = scale_add_run(work);
    if (!error)
        error = scale_add_small_files(work, (uint64_t)(tib * work->options.small_files));
    return error;
}

static errint scale_measure(struct scale_work *work, struct scale_report *report, bool last)
{
    struct scale_state *state = &work->state;
    const char *path = work->options.path;
    scale_measure_calls(report, state, &work->before);
    errint error = scale_measure_probe(report, state, &scale_probe_kind, "70B, 90 % frozen");
    if (!error)
        error = scale_measure_probe(report, state, &scale_probe_scattered, "70B, 90 % frozen, scattered");
    errint closed = meta_close(state->meta);
    state->meta = NULL;
    error = error ? error : closed;
    if (!error)
        error = scale_measure_tables(report, state, path);
    if (!error)
        error = scale_measure_start(report, state, path);
    if (!error)
        error = scale_measure_find(report, state, path);
    if (!error)
        error = meta_open(path, false, &state->meta);
    if (!error && last)
        error = scale_measure_common(report, state, SCALE_COMMON);
    work->before = *state;
    return error;
}

static errint scale_run_all(struct scale_work *work)
{
    static const double parts[SCALE_STEPS] = {0.25, 0.5, 1};
    errint error = meta_open(work->options.path, true, &work->state.meta);
    for (int i = 0; !error && i < SCALE_STEPS; i++) {
        int64_t since = scale_clock();
        error = scale_fill(work, work->options.tib * parts[i]);
        scale_put(&work->reports[i], "s", (double)(scale_clock() - since) / 1e9, "time to fill up to here");
        if (!error)
            error = scale_measure(work, &work->reports[i], i == SCALE_STEPS - 1);
    }
    errint closed = meta_close(work->state.meta);
    return error ? error : closed;
}

/* -- printing ---------------------------------------------------------------------------------------------
 */

static void scale_print_json(const struct scale_work *work)
{
    printf("[");
    for (int i = 0; i < SCALE_STEPS; i++) {
        const struct scale_report *report = &work->reports[i];
        printf("%s\n  {", i ? "," : "");
        for (size_t j = 0; j < report->count; j++)
            printf("%s\n    \"%s%s%s\": %.6g", j ? "," : "", report->at[j].name,
                   *report->at[j].unit ? ", " : "", report->at[j].unit, report->at[j].value);
        printf("\n  }");
    }
    printf("\n]\n");
}

static void scale_print_value(const struct scale_report *report, size_t index)
{
    if (index >= report->count)
        printf(" %12s", "");
    else if (report->at[index].value >= 1000)
        printf(" %12.0f", report->at[index].value);
    else
        printf(" %12.3g", report->at[index].value);
}

/* The last report has every figure that the others have, in the same order. */
static void scale_print_table(const struct scale_work *work)
{
    const struct scale_report *last = &work->reports[SCALE_STEPS - 1];
    for (size_t i = 0; i < last->count; i++) {
        printf("%-64s %-4s", last->at[i].name, last->at[i].unit);
        for (int j = 0; j < SCALE_STEPS; j++)
            scale_print_value(&work->reports[j], i);
        printf("\n");
    }
}

/* -- main -------------------------------------------------------------------------------------------------
 */

static bool scale_parse(int argc, char **argv, struct scale_options *options)
{
    static const struct option names[] = {{"tib", required_argument, NULL, 't'},
                                          {"small-files", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    *options = (struct scale_options){.tib = 10, .small_files = 20000};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 't': options->tib = strtod(optarg, NULL); break;
        case 's': options->small_files = (int)strtol(optarg, NULL, 10); break;
        case 'j': options->json = true; break;
        default: return false;
        }
    }
    if (optind + 1 == argc)
        options->path = argv[optind];
    return options->path && options->tib > 0 && options->small_files >= 0;
}

int main(int argc, char **argv)
{
    struct scale_options options;
    if (!scale_parse(argc, argv, &options) || scale_kind_count > SCALE_KINDS_MAX) {
        fprintf(stderr, "usage: tests/bench/scale [--tib N] [--small-files N] [--json]\n");
        return 2;
    }
    struct scale_work *work = calloc(1, sizeof *work);
    if (!work)
        return 1;
    work->options = options;
    errint error = scale_run_all(work);
    if (error)
        fprintf(stderr, "scale: %s\n", strerror(-error));
    else if (options.json)
        scale_print_json(work);
    else
        scale_print_table(work);
    free(work);
    return error ? 1 : 0;
}
