/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DeepSpeed's tags: the files of all ranks, of which one rank's tells how many there are. `latest` is written
 * before the ranks have met, and proves nothing; without it no loader finds the tag.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/complete_internal.h"
#include "ckpt/deepspeed.h"

enum { DEEPSPEED_LATEST_MAX = 4096, DEEPSPEED_RANKS_MAX = 1 << 20 };

/* One tag while it is judged. */
struct deepspeed_judge {
    struct complete_work *work;
    struct model notes; /* what the reading of files says */
    struct deepspeed_tag tag;
    int64_t dp, mp; /* ranks */
    int64_t stage;  /* of ZeRO; 0 where it is not said */
    bool inside;    /* the optimizer's state is in the model's files */
};

static void deepspeed_judge_release(struct deepspeed_judge *judge)
{
    deepspeed_tag_release(&judge->tag);
    model_release(&judge->notes);
}

/* -- what one rank says -----------------------------------------------------------------------------------
 */

static int64_t deepspeed_count(const struct pickle_node *root, const char *key)
{
    int64_t count;
    bool fine = pickle_integer(pickle_get(root, key), &count) && count > 0 && count <= DEEPSPEED_RANKS_MAX;
    return fine ? count : 1;
}

static int deepspeed_read_states(struct deepspeed_judge *judge, const struct deepspeed_name *name)
{
    cleanup_saved_file struct saved_file states = {0};
    int result = deepspeed_file_open(&judge->tag, name->file, &states);
    if (result)
        return result;
    const struct pickle_node *root = states.torch.root;
    const struct pickle_node *optimizer = pickle_get(root, "optimizer");
    const struct pickle_node *zero = pickle_get(pickle_get(root, "ds_config"), "zero_optimization");
    int64_t step;
    judge->dp = deepspeed_count(root, "dp_world_size");
    judge->mp = deepspeed_count(root, "mp_world_size");
    judge->inside = optimizer && optimizer->kind != PICKLE_NONE;
    if (!pickle_integer(pickle_get(zero, "stage"), &judge->stage))
        judge->stage = name->kind == DEEPSPEED_PARTITIONED ? 3 : 0;
    if (pickle_integer(pickle_get(root, "global_steps"), &step) && step >= 0)
        judge->work->out->step = step;
    return 0;
}

/* -- all ranks --------------------------------------------------------------------------------------------
 */

/* The files of every data-parallel rank, for each model-parallel one. */
static errint deepspeed_judge_ranks(struct deepspeed_judge *judge, enum deepspeed_kind kind, const char *what)
{
    errint error = 0;
    for (int64_t mp = 0; mp < judge->mp && !error; mp++) {
        size_t count;
        const struct deepspeed_name *names = deepspeed_tag_find_rank(&judge->tag, kind, mp, &count);
        if (!names)
            return complete_miss(judge->work, "%s: the %s of rank %" PRId64 " of %" PRId64 " are missing",
                                 *judge->tag.path ? judge->tag.path : "it", what, mp, judge->mp);
        int result = kind == DEEPSPEED_MODEL
                         ? 0
                         : deepspeed_tag_check_ranks(&judge->tag, names, count, judge->dp, true);
        if (result < 0)
            error = result;
    }
    return error;
}

static errint deepspeed_judge_optimizer(struct deepspeed_judge *judge)
{
    size_t count;
    bool any = deepspeed_tag_find(&judge->tag, DEEPSPEED_OPTIMIZER, &count);
    judge->work->optimizer |= any || judge->inside;
    if (any)
        return deepspeed_judge_ranks(judge, DEEPSPEED_OPTIMIZER, "optimizer's partitions");
    if (judge->stage == 0 || judge->inside)
        return 0;
    return complete_miss(judge->work, "%s: *_optim_states.pt of %" PRId64 " ranks are missing",
                         *judge->tag.path ? judge->tag.path : "it", judge->dp);
}

/* What reading and counting said about the tag. */
static errint deepspeed_take_notes(struct deepspeed_judge *judge)
{
    errint error = 0;
    judge->work->missing |= judge->notes.missing;
    for (size_t i = 0; i < judge->notes.note_count && !error; i++) {
        if (judge->notes.notes[i].missing)
            error = complete_miss(judge->work, "%s%s%s", judge->tag.path, *judge->tag.path ? ": " : "",
                                  judge->notes.notes[i].text);
    }
    return error;
}

/* A pipeline's layers, and experts, are known by what the model is made of; some experts are not. */
static errint deepspeed_judge_other(struct deepspeed_judge *judge, bool pipeline)
{
    cleanup_model struct model model;
    errint error = framework_load(judge->work->folder, NULL, &model);
    if (!pipeline && !error && !model_is_whole(&model))
        return complete_doubt(judge->work,
                              "experts are in files of their own: how many there are is not known");
    judge->work->missing |= model.missing;
    for (size_t i = 0; i < model.note_count && !error; i++) {
        if (model.notes[i].missing)
            error = complete_miss(judge->work, "%s", model.notes[i].text);
    }
    return error == -ENOENT ? 0 : error;
}

static errint deepspeed_judge_kinds(struct deepspeed_judge *judge)
{
    size_t wholes, parts, others;
    const struct deepspeed_name *whole = deepspeed_tag_find(&judge->tag, DEEPSPEED_MODEL, &wholes);
    const struct deepspeed_name *part = deepspeed_tag_find(&judge->tag, DEEPSPEED_PARTITIONED, &parts);
    if (!whole && !part)
        return complete_miss(judge->work, "%s: no *_model_states.pt is there",
                             *judge->tag.path ? judge->tag.path : "it");
    judge->work->model = judge->work->out->sharded = true;
    int result = deepspeed_read_states(judge, whole ? whole : part);
    if (result < 0)
        return result;
    errint error = 0;
    if (result == 0) {
        complete_saw_ranks(judge->work, judge->dp * judge->mp);
        error = whole ? deepspeed_judge_ranks(judge, DEEPSPEED_MODEL, "model states")
                      : deepspeed_judge_ranks(judge, DEEPSPEED_PARTITIONED, "model states");
        if (!error)
            error = deepspeed_judge_optimizer(judge);
    }
    if (!error && deepspeed_tag_find(&judge->tag, DEEPSPEED_EXPERT, &others))
        error = deepspeed_judge_other(judge, false);
    if (!error && deepspeed_tag_find(&judge->tag, DEEPSPEED_LAYER, &others))
        error = deepspeed_judge_other(judge, true);
    return error;
}

static errint deepspeed_judge_tag(struct complete_work *work, const char *path)
{
    static const char *const names[] = {"deepspeed-zero0", "deepspeed-zero1", "deepspeed-zero2",
                                        "deepspeed-zero3"};
    __attribute__((cleanup(deepspeed_judge_release))) struct deepspeed_judge judge = {.work = work};
    model_begin(&judge.notes);
    work->deepspeed = true;
    work->out->framework = framework_deepspeed.name;
    int result = deepspeed_tag_read(work->folder, path, &judge.notes, &judge.tag);
    errint error = result < 0 ? result : deepspeed_judge_kinds(&judge);
    if (!error)
        error = deepspeed_take_notes(&judge);
    if (judge.dp > 0 && judge.stage >= 0 && judge.stage <= 3)
        work->out->framework = names[judge.stage];
    return error;
}

/* -- the checkpoint ---------------------------------------------------------------------------------------
 */

/* `latest` beside the directories of tags. */
static errint deepspeed_judge_latest(struct complete_work *work, const struct tree_entry *tag)
{
    cleanup_free char *text = NULL;
    size_t length, directory = tree_directory_length(tag);
    const char *base = directory > 0 ? tag->path : "";
    /* The tag itself is the checkpoint: its `latest` is beside it, and names one of many. */
    if (directory == 0 && tag->name == tag->path && !tag->directory)
        return 0;
    const struct tree_entry *latest = tree_find_file(&work->tree, base, directory, "latest");
    if (!latest)
        return complete_miss(work, "%.*s%slatest is missing", (int)directory, base, directory > 0 ? "/" : "");
    errint error = folder_read_text(work->folder, latest->path, DEEPSPEED_LATEST_MAX, &text, &length);
    if (error)
        return error == -EFBIG || error == -ENOENT || error == -EISDIR
                   ? complete_miss(work, "%s cannot be read", latest->path)
                   : error;
    char *name = text + strspn(text, " \t\r\n");
    name[strcspn(name, " \t\r\n")] = '\0';
    for (size_t i = 0; i < work->tree.count && *name; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        if (entry->directory && strcmp(entry->name, name) == 0 && tree_directory_length(entry) == directory)
            return 0;
    }
    return complete_miss(work, "%s names %s, which is not there", latest->path, *name ? name : "nothing");
}

/* Whether the directory (NULL: the checkpoint's own) holds files of a tag. */
static bool deepspeed_is_tag(const struct complete_work *work, const struct tree_entry *directory)
{
    const char *path = directory ? directory->path : "";
    size_t length = strlen(path);
    for (size_t i = directory ? (size_t)(directory - work->tree.at) + 1 : 0; i < work->tree.count; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        struct deepspeed_name name;
        if (length > 0 && strncmp(entry->path, path, length) != 0)
            return false;
        if (!entry->directory && tree_directory_length(entry) == length &&
            memcmp(entry->path, path, length) == 0 && deepspeed_parse_name(entry->name, &name))
            return true;
    }
    return false;
}

static bool deepspeed_is_step(const char *name)
{
    static const char prefix[] = "global_step";
    return strncmp(name, prefix, sizeof prefix - 1) == 0 &&
           strspn(name + sizeof prefix - 1, "0123456789") == strlen(name + sizeof prefix - 1);
}

errint complete_judge_deepspeed(struct complete_work *work)
{
    errint error = 0;
    if (!complete_may_read(work))
        return 0;
    if (deepspeed_is_tag(work, NULL))
        return deepspeed_judge_tag(work, "");
    for (size_t i = 0; i < work->tree.count && !error; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        if (!entry->directory || work->asked->own_level ||
            (!deepspeed_is_step(entry->name) && !deepspeed_is_tag(work, entry)))
            continue;
        /* verl calls its own directories so. */
        if (tree_directory_length(entry) > 0 && !deepspeed_is_tag(work, entry))
            continue;
        error = deepspeed_judge_tag(work, entry->path);
        if (!error)
            error = deepspeed_judge_latest(work, entry);
    }
    return error;
}
