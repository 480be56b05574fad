/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DeepSpeed: a directory with `latest` beside global_stepN, or global_stepN itself. ZeRO-0 to 2 save the
 * whole model in one file, ZeRO-3 only in its optimizers' partitions; pipelines save a file a layer.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/adapter.h"
#include "ckpt/deepspeed.h"

enum { DEEPSPEED_LATEST_MAX = 4096 };

/* -- the tag ----------------------------------------------------------------------------------------------
 */

static bool deepspeed_listing_has_states(const struct folder_listing *listing)
{
    struct deepspeed_name name;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && deepspeed_parse_name(listing->at[i].name, &name))
            return true;
    }
    return false;
}

/* 1: the directory holds states files; 0: it holds none, or is not there. */
static int deepspeed_has_states(const struct folder *folder, const char *path)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    errint error = folder_read(folder, path, &listing);
    if (error)
        return error == -ENOMEM || error == -EIO ? error : 0;
    return deepspeed_listing_has_states(&listing);
}

/* global_stepN, as DeepSpeed calls a tag that nobody named. */
static bool deepspeed_is_step(const char *name, int64_t *step)
{
    static const char prefix[] = "global_step";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return false;
    const char *digits = name + sizeof prefix - 1;
    size_t length = strspn(digits, "0123456789");
    if (length == 0 || length > 18 || digits[length] != '\0')
        return false;
    *step = strtoll(digits, NULL, 10);
    return true;
}

/* The newest global_stepN; NULL: there is none. */
static const char *deepspeed_newest(const struct folder_listing *listing)
{
    const char *newest = NULL;
    int64_t step, highest = -1;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->at[i].directory && deepspeed_is_step(listing->at[i].name, &step) && step > highest) {
            newest = listing->at[i].name;
            highest = step;
        }
    }
    return newest;
}

/* The text of `latest` without the space around it; NULL: there is no such file, or no tag in it. */
static errint deepspeed_read_latest(const struct folder *folder, const struct folder_listing *listing,
                                    char **tag)
{
    cleanup_free char *text = NULL;
    size_t length;
    *tag = NULL;
    const struct folder_entry *entry = folder_find(listing, "latest");
    if (!entry || entry->directory || entry->size > DEEPSPEED_LATEST_MAX)
        return 0;
    errint error = folder_read_text(folder, "latest", DEEPSPEED_LATEST_MAX, &text, &length);
    if (error)
        return error == -ENOENT || error == -EFBIG ? 0 : error;
    char *start = text + strspn(text, " \t\r\n");
    start[strcspn(start, " \t\r\n")] = '\0';
    if (*start == '\0' || strchr(start, '/') || !folder_path_is_safe(start))
        return 0;
    *tag = strdup(start);
    return *tag ? 0 : -ENOMEM;
}

static int deepspeed_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    cleanup_free char *tag = NULL;
    int64_t step;
    if (deepspeed_listing_has_states(listing) || deepspeed_newest(listing))
        return 1;
    errint error = deepspeed_read_latest(folder, listing, &tag);
    if (error || !tag)
        return error;
    return deepspeed_is_step(tag, &step) ? 1 : deepspeed_has_states(folder, tag);
}

/* Other tags beside the one that is read. */
static errint deepspeed_note_others(const struct folder_listing *listing, const char *tag,
                                    struct model *model)
{
    const char *other = NULL;
    int64_t step;
    size_t count = 0;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory || !deepspeed_is_step(listing->at[i].name, &step) ||
            strcmp(listing->at[i].name, tag) == 0)
            continue;
        other = listing->at[i].name;
        count++;
    }
    if (count == 0)
        return 0;
    return model_add_note(model, false, "this is %s; %zu other tag%s %s here, like %s", tag, count,
                          count == 1 ? "" : "s", count == 1 ? "is" : "are", other);
}

/* Which directory is read: "" for the folder itself. */
static int deepspeed_choose(const struct folder *folder, const struct folder_listing *listing,
                            struct model *model, char **out)
{
    const char *newest = deepspeed_newest(listing);
    if (deepspeed_listing_has_states(listing)) {
        *out = strdup("");
        return *out ? 0 : -ENOMEM;
    }
    errint error = deepspeed_read_latest(folder, listing, out);
    if (error)
        return error;
    if (*out) {
        const struct folder_entry *entry = folder_find(listing, *out);
        if (entry && entry->directory)
            return deepspeed_note_others(listing, *out, model);
        error = model_add_note(model, true, "latest names %s, which is not here%s%s", *out,
                               newest ? "; there is " : "", newest ? newest : "");
        return error ? error : FORMAT_FOREIGN;
    }
    if (!newest) {
        error = model_add_note(model, true, "latest names no tag, and there is no global_stepN");
        return error ? error : FORMAT_FOREIGN;
    }
    *out = strdup(newest);
    if (!*out)
        return -ENOMEM;
    error = model_add_note(model, false, "there is no latest: the save may not have ended");
    return error ? error : deepspeed_note_others(listing, newest, model);
}

/* -- what the tag holds -----------------------------------------------------------------------------------
 */

static int deepspeed_refuse(struct deepspeed_tag *tag, const struct deepspeed_name *name, const char *why)
{
    errint error = model_add_note(tag->model, true, "%s: %s", name->file, why);
    return error ? error : FORMAT_FOREIGN;
}

void deepspeed_name_stage(struct model *model, int64_t stage)
{
    static const char *const names[] = {"deepspeed-zero0", "deepspeed-zero1", "deepspeed-zero2",
                                        "deepspeed-zero3"};
    static const char *const summaries[] = {"DeepSpeed ZeRO-0", "DeepSpeed ZeRO-1", "DeepSpeed ZeRO-2",
                                            "DeepSpeed ZeRO-3"};
    if (stage < 0 || stage > 3)
        return;
    model->framework = names[stage];
    model->summary = summaries[stage];
}

/* What ds_to_universal.py makes: a directory of each parameter under zero/. */
static bool deepspeed_is_universal(const struct deepspeed_tag *tag)
{
    const struct folder_entry *entry = folder_find(&tag->listing, "zero");
    return entry && entry->directory;
}

/* ZeRO-1 and 2 need all ranks' optimizers to go on, which is told though the model does without. */
static int deepspeed_check_optimizers(struct deepspeed_tag *tag, const struct saved_file *states)
{
    size_t count;
    int64_t ranks;
    const struct deepspeed_name *names = deepspeed_tag_find_rank(tag, DEEPSPEED_OPTIMIZER, 0, &count);
    if (deepspeed_is_universal(tag) ||
        !pickle_integer(pickle_get(states->torch.root, "dp_world_size"), &ranks))
        return 0;
    if (!names)
        return model_add_note(tag->model, false,
                              "no *_optim_states.pt is here: training cannot go on from this");
    int error = deepspeed_tag_check_ranks(tag, names, count, ranks, false);
    return error == FORMAT_FOREIGN ? 0 : error;
}

static int deepspeed_load_whole(struct deepspeed_tag *tag, const struct deepspeed_name *name,
                                const struct framework_wish *wish)
{
    cleanup_saved_file struct saved_file states = {0};
    int64_t stage = 0;
    int error = deepspeed_file_open(tag, name->file, &states);
    if (error)
        return error;
    deepspeed_note_progress(tag, &states);
    const struct pickle_node *shapes = pickle_get(states.torch.root, "param_shapes");
    bool partitioned = shapes && shapes->kind != PICKLE_NONE;
    const struct pickle_node *zero =
        pickle_get(pickle_get(states.torch.root, "ds_config"), "zero_optimization");
    if (!partitioned || pickle_integer(pickle_get(zero, "stage"), &stage))
        deepspeed_name_stage(tag->model, stage);
    if (wish->master && partitioned)
        return deepspeed_load_partitions(tag, &states);
    if (wish->master)
        error = deepspeed_note_no_master(tag);
    if (!error)
        error = deepspeed_load_module(tag, &states);
    return error || !partitioned ? error : deepspeed_check_optimizers(tag, &states);
}

/* Experts in files of their own are understood where they alone are: each rank has all of the rest. */
static int deepspeed_load_mixture(struct deepspeed_tag *tag, const struct deepspeed_name *expert, bool master)
{
    static const enum deepspeed_kind others[] = {DEEPSPEED_LAYER, DEEPSPEED_PARTITIONED};
    size_t count, wholes;
    const struct deepspeed_name *whole = deepspeed_tag_find(tag, DEEPSPEED_MODEL, &wholes);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (deepspeed_tag_find(tag, others[i], &count))
            return deepspeed_refuse(tag, expert,
                                    "experts of ZeRO-3, or of a pipeline, are not assembled; "
                                    "ds_to_universal.py converts them");
    }
    const struct deepspeed_name *last = deepspeed_tag_find(tag, DEEPSPEED_EXPERT, &count) + count - 1;
    if (last->mp > 0 || (whole && whole[wholes - 1].mp > 0))
        return deepspeed_refuse(tag, expert,
                                "experts with tensor parallelism are not assembled; ds_to_universal.py "
                                "converts them");
    if (!whole)
        return deepspeed_refuse(tag, expert, "an expert, but no mp_rank_00_model_states.pt is here");
    return deepspeed_load_experts(tag, whole, master);
}

static int deepspeed_load_tag(struct deepspeed_tag *tag, const struct framework_wish *wish)
{
    size_t experts, layers, wholes, parts;
    const struct deepspeed_name *expert = deepspeed_tag_find(tag, DEEPSPEED_EXPERT, &experts);
    const struct deepspeed_name *layer = deepspeed_tag_find(tag, DEEPSPEED_LAYER, &layers);
    const struct deepspeed_name *whole = deepspeed_tag_find(tag, DEEPSPEED_MODEL, &wholes);
    const struct deepspeed_name *part = deepspeed_tag_find(tag, DEEPSPEED_PARTITIONED, &parts);
    if (expert)
        return deepspeed_load_mixture(tag, expert, wish->master);
    if (layer)
        return deepspeed_load_pipeline(tag, wish->master);
    if (whole && part)
        return deepspeed_refuse(tag, part,
                                "of ZeRO-3, but mp_rank_*_model_states.pt of ZeRO-0 to 2 is here too: "
                                "two saves in one directory");
    if (part && part[parts - 1].mp > 0)
        return deepspeed_refuse(tag, &part[parts - 1],
                                "ZeRO-3 with tensor parallelism is not assembled; "
                                "ds_to_universal.py converts it");
    if (part) {
        deepspeed_name_stage(tag->model, 3);
        return deepspeed_load_zero3(tag);
    }
    if (whole && whole[wholes - 1].mp > 0)
        return deepspeed_load_tensor_parallel(tag, wish->master);
    if (whole)
        return deepspeed_load_whole(tag, whole, wish);
    errint error = model_add_note(tag->model, true, "%s%sno *_model_states.pt is here", tag->path,
                                  *tag->path ? ": " : "");
    return error ? error : FORMAT_FOREIGN;
}

static errint deepspeed_load(const struct folder *folder, const struct folder_listing *listing,
                             const struct framework_wish *wish, struct model *model)
{
    cleanup_free char *path = NULL;
    cleanup_deepspeed_tag struct deepspeed_tag tag = {0};
    int error = deepspeed_choose(folder, listing, model, &path);
    if (!error)
        error = deepspeed_tag_read(folder, path, model, &tag);
    if (!error && folder_find(&tag.listing, "offloaded_tensors"))
        error =
            model_add_note(model, false, "offloaded_tensors, which holds an optimizer's state, is not read");
    if (!error && deepspeed_is_universal(&tag))
        error = model_add_note(model, false,
                               "a universal checkpoint: the FP32 parameters under zero/ are not read");
    if (!error)
        error = deepspeed_load_tag(&tag, wish);
    if (!error)
        error = adapter_mark(model);
    if (path && model->step < 0)
        deepspeed_is_step(path, &model->step);
    return error == FORMAT_FOREIGN ? 0 : error;
}

const struct framework framework_deepspeed = {
    .name = "deepspeed",
    .summary = "DeepSpeed",
    .recognise = deepspeed_recognise,
    .load = deepspeed_load,
};
