/* SPDX-License-Identifier: Apache-2.0 */
#include "scale_measure.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { MEASURE_ROUNDS = 5, MEASURE_COLD_FINDS = 2000 };

static const double measure_ms = 1e6, measure_us = 1e3, measure_tib = 1099511627776.0;

void scale_put(struct scale_report *report, const char *unit, double value, const char *format, ...)
{
    if (report->count == SCALE_FIGURES)
        return;
    struct scale_figure *figure = &report->at[report->count++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(figure->name, sizeof figure->name, format, arguments);
    va_end(arguments);
    figure->unit = unit;
    figure->value = value;
}

/* -- sizes ------------------------------------------------------------------------------------------------
 */

static errint measure_number(sqlite3 *db, const char *text, double *out)
{
    sqlite3_stmt *statement = NULL;
    errint error = sqlite3_prepare_v2(db, text, -1, &statement, NULL) == SQLITE_OK &&
                           sqlite3_step(statement) == SQLITE_ROW
                       ? 0
                       : -EIO;
    if (!error)
        *out = sqlite3_column_double(statement, 0);
    else
        fprintf(stderr, "scale: %s: %s\n", text, sqlite3_errmsg(db));
    sqlite3_finalize(statement);
    return error;
}

static errint measure_tables(struct scale_report *report, const struct scale_state *state, sqlite3 *db)
{
    static const char *const tables[] = {"inode", "name", "content", "extent", "object", "summed", "segment"};
    double pages = 0, rows = 0, bytes = 0, tib = (double)state->stored_bytes / measure_tib;
    errint error = measure_number(
        db, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", &pages);
    scale_put(report, "MiB", pages / (1 << 20), "database");
    scale_put(report, "MiB", pages / (1 << 20) / tib, "database, per stored TiB");
    for (size_t i = 0; !error && i < sizeof tables / sizeof *tables; i++) {
        char text[160];
        snprintf(text, sizeof text, "SELECT count(*) FROM %s", tables[i]);
        error = measure_number(db, text, &rows);
        scale_put(report, "", rows, "rows of %s", tables[i]);
    }
    if (!error)
        error = measure_number(
            db, "SELECT sum(pgsize) FROM dbstat WHERE name IN ('segment', 'segment_by_hash')", &bytes);
    scale_put(report, "", rows / tib, "rows of segment, per stored TiB");
    scale_put(report, "B", rows > 0 ? bytes / rows : 0, "bytes a row of segment, index included");
    return error;
}

errint scale_measure_tables(struct scale_report *report, const struct scale_state *state, const char *path)
{
    sqlite3 *db = NULL;
    errint error = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK ? 0 : -EIO;
    scale_put(report, "TiB", (double)state->stored_bytes / measure_tib, "stored");
    scale_put(report, "TiB", (double)state->saved_bytes / measure_tib, "saved");
    scale_put(report, "", (double)state->checkpoints, "checkpoints");
    if (!error)
        error = measure_tables(report, state, db);
    sqlite3_close(db);
    return error;
}

void scale_measure_calls(struct scale_report *report, const struct scale_state *now,
                         struct scale_state *before)
{
    const struct {
        const char *name;
        const struct scale_timing *now, *before;
    } all[] = {
        {"create a file", &now->create, &before->create},
        {"seal", &now->seal, &before->seal},
        {"record a segment (meta_object_summed)", &now->summed, &before->summed},
        {"find a segment while filling", &now->find, &before->find},
        {"find the predecessor", &now->predecessor, &before->predecessor},
        {"re-point a file", &now->repoint, &before->repoint},
        {"live ranges of an object", &now->live, &before->live},
        {"find the shrunk objects", &now->find_shrunk, &before->find_shrunk},
        {"drop the dead segments of an object", &now->shrunk_done, &before->shrunk_done},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint64_t count = all[i].now->count - all[i].before->count;
        int64_t ns = all[i].now->ns - all[i].before->ns;
        scale_put(report, "us", count ? (double)ns / (double)count / measure_us : 0, "%s, mean", all[i].name);
    }
    *before = *now;
}

/* -- starts -----------------------------------------------------------------------------------------------
 */

/* The kernel keeps no page of the database. */
static errint measure_evict(const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Leaves the database as a daemon does that is killed. */
static errint measure_kill(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        struct meta *meta;
        errint error = meta_open(path, false, &meta);
        if (!error)
            error = meta_setting_put(meta, "clean", "0");
        _exit(error ? 1 : 0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static errint measure_find_users(struct meta *meta, struct ids *ids)
{
    cleanup_ids struct ids users = {0};
    errint error = meta_find_sealed(meta, ids);
    for (size_t i = 0; !error && i < ids->count; i++) {
        int64_t size;
        users.count = 0;
        error = meta_object_size(meta, ids->at[i], &size);
        if (!error)
            error = meta_find_users(meta, ids->at[i], &users);
    }
    return error;
}

static errint measure_find_unshared(struct meta *meta, struct ids *ids)
{
    uint64_t after = 0;
    int more;
    while ((more = meta_find_unshared_after(meta, &after, ids)) > 0)
        continue;
    return more;
}

enum { MEASURE_PARTS = 7 };

static const struct {
    const char *name;
    errint (*find)(struct meta *meta, struct ids *out);
} measure_parts[MEASURE_PARTS - 1] = {
    {"find_dirty", meta_find_dirty},
    {"find_orphans", meta_find_orphans},
    {"find_unreferenced", meta_find_unreferenced},
    {"find_objects", meta_find_objects},
    {"find_unshared", measure_find_unshared},
    {"find_sealed and users, after a power cut", measure_find_users},
};

static errint measure_one_start(const char *path, bool killed, bool cold, int64_t ns[MEASURE_PARTS])
{
    struct meta *meta = NULL;
    errint error = killed ? measure_kill(path) : 0;
    if (!error && cold)
        error = measure_evict(path);
    int64_t since = scale_clock();
    if (!error)
        error = meta_open(path, false, &meta);
    ns[0] = scale_clock() - since;
    for (size_t i = 1; !error && i < MEASURE_PARTS; i++) {
        cleanup_ids struct ids ids = {0};
        since = scale_clock();
        error = measure_parts[i - 1].find(meta, &ids);
        ns[i] = scale_clock() - since;
    }
    errint closed = meta_close(meta);
    return error ? error : closed;
}

static int measure_compare(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static errint measure_starts(struct scale_report *report, const char *path, bool killed, bool cold)
{
    int64_t all[MEASURE_PARTS][MEASURE_ROUNDS];
    for (size_t round = 0; round < MEASURE_ROUNDS; round++) {
        int64_t ns[MEASURE_PARTS];
        errint error = measure_one_start(path, killed, cold, ns);
        if (error)
            return error;
        for (size_t i = 0; i < MEASURE_PARTS; i++)
            all[i][round] = ns[i];
    }
    const char *how = killed ? "killed" : "clean", *state = cold ? "cold" : "warm";
    for (size_t i = 0; i < MEASURE_PARTS; i++) {
        qsort(all[i], MEASURE_ROUNDS, sizeof all[i][0], measure_compare);
        double median = (double)all[i][MEASURE_ROUNDS / 2] / measure_ms;
        if (i == 0)
            scale_put(report, "ms", median, "start after %s, %s: meta_open", how, state);
        else if (!killed)
            scale_put(report, "ms", median, "start, %s: %s", state, measure_parts[i - 1].name);
    }
    return 0;
}

errint scale_measure_start(struct scale_report *report, struct scale_state *state, const char *path)
{
    (void)state;
    errint error = measure_starts(report, path, false, false);
    if (!error)
        error = measure_starts(report, path, false, true);
    if (!error)
        error = measure_starts(report, path, true, false);
    if (!error)
        error = measure_starts(report, path, true, true);
    return error;
}

/* -- look-ups ---------------------------------------------------------------------------------------------
 */

static double measure_resident(void)
{
    char line[128];
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file && fgets(line, sizeof line, file))
        sscanf(line, "%*d %ld", &pages);
    if (file)
        fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static errint measure_finds(struct scale_state *state, size_t count, int64_t *ns)
{
    errint error = 0;
    for (size_t i = 0; !error && i < count; i++) {
        const struct scale_sample *sample = &state->samples[i];
        cleanup_free struct meta_range *ranges = NULL;
        size_t found;
        int64_t since = scale_clock();
        error = meta_find_segment(state->meta, &sample->segment, 1000, 0, &ranges, &found);
        ns[i] = scale_clock() - since;
    }
    if (!error)
        qsort(ns, count, sizeof *ns, measure_compare);
    return error;
}

static void measure_put_finds(struct scale_report *report, const char *how, const int64_t *ns, size_t count)
{
    scale_put(report, "us", (double)ns[count / 2] / measure_us, "look up a segment, %s, median", how);
    scale_put(report, "us", (double)ns[count * 99 / 100] / measure_us, "look up a segment, %s, p99", how);
}

errint scale_measure_find(struct scale_report *report, struct scale_state *state, const char *path)
{
    static int64_t ns[SCALE_SAMPLES];
    size_t count = state->segments < SCALE_SAMPLES ? (size_t)state->segments : SCALE_SAMPLES;
    size_t cold = count < MEASURE_COLD_FINDS ? count : MEASURE_COLD_FINDS;
    errint error = measure_evict(path);
    if (!error)
        error = meta_open(path, false, &state->meta);
    if (!error)
        error = measure_finds(state, cold, ns);
    if (!error)
        measure_put_finds(report, "cold", ns, cold);
    for (int round = 0; !error && round < 2; round++)
        error = measure_finds(state, count, ns);
    if (!error)
        measure_put_finds(report, "warm", ns, count);
    scale_put(report, "MiB", measure_resident(), "resident memory after all look-ups");
    errint closed = meta_close(state->meta);
    state->meta = NULL;
    return error ? error : closed;
}

/* -- one run ----------------------------------------------------------------------------------------------
 */

static double measure_ms_between(const struct scale_timing *now, const struct scale_timing *before)
{
    return (double)(now->ns - before->ns) / measure_ms;
}

static errint measure_last_save(struct scale_report *report, struct scale_state *state,
                                const struct scale_run *run, const char *label)
{
    struct scale_timing find = state->find, repoint = state->repoint, summed = state->summed;
    int64_t since = scale_clock();
    errint error = scale_save(state, run, SCALE_SAVES - 1);
    scale_put(report, "ms", (double)(scale_clock() - since) / measure_ms, "%s: the tenth save", label);
    scale_put(report, "ms", measure_ms_between(&state->summed, &summed), "  recording %llu segments",
              (unsigned long long)(state->summed.count - summed.count));
    scale_put(report, "ms", measure_ms_between(&state->find, &find), "  looking them up");
    scale_put(report, "ms", measure_ms_between(&state->repoint, &repoint), "  re-pointing, %llu calls",
              (unsigned long long)(state->repoint.count - repoint.count));
    return error;
}

errint scale_measure_probe(struct scale_report *report, struct scale_state *state,
                           const struct scale_kind *kind, const char *label)
{
    struct scale_run run;
    int64_t stored = state->stored_bytes, saved = state->saved_bytes;
    uint64_t checkpoints = state->checkpoints;
    errint error = scale_begin_run(state, kind, &run);
    for (int i = 0; !error && i < SCALE_SAVES - 1; i++)
        error = scale_save(state, &run, i);
    if (!error)
        error = measure_last_save(report, state, &run, label);
    int64_t since = scale_clock();
    if (!error)
        error = scale_delete(state, &run, 0);
    scale_put(report, "ms", (double)(scale_clock() - since) / measure_ms, "%s: delete the first save", label);
    since = scale_clock();
    if (!error)
        error = scale_delete(state, &run, -1);
    scale_put(report, "ms", (double)(scale_clock() - since) / measure_ms, "%s: delete the rest", label);
    scale_end_run(&run);
    state->stored_bytes = stored;
    state->saved_bytes = saved;
    state->checkpoints = checkpoints;
    return error;
}

errint scale_measure_common(struct scale_report *report, struct scale_state *state, int count)
{
    uint64_t directory;
    int64_t since = scale_clock();
    struct scale_timing repoint = state->repoint;
    errint error = scale_add_directory(state, META_ROOT_INO, "common", &directory);
    for (int i = 0; !error && i <= count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.json", i);
        since = scale_clock();
        repoint = state->repoint;
        error = scale_add_file(state, directory, name, 9085698, false, UINT64_C(1) << 62);
    }
    scale_put(report, "ms", (double)(scale_clock() - since) / measure_ms,
              "one file more that %d others equal", count);
    scale_put(report, "", (double)(state->repoint.count - repoint.count), "  calls that re-point");
    return error;
}
