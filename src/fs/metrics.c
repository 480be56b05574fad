/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics. */
#include "fs/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "fs/assembler.h"
#include "fs/exposition.h"
#include "fs/overview.h"
#include "fs/share.h"
#include "fs/stored.h"
#include "fs/writeback.h"

static void metrics_one(struct text *out, const char *name, const char *type, const char *help, double value)
{
    exposition_family(out, name, type, help);
    exposition_sample(out, name, NULL, value);
}

static void metrics_gauge(struct text *out, const char *name, const char *help, double value)
{
    metrics_one(out, name, "gauge", help, value);
}

static void metrics_counter(struct text *out, const char *name, const char *help, double value)
{
    metrics_one(out, name, "counter", help, value);
}

static double metrics_seconds(int64_t ns)
{
    return (double)ns / (double)CLOCK_NS_PER_SECOND;
}

/* -- the mount --------------------------------------------------------------------------------------------
 */

static void metrics_add_info(struct text *out, const struct filesystem *fs)
{
    const struct exposition_label labels[] = {{"version", PACKAGE_VERSION},
                                              {"store_id", fs->store->id},
                                              {"mountpoint", fs->options->mountpoint},
                                              {0}};
    exposition_family(out, "ckptfs_info", "gauge", "The mount that the other series are of.");
    exposition_sample(out, "ckptfs_info", labels, 1);
    uint32_t generation = atomic_load(&fs->state->generation);
    metrics_gauge(out, "ckptfs_mounted_timestamp_seconds", "When it was mounted, since the epoch.",
                  metrics_seconds(fs->state->mounted_at));
    metrics_gauge(out, "ckptfs_daemon_start_timestamp_seconds",
                  "When the present daemon started, since the epoch.", metrics_seconds(fs->started));
    metrics_counter(out, "ckptfs_daemon_restarts_total", "Daemons that took over from one that ended.",
                    generation > 0 ? generation - 1 : 0);
}

static void metrics_add_contents(struct text *out, struct filesystem *fs)
{
    struct meta_totals totals = {0};
    meta_count(fs->meta, &totals);
    const struct writeback_totals behind = writeback_count(fs);
    int64_t stored = stored_bytes(fs);
    metrics_gauge(out, "ckptfs_inodes", "Inodes of the store.", (double)totals.inodes);
    metrics_gauge(out, "ckptfs_objects", "Objects of the store.", (double)totals.objects);
    metrics_gauge(out, "ckptfs_logical_bytes", "Sum of the files' sizes.", (double)totals.logical_bytes);
    if (stored >= 0)
        metrics_gauge(out, "ckptfs_stored_bytes", "What the objects take on the disk.", (double)stored);
    metrics_gauge(out, "ckptfs_behind_files", "Files that are not on stable storage yet.",
                  (double)behind.files);
    metrics_gauge(out, "ckptfs_behind_bytes", "Bytes that are not on stable storage yet.",
                  (double)behind.bytes);
    metrics_gauge(out, "ckptfs_unshared_files", "Files that wait to be compared with older ones.",
                  (double)share_waiting(fs));
    metrics_gauge(out, "ckptfs_unassembled_directories", "Directories that wait to be looked at for models.",
                  (double)assembler_waiting(fs));
    metrics_gauge(out, "ckptfs_damaged_ranges", "Ranges of objects that were found damaged.",
                  (double)damage_count(fs));
    metrics_gauge(out, "ckptfs_torn_files", "Files that lost bytes in a crash.", (double)totals.torn);
}

static void metrics_add_space(struct text *out, const struct overview *overview)
{
    struct filesystem *fs = overview->fs;
    struct statvfs disk;
    if (fstatvfs(fs->store->fd, &disk) == 0) {
        double block = (double)disk.f_frsize;
        metrics_gauge(out, "ckptfs_disk_size_bytes", "Size of the disk under the store.",
                      (double)disk.f_blocks * block);
        metrics_gauge(out, "ckptfs_disk_available_bytes", "What can be written to it.",
                      (double)disk.f_bavail * block);
    }
    metrics_gauge(out, "ckptfs_disk_full", "1 while new files are refused for want of space.",
                  atomic_load(&fs->disk_full));
    metrics_gauge(out, "ckptfs_reserve_bytes", "What is set aside for the database.",
                  (double)fs->store->reserve_size);
    if (!overview->everything || !overview->outlook || !overview->outlook->reclaim_known)
        return;
    struct overview_freed freed[OVERVIEW_FREED_MAX];
    size_t count = overview_list_freed(overview, freed);
    exposition_family(out, "ckptfs_reclaimable_bytes", "gauge", "What waits to be given back to the disk.");
    for (size_t i = 0; i < count; i++) {
        const struct exposition_label labels[] = {{"what", freed[i].what}, {"when", freed[i].when}, {0}};
        exposition_sample(out, "ckptfs_reclaimable_bytes", labels, (double)freed[i].bytes);
    }
}

/* -- what was done ----------------------------------------------------------------------------------------
 */

static void metrics_add_fsyncs(struct text *out, struct counters *counters)
{
    static const double bounds[] = COUNTERS_FSYNC_BOUNDS;
    uint64_t count = 0;
    exposition_family(out, "ckptfs_fsync_duration_seconds", "histogram", "How long fsyncs took.");
    for (size_t i = 0; i < COUNTERS_FSYNC_BUCKETS; i++) {
        char bound[32] = "+Inf";
        if (i + 1 < COUNTERS_FSYNC_BUCKETS)
            snprintf(bound, sizeof bound, "%g", bounds[i]);
        const struct exposition_label labels[] = {{"le", bound}, {0}};
        count += atomic_load(&counters->fsyncs[i]);
        exposition_sample(out, "ckptfs_fsync_duration_seconds_bucket", labels, (double)count);
    }
    exposition_sample(out, "ckptfs_fsync_duration_seconds_sum", NULL,
                      metrics_seconds((int64_t)atomic_load(&counters->fsync_ns)));
    exposition_sample(out, "ckptfs_fsync_duration_seconds_count", NULL, (double)count);
}

static void metrics_add_counters(struct text *out, struct counters *counters)
{
    metrics_counter(out, "ckptfs_saves_completed_total",
                    "Checkpoints found complete that were not so before; looked for at each reading of this.",
                    (double)atomic_load(&counters->completed));
    metrics_counter(out, "ckptfs_written_files_total", "Files that were written and closed.",
                    (double)atomic_load(&counters->sealed_files));
    metrics_counter(out, "ckptfs_written_bytes_total", "The sizes of these, once each is closed.",
                    (double)atomic_load(&counters->sealed_bytes));
    metrics_counter(out, "ckptfs_shared_bytes_total",
                    "Bytes of files that gave way to equal bytes of other files.",
                    (double)atomic_load(&counters->shared_bytes));
    metrics_counter(out, "ckptfs_refused_requests_total", "Requests refused because the disk is full.",
                    (double)atomic_load(&counters->refused));
    metrics_counter(out, "ckptfs_assembled_models_total", "Models made of shards.",
                    (double)atomic_load(&counters->assembled));
    metrics_add_fsyncs(out, counters);
}

/* -- runs -------------------------------------------------------------------------------------------------
 */

/* What a series says of a run; false: of this one nothing. */
typedef bool metrics_value(const struct overview *overview, const struct outlook_run *run, double *value);

static bool metrics_checkpoints(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = (double)run->checkpoints;
    return true;
}

static bool metrics_completed(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = (double)run->completed.count;
    return true;
}

static bool metrics_last_step(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = (double)run->step;
    return run->last && run->step >= 0;
}

static bool metrics_last_time(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = metrics_seconds(run->time);
    return run->last != NULL;
}

static bool metrics_last_bytes(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = (double)run->bytes;
    return run->last != NULL;
}

static bool metrics_last_fresh(const struct overview *overview, const struct outlook_run *run, double *value)
{
    (void)overview;
    *value = (double)run->fresh;
    return run->last && run->fresh >= 0;
}

static bool metrics_next_fits(const struct overview *overview, const struct outlook_run *run, double *value)
{
    struct forecast forecast;
    if (!run->last)
        return false;
    overview_forecast(overview, run, &forecast);
    *value = forecast.fits;
    return true;
}

static bool metrics_full_step(const struct overview *overview, const struct outlook_run *run, double *value)
{
    struct forecast forecast;
    if (!run->last)
        return false;
    overview_forecast(overview, run, &forecast);
    *value = (double)forecast.step;
    return forecast.step >= 0;
}

static bool metrics_full_time(const struct overview *overview, const struct outlook_run *run, double *value)
{
    struct forecast forecast;
    if (!run->last)
        return false;
    overview_forecast(overview, run, &forecast);
    *value = metrics_seconds(forecast.time);
    return forecast.time > 0;
}

static bool metrics_saving(const struct overview *overview, const struct outlook_run *run, double *value)
{
    *value = 0;
    for (size_t i = 0; i < overview->saves.count; i++) {
        const struct save *save = &overview->saves.at[i];
        if (save->run == run->ino || save->directory == run->ino)
            *value += (double)save->written;
    }
    return true;
}

static const struct metrics_row {
    const char *name, *help;
    metrics_value *value;
} metrics_rows[] = {
    {"ckptfs_run_checkpoints", "Checkpoints of the run, complete or not.", metrics_checkpoints},
    {"ckptfs_run_completed_checkpoints", "Of these, completed ones.", metrics_completed},
    {"ckptfs_run_last_step", "Step of the last completed checkpoint.", metrics_last_step},
    {"ckptfs_run_last_timestamp_seconds", "When the last completed one was saved, since the epoch.",
     metrics_last_time},
    {"ckptfs_run_last_bytes", "Size of the last completed checkpoint.", metrics_last_bytes},
    {"ckptfs_run_last_new_bytes", "What of it no other file has.", metrics_last_fresh},
    {"ckptfs_run_saving_bytes", "Written so far of the run's saves that are under way.", metrics_saving},
    {"ckptfs_run_next_fits", "1 when one more like the last one fits on the disk.", metrics_next_fits},
    {"ckptfs_run_full_step", "First step whose checkpoint does not fit, if nothing is removed.",
     metrics_full_step},
    {"ckptfs_run_full_timestamp_seconds", "When that is due, since the epoch.", metrics_full_time},
};

static int metrics_compare_times(const void *one, const void *other)
{
    const struct outlook_run *a = *(const struct outlook_run *const *)one,
                             *b = *(const struct outlook_run *const *)other;
    return a->time == b->time ? 0 : a->time > b->time ? -1 : 1;
}

static void metrics_add_runs(struct text *out, struct overview *overview)
{
    size_t count = overview->run_count < METRICS_RUNS_MAX ? overview->run_count : METRICS_RUNS_MAX;
    /* Which ones are told must not depend on the order of their names. */
    qsort(overview->runs, overview->run_count, sizeof *overview->runs, metrics_compare_times);
    metrics_gauge(out, "ckptfs_runs", "Runs that were found, with those that have no series here.",
                  (double)(overview->run_count + (overview->outlook ? overview->outlook->left_out : 0)));
    metrics_gauge(out, "ckptfs_saves_in_progress", "Checkpoints that are being written.",
                  (double)overview->saves.count);
    for (size_t row = 0; row < sizeof metrics_rows / sizeof *metrics_rows; row++) {
        const struct metrics_row *series = &metrics_rows[row];
        exposition_family(out, series->name, "gauge", series->help);
        for (size_t i = 0; i < count; i++) {
            const struct exposition_label labels[] = {{"run", overview->runs[i]->path}, {0}};
            double value;
            if (series->value(overview, overview->runs[i], &value))
                exposition_sample(out, series->name, labels, value);
        }
    }
}

errint metrics_write(struct report *report, struct text *out)
{
    cleanup_overview struct overview overview;
    errint error = overview_look(report, &overview);
    if (error)
        return error;
    metrics_add_info(out, report->fs);
    metrics_add_contents(out, report->fs);
    metrics_add_space(out, &overview);
    metrics_add_counters(out, &report->fs->counters);
    metrics_add_runs(out, &overview);
    return out->failed ? -ENOMEM : 0;
}
