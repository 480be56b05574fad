/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the runs of a mount, and the last completed checkpoint of each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ckpt/run.h"
#include "format/internal.h"
#include "fs/checkpoints.h"
#include "fs/namespace_folder.h"
#include "fs/outlook.h"
#include "fs/tree_sum.h"
#include "meta/usage.h"

/* A directory of runs, of experiments, of users: no deeper, as `ckptfs ls` has it. */
enum { OUTLOOK_DEPTH = 3 };

struct outlook_walk {
    struct filesystem *fs;
    const struct outlook *former;
    bool judges;
    struct outlook *out;
    struct outlook_largest *largest;
};

/* A checkpoint as its names and sizes tell. */
struct outlook_checkpoint {
    const char *path; /* in the run */
    uint64_t ino;
    struct tree_sum sum;
};

/* A directory that is being looked at. */
struct outlook_place {
    uint64_t ino;
    const char *name;
    struct folder folder;
    struct folder_listing listing;
    struct detect detect;
    struct outlook_checkpoint *at; /* of detect, without those that are gone by now */
    size_t count;
    uint64_t print;
};

static void outlook_place_release(struct outlook_place *place)
{
    folder_listing_release(&place->listing);
    detect_release(&place->detect);
    free(place->at);
}

/* -- names and sizes --------------------------------------------------------------------------------------
 */

static void outlook_print(uint64_t *print, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < length; i++)
        *print = format_hash_byte(*print, at[i]);
}

/* Files of the run's own directory say something of its checkpoints, too. */
static void outlook_print_listing(struct outlook_place *place)
{
    place->print = FORMAT_HASH_START;
    for (size_t i = 0; i < place->listing.count; i++) {
        const struct folder_entry *entry = &place->listing.at[i];
        const int64_t shape[] = {entry->directory, entry->size, entry->time};
        outlook_print(&place->print, entry->name, strlen(entry->name) + 1);
        if (!entry->directory)
            outlook_print(&place->print, shape, sizeof shape);
    }
}

static errint outlook_measure_one(struct outlook_walk *walk, struct outlook_place *place,
                                  const struct detected *detected)
{
    struct outlook_checkpoint *checkpoint = &place->at[place->count];
    struct meta_inode row;
    errint error = namespace_find(walk->fs, place->ino, detected->path, strlen(detected->path), &row);
    const struct tree_sum_asked asked = {
        .ino = row.ino, .own_only = detected->own_level, .stops = outlook_stops};
    if (!error)
        error = tree_sum_add_up(walk->fs, &asked, &checkpoint->sum);
    if (error)
        return error == -ENOENT ? 0 : error;
    checkpoint->path = detected->path;
    checkpoint->ino = row.ino;
    place->count++;
    outlook_print(&place->print, &checkpoint->sum.print, sizeof checkpoint->sum.print);
    if (checkpoint->sum.bytes > walk->largest->bytes)
        *walk->largest = (struct outlook_largest){checkpoint->sum.bytes, row.ino};
    return 0;
}

static errint outlook_measure_all(struct outlook_walk *walk, struct outlook_place *place)
{
    place->at = calloc(place->detect.count + 1, sizeof *place->at);
    if (!place->at)
        return -ENOMEM;
    outlook_print_listing(place);
    errint error = 0;
    for (size_t i = 0; i < place->detect.count && !error; i++)
        error = outlook_measure_one(walk, place, &place->detect.at[i]);
    return error;
}

/* -- judging ----------------------------------------------------------------------------------------------
 */

static const struct outlook_checkpoint *outlook_find(const struct outlook_place *place, const char *path)
{
    for (size_t i = 0; i < place->count; i++) {
        if (strcmp(place->at[i].path, path) == 0)
            return &place->at[i];
    }
    return NULL;
}

/* Whether it is one that was completed, and nobody is at it. */
static bool outlook_counts(const struct outlook_place *place, const struct run_checkpoint *checkpoint)
{
    const struct outlook_checkpoint *measured = outlook_find(place, checkpoint->path);
    bool good = checkpoint->complete.state == COMPLETE_YES || checkpoint->complete.state == COMPLETE_WEIGHTS;
    return good && measured && measured->sum.writing == 0 && measured->sum.torn == 0;
}

static bool outlook_is_later(const struct run_checkpoint *one, const struct run_checkpoint *other)
{
    bool whole = one->complete.state == COMPLETE_YES;
    if (whole != (other->complete.state == COMPLETE_YES))
        return whole;
    if (whole && one->step >= 0 && other->step >= 0)
        return one->step > other->step;
    return one->complete.time > other->complete.time;
}

/* The last completed one, and the one before it; NULL where there is none. */
static void outlook_choose(const struct outlook_place *place, const struct run *run,
                           const struct run_checkpoint **last, const struct run_checkpoint **before)
{
    *last = *before = NULL;
    for (size_t i = 0; i < run->count; i++) {
        const struct run_checkpoint *checkpoint = &run->at[i];
        if (!outlook_counts(place, checkpoint))
            continue;
        if (!*last || outlook_is_later(checkpoint, *last)) {
            *before = *last;
            *last = checkpoint;
        } else if (!*before || outlook_is_later(checkpoint, *before)) {
            *before = checkpoint;
        }
    }
}

static errint outlook_join(const char *path, const char *name, char **out)
{
    if (!*name)
        *out = strdup(path);
    else if (asprintf(out, "%s%s%s", path, strcmp(path, "/") == 0 ? "" : "/", name) < 0)
        *out = NULL;
    return *out ? 0 : -ENOMEM;
}

static errint outlook_describe(const struct outlook_place *place, const struct run *run,
                               struct outlook_run *out)
{
    const struct run_checkpoint *last, *before;
    outlook_choose(place, run, &last, &before);
    if (!last)
        return 0;
    const struct outlook_checkpoint *measured = outlook_find(place, last->path);
    bool durable = last->complete.state == COMPLETE_YES && measured->sum.dirty == 0;
    out->last_ino = measured->ino;
    out->state = durable ? "durable" : complete_state_name(last->complete.state);
    out->step = last->step;
    out->time = last->complete.time;
    out->bytes = measured->sum.bytes;
    if (before && last->step > before->step && before->step >= 0) {
        out->steps = last->step - before->step;
        int64_t apart = last->complete.time - before->complete.time;
        out->apart = apart > 0 ? apart : 0;
    }
    return outlook_join(out->path, last->path, &out->last);
}

/* Notes what is completed, and counts what of it was not so at the last look, nor at the daemon's start. */
static errint outlook_count(struct outlook_walk *walk, const struct outlook_place *place,
                            const struct run *run, const struct outlook_run *former, struct outlook_run *out)
{
    errint error = 0;
    for (size_t i = 0; i < run->count && !error; i++) {
        if (!outlook_counts(place, &run->at[i]))
            continue;
        uint64_t ino = outlook_find(place, run->at[i].path)->ino;
        bool known = former && ids_contain(&former->completed, ino);
        if (!known && run->at[i].complete.time > walk->fs->started)
            atomic_fetch_add(&walk->fs->counters.completed, 1);
        error = ids_append(&out->completed, ino);
    }
    return error;
}

static errint outlook_judge(struct outlook_walk *walk, const struct outlook_place *place,
                            const struct outlook_run *former, struct outlook_run *out)
{
    cleanup_run struct run run = {0};
    const struct checkpoints_asked asked = {
        .run = place->ino, .name = place->name, .unsafe = true, .stops = outlook_stops};
    errint error = checkpoints_read_run(walk->fs, &asked, &run);
    if (error)
        return error;
    out->checkpoints = run.count;
    error = outlook_count(walk, place, &run, former, out);
    return error ? error : outlook_describe(place, &run, out);
}

static errint outlook_copy(const struct outlook_run *former, struct outlook_run *out)
{
    char *path = out->path;
    *out = *former;
    out->path = path;
    out->last = former->last ? strdup(former->last) : NULL;
    out->completed = (struct ids){0};
    errint error = former->last && !out->last ? -ENOMEM : 0;
    for (size_t i = 0; i < former->completed.count && !error; i++)
        error = ids_append(&out->completed, former->completed.at[i]);
    return error;
}

static bool outlook_stops_context(void *context)
{
    return outlook_stops(context);
}

/* What of it is new follows from all files of the store: it may have changed where the run has not. */
static errint outlook_weigh(struct filesystem *fs, struct outlook_run *run)
{
    struct meta_usage usage;
    const struct meta_usage_request request = {
        .ino = run->last_ino, .everybody = true, .stop = outlook_stops_context, .context = fs};
    run->fresh = -1;
    if (!run->last)
        return 0;
    errint error = meta_usage_compute(fs->meta, &request, &usage);
    if (!error)
        run->fresh = usage.unique_bytes;
    return error == -ENOENT ? 0 : error;
}

static errint outlook_take_run(struct outlook_walk *walk, struct outlook_place *place)
{
    struct outlook *out = walk->out;
    struct filesystem *fs = walk->fs;
    if (out->count == OUTLOOK_RUNS_MAX) {
        out->left_out++;
        return 0;
    }
    struct outlook_run *runs = reallocarray(out->runs, out->count + 1, sizeof *runs);
    if (!runs)
        return -ENOMEM;
    out->runs = runs;
    struct outlook_run *run = &runs[out->count];
    *run = (struct outlook_run){.ino = place->ino, .print = place->print, .step = -1, .fresh = -1};
    errint error = meta_path(fs->meta, place->ino, &run->path);
    if (error)
        return error == -ENOENT ? 0 : error;
    out->count++;
    const struct outlook_run *former = outlook_find_run(walk->former, place->ino);
    if (former && former->print == place->print)
        error = outlook_copy(former, run);
    else
        error = outlook_judge(walk, place, former, run);
    return error ? error : outlook_weigh(fs, run);
}

/* -- the tree ---------------------------------------------------------------------------------------------
 */

static errint outlook_walk(struct outlook_walk *walk, uint64_t directory, const char *name, unsigned depth);

/* Directories that are no checkpoints of this one may be runs. */
static errint outlook_walk_below(struct outlook_walk *walk, const struct outlook_place *place, unsigned depth)
{
    errint error = 0;
    for (size_t i = 0; i < place->listing.count && !error; i++) {
        const struct folder_entry *entry = &place->listing.at[i];
        struct meta_inode row;
        if (!entry->directory || entry->name[0] == '.' || outlook_find(place, entry->name))
            continue;
        if (meta_lookup(walk->fs->meta, place->ino, entry->name, strlen(entry->name), &row) == 0)
            error = outlook_walk(walk, row.ino, entry->name, depth + 1);
    }
    return error;
}

static errint outlook_look(struct outlook_walk *walk, struct outlook_place *place, unsigned depth)
{
    errint error = folder_read(&place->folder, "", &place->listing);
    if (!error)
        error = detect_checkpoints(&place->folder, place->name, &place->detect);
    if (!error)
        error = outlook_measure_all(walk, place);
    if (!error && walk->judges && place->count > 0)
        error = outlook_take_run(walk, place);
    bool one = place->count == 1 && !*place->at[0].path;
    if (!error && depth < OUTLOOK_DEPTH && !one)
        error = outlook_walk_below(walk, place, depth);
    return error;
}

static errint outlook_walk(struct outlook_walk *walk, uint64_t directory, const char *name, unsigned depth)
{
    cleanup_namespace_folder struct namespace_folder names = {0};
    __attribute__((cleanup(outlook_place_release))) struct outlook_place place = {.ino = directory,
                                                                                  .name = name};
    if (outlook_stops(walk->fs))
        return -ECANCELED;
    errint error = namespace_folder_open(walk->fs, directory, outlook_stops, &names, &place.folder);
    names.peeks = true;
    if (!error)
        error = outlook_look(walk, &place, depth);
    /* One that was removed meanwhile, or has too many entries for a run, is none. The others count. */
    return error == -ENOMEM || error == -ECANCELED ? error : 0;
}

static int outlook_compare(const void *one, const void *other)
{
    const struct outlook_run *a = one, *b = other;
    return strcmp(a->path, b->path);
}

errint outlook_look_at_runs(struct filesystem *fs, const struct outlook *former, bool judges,
                            struct outlook *out, struct outlook_largest *largest)
{
    struct outlook_walk walk = {.fs = fs, .former = former, .judges = judges, .out = out, .largest = largest};
    errint error = outlook_walk(&walk, META_ROOT_INO, "", 0);
    if (!error && out->count > 0)
        qsort(out->runs, out->count, sizeof *out->runs, outlook_compare);
    return error;
}
