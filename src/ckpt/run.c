/* SPDX-License-Identifier: Apache-2.0 */
/* A run's checkpoints, judged together. */
#include "ckpt/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/complete_markers.h"
#include "ckpt/complete_names.h"
#include "ckpt/folder_below.h"

enum { RUN_MEMORY = 16 << 20, RUN_LATEST_MAX = 4096 };

/* What the directory of the run itself tells. */
struct run_reader {
    const struct folder *folder;
    const struct run_asked *asked;
    int64_t proven; /* the step that latest_checkpointed_iteration.txt names; -1: none */
    char *named;    /* the tag that DeepSpeed's file "latest" names; NULL: none. Of this reader */
    bool config;    /* a config.json is beside the checkpoints */
};

/* -- judging ----------------------------------------------------------------------------------------------
 */

/* The text of a small file that names a checkpoint; 0 and NULL where there is no such file. */
static errint run_read_name(const struct folder *folder, const struct folder_listing *listing,
                            const char *name, char **out)
{
    size_t length;
    *out = NULL;
    if (!folder_find(listing, name))
        return 0;
    errint error = folder_read_text(folder, name, RUN_LATEST_MAX, out, &length);
    return error == -ENOENT || error == -EFBIG || error == -EISDIR ? 0 : error;
}

static errint run_look(struct run_reader *reader)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    cleanup_free char *text = NULL;
    reader->proven = -1;
    errint error = folder_read(reader->folder, "", &listing);
    if (error)
        return error;
    reader->config = folder_find(&listing, "config.json") || folder_find(&listing, "adapter_config.json");
    error = run_read_name(reader->folder, &listing, complete_marker_latest, &text);
    if (!error)
        error = run_read_name(reader->folder, &listing, "latest", &reader->named);
    if (reader->named)
        reader->named[strcspn(reader->named, "\r\n")] = '\0';
    size_t digits = text ? strspn(text, "0123456789") : 0;
    if (digits > 0 && digits <= 18)
        reader->proven = strtoll(text, NULL, 10);
    return error;
}

static errint run_judge(const struct run_reader *reader, const struct detected *detected,
                        struct run_checkpoint *out)
{
    const struct folder_below below = {.folder = reader->folder,
                                       .path = detected->file ? "" : detected->path,
                                       .only = detected->file ? detected->path : NULL};
    struct complete_asked asked = {
        .name = *detected->path ? detected->path : reader->asked->name,
        .own_level = detected->own_level,
        .all_reasons = reader->asked->all_reasons,
        .awaited = reader->asked->awaited,
        .proof = detected->step >= 0 && detected->step == reader->proven ? complete_marker_latest : NULL,
    };
    struct folder folder;
    folder_below(&below, &folder);
    if (reader->asked->memory)
        asked.memory = reader->asked->memory(reader->asked->context, detected->path);
    errint error = complete_judge(&folder, &asked, &out->complete);
    if (reader->asked->separately && (error == -EBUSY || error == -EIO || error == -EUCLEAN)) {
        out->error = error;
        out->complete.state = COMPLETE_UNKNOWN;
        error = 0;
    }
    out->step = detected->step >= 0 ? detected->step : out->complete.step;
    out->file = detected->file;
    out->named = asked.proof || (reader->named && strcmp(reader->named, detected->path) == 0);
    out->no_template = out->complete.sharded && !out->complete.config && !reader->config;
    return error;
}

/* Of checkpoints that were saved in the same way: not the model in the run's own directory, nor single files.
 */
static bool run_is_compared(const struct run_checkpoint *checkpoint)
{
    return !checkpoint->file && !checkpoint->error && detect_step_of_name(checkpoint->path) >= 0;
}

static errint run_compare_names(struct run *run)
{
    cleanup_free const struct complete **all = calloc(run->count + 1, sizeof *all);
    cleanup_free size_t *places = calloc(run->count + 1, sizeof *places);
    cleanup_free struct complete_names *learned = calloc(run->count + 1, sizeof *learned);
    size_t count = 0;
    errint error = all && places && learned ? 0 : -ENOMEM;
    for (size_t i = 0; i < run->count && !error; i++) {
        if (!run_is_compared(&run->at[i]))
            continue;
        places[count] = i;
        all[count++] = &run->at[i].complete;
    }
    /* All is learned before any is judged by it. */
    for (size_t i = 0; i < count && !error; i++)
        error = complete_names_learn(all, count, i, &learned[i]);
    for (size_t i = 0; i < count && !error; i++)
        error = complete_expect(&run->at[places[i]].complete, &learned[i]);
    for (size_t i = 0; i < count && learned; i++)
        free(learned[i].at);
    return error;
}

static bool run_tells_ranks(const struct run_checkpoint *checkpoint)
{
    return run_is_compared(checkpoint) && checkpoint->complete.state == COMPLETE_YES;
}

/* How many processes saved the last complete one before it. */
static int64_t run_ranks_before(const struct run *run, size_t index)
{
    for (size_t i = index; i-- > 0;) {
        if (run_tells_ranks(&run->at[i]))
            return run->at[i].complete.world_size;
    }
    return 0;
}

/* How many processes saved any complete one before it since then. */
static int64_t run_ranks_since(const struct run *run, size_t index, int64_t since)
{
    int64_t ranks = 0;
    for (size_t i = 0; i < index; i++) {
        const struct complete *complete = &run->at[i].complete;
        if (run_tells_ranks(&run->at[i]) && complete->time > since && complete->world_size > ranks)
            ranks = complete->world_size;
    }
    return ranks;
}

/* With DDP no file but a rank's own tells of the rank. Only the one that was written last may be under way: a
 * rank that goes on to the next does not come back; and a run may have begun again with fewer ranks. */
static errint run_expect_ranks(const struct run_asked *asked, struct run *run)
{
    size_t newest = 0;
    errint error = 0;
    for (size_t i = 0; i < run->count; i++) {
        if (run->at[i].complete.time > run->at[newest].complete.time)
            newest = i;
    }
    for (size_t i = 0; i < run->count && !error; i++) {
        int64_t ranks = asked->awaited && i == newest ? run_ranks_since(run, i, asked->since) : 0;
        if (run_is_compared(&run->at[i]))
            error = complete_expect_ranks(&run->at[i].complete, ranks ? ranks : run_ranks_before(run, i),
                                          ranks > 0);
    }
    return error;
}

/* -- order and marks --------------------------------------------------------------------------------------
 */

static int run_compare(const void *one, const void *other)
{
    const struct run_checkpoint *a = one, *b = other;
    if ((a->step < 0) != (b->step < 0))
        return a->step < 0 ? 1 : -1;
    if (a->step != b->step)
        return a->step < b->step ? -1 : 1;
    if (a->complete.time != b->complete.time)
        return a->complete.time < b->complete.time ? -1 : 1;
    return strcmp(a->path, b->path);
}

static void run_mark(struct run *run, const char *name)
{
    struct run_checkpoint *latest = NULL;
    const char *best = "";
    for (size_t i = 0; i < run->count; i++) {
        const struct trainer_progress *progress = &run->at[i].complete.progress;
        if (run->at[i].complete.state == COMPLETE_YES && run->at[i].step >= 0)
            latest = &run->at[i];
        if (progress->whole && progress->best_name[0])
            best = progress->best_name;
    }
    if (latest)
        latest->latest = true;
    for (size_t i = 0; i < run->count && *best; i++)
        run->at[i].best = strcmp(*run->at[i].path ? run->at[i].path : name, best) == 0;
}

const char *run_metric_name(const struct run *run)
{
    const char *name = NULL;
    for (size_t i = 0; i < run->count; i++) {
        if (run->at[i].complete.progress.best_metric_name[0])
            name = run->at[i].complete.progress.best_metric_name;
    }
    return name;
}

static void run_measure(struct run *run)
{
    const char *names[] = {run_metric_name(run), "eval_loss", "loss", "train_loss"};
    for (size_t i = 0; i < run->count; i++) {
        struct run_checkpoint *checkpoint = &run->at[i];
        for (size_t name = 0; name < sizeof names / sizeof *names && !checkpoint->measured; name++) {
            if (!names[name] || !trainer_progress_find(&checkpoint->complete.progress, names[name],
                                                       &checkpoint->metric.value))
                continue;
            strcpy(checkpoint->metric.name, names[name]);
            checkpoint->measured = true;
        }
    }
}

/* -- the run ----------------------------------------------------------------------------------------------
 */

static errint run_read_checkpoints(const struct run_reader *reader, const struct detect *detect,
                                   struct run *out)
{
    errint error = 0;
    out->at = calloc(detect->count + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    for (size_t i = 0; i < detect->count && !error; i++) {
        struct run_checkpoint *checkpoint = &out->at[out->count++];
        checkpoint->path = arena_copy_text(&out->arena, detect->at[i].path, strlen(detect->at[i].path));
        error = checkpoint->path ? run_judge(reader, &detect->at[i], checkpoint) : -ENOMEM;
        /* It was removed meanwhile. */
        if (error == -ENOENT || error == -ENOTDIR) {
            complete_release(&checkpoint->complete);
            *checkpoint = (struct run_checkpoint){0};
            out->count--;
            error = 0;
        }
    }
    return error;
}

errint run_read(const struct folder *folder, const struct run_asked *asked, struct run *out)
{
    cleanup_detect struct detect detect = {0};
    struct run_reader reader = {.folder = folder, .asked = asked};
    *out = (struct run){.arena = {.limit = RUN_MEMORY}};
    errint error = detect_checkpoints(folder, asked->name, &detect);
    if (!error && detect.count > 0)
        error = run_look(&reader);
    if (!error && detect.count > 0)
        error = run_read_checkpoints(&reader, &detect, out);
    free(reader.named);
    if (error || detect.count == 0)
        return error;
    qsort(out->at, out->count, sizeof *out->at, run_compare);
    error = run_expect_ranks(asked, out);
    if (!error)
        error = run_compare_names(out);
    run_mark(out, asked->name);
    run_measure(out);
    return error;
}

void run_release(struct run *run)
{
    for (size_t i = 0; i < run->count; i++)
        complete_release(&run->at[i].complete);
    free(run->at);
    arena_release(&run->arena);
    *run = (struct run){0};
}
