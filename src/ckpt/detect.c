/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoints a directory holds. */
#include "ckpt/detect.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "ckpt/complete_markers.h"
#include "ckpt/deepspeed.h"
#include "ckpt/weights.h"

enum { DETECT_MEMORY = 16 << 20 };

/* -- names of directories ---------------------------------------------------------------------------------
 */

static const struct detect_name {
    const char *start; /* digits follow */
    bool certain;      /* nothing but a checkpoint is called so; else what is in it decides */
    bool part;         /* it may be a part of a checkpoint too */
} detect_names[] = {
    {"checkpoint-", true, false},     /* transformers */
    {"tmp-checkpoint-", true, false}, /* its staging directory, once */
    {"checkpoint_", true, false},     /* accelerate, with automatic names */
    {"global_step_", false, false},   /* verl */
    {"global_step", true, true},      /* DeepSpeed's tags, which transformers has inside its own */
    {"iter_", false, false},          /* Megatron-LM */
    {"step-", false, false},          /* torchtitan */
    {"step_", false, false},          /* accelerate's examples */
    {"epoch_", false, false},
};

/* The row of a name; NULL: none. */
static const struct detect_name *detect_find_name(const char *name, int64_t *step)
{
    for (size_t i = 0; i < sizeof detect_names / sizeof *detect_names; i++) {
        size_t start = strlen(detect_names[i].start);
        if (strncmp(name, detect_names[i].start, start) != 0)
            continue;
        size_t digits = strspn(name + start, "0123456789");
        if (digits == 0 || digits > 18)
            continue;
        /* "step-100.incomplete" */
        if (name[start + digits] && complete_marker_of(name, true) != MARKER_UNFINISHED)
            continue;
        *step = strtoll(name + start, NULL, 10);
        return &detect_names[i];
    }
    return NULL;
}

int64_t detect_step_of_name(const char *name)
{
    int64_t step = -1;
    return detect_find_name(name, &step) ? step : -1;
}

/* -- names of files ---------------------------------------------------------------------------------------
 */

/* What tells that a directory is a checkpoint, or a model. */
static const char *const detect_files[] = {
    "*.distcp",
    ".metadata",
    "*.ckpt",
    "pytorch_model_fsdp*",
    "model_world_size_*_rank_*.pt",
    "rank*-of-*-pytorch_model.bin",
    "shard-*-model-*-of-*.safetensors",
    "model_optim_rng.pt",
};

/* What a Trainer writes beside weights. */
static const char *const detect_trainer_files[] = {
    "trainer_state.json",
    "training_args.bin",
    "rng_state*.pth",
    "scheduler.pt",
    "optimizer.pt",
    "random_states_*.pkl",
    "checkpoint-is-incomplete.txt",
};

static bool detect_match(const char *name, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

static bool detect_is_weights(const char *name)
{
    char text[WEIGHTS_NAME_MAX];
    struct deepspeed_name states;
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        if (strcmp(name, weights_whole_name(&weights_kinds[i], text)) == 0 ||
            strcmp(name, weights_index_name(&weights_kinds[i], text)) == 0)
            return true;
    }
    return weights_is_shard(name, NULL, NULL, NULL) || deepspeed_parse_name(name, &states) ||
           detect_match(name, detect_files, sizeof detect_files / sizeof *detect_files);
}

/* What one directory's own entries show. */
struct detect_look {
    bool weights;   /* files of a model */
    bool trainer;   /* what a Trainer writes beside them */
    bool config;    /* config.json, or an adapter's */
    bool lightning; /* *.ckpt, and nothing else that is weights */
    bool parts;     /* directories that are parts of one checkpoint */
};

static void detect_look(const struct folder_listing *listing, struct detect_look *look)
{
    bool others = false;
    *look = (struct detect_look){0};
    for (size_t i = 0; i < listing->count; i++) {
        const char *name = listing->at[i].name;
        if (listing->at[i].directory) {
            look->parts |= fnmatch("pytorch_model_fsdp_*", name, 0) == 0 ||
                           fnmatch("mp_rank_*", name, 0) == 0 || strcmp(name, "actor") == 0 ||
                           strcmp(name, "critic") == 0;
            continue;
        }
        bool ckpt = fnmatch("*.ckpt", name, FNM_PERIOD) == 0;
        look->lightning |= ckpt;
        look->weights |= detect_is_weights(name);
        others |= !ckpt && detect_is_weights(name);
        look->trainer |= detect_match(name, detect_trainer_files,
                                      sizeof detect_trainer_files / sizeof *detect_trainer_files);
        look->config |= strcmp(name, "config.json") == 0 || strcmp(name, "adapter_config.json") == 0;
    }
    look->lightning &= !others;
}

/* -- the list ---------------------------------------------------------------------------------------------
 */

static errint detect_add(struct detect *detect, const char *path, int64_t step, bool file, bool own_level)
{
    if (!grow_reserve(detect->at, detect->capacity, detect->count + 1))
        return -ENOMEM;
    const char *copy = arena_copy_text(&detect->arena, path, strlen(path));
    if (!copy)
        return -ENOMEM;
    detect->at[detect->count++] = (struct detected){copy, step, file, own_level};
    return 0;
}

void detect_release(struct detect *detect)
{
    free(detect->at);
    arena_release(&detect->arena);
    *detect = (struct detect){0};
}

/* -- a directory below ------------------------------------------------------------------------------------
 */

/* Whether it holds a checkpoint, by its own entries. */
static errint detect_look_below(const struct folder *folder, const char *path, bool *holds)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    struct detect_look look;
    *holds = false;
    errint error = folder_read(folder, path, &listing);
    if (error)
        return error == -ENOMEM || error == -EIO ? error : 0;
    detect_look(&listing, &look);
    bool run = false;
    for (size_t i = 0; i < listing.count && !run; i++) {
        int64_t step;
        const struct detect_name *row = detect_find_name(listing.at[i].name, &step);
        run = listing.at[i].directory && row && !row->part;
    }
    /* A run below is asked for by itself; of Lightning's files each is one. */
    *holds = !run && ((look.weights && !look.lightning) || look.parts);
    return 0;
}

static errint detect_child(const struct folder *folder, const struct folder_entry *entry, bool tags,
                           bool guess, struct detect *out)
{
    int64_t step = -1;
    const struct detect_name *row = detect_find_name(entry->name, &step);
    bool holds = row && row->certain;
    errint error = 0;
    if (row && row->part && !tags)
        return 0;
    if (!holds && (row || guess))
        error = detect_look_below(folder, entry->name, &holds);
    return error || !holds ? error : detect_add(out, entry->name, step, false, false);
}

static errint detect_children(const struct folder *folder, const struct folder_listing *listing, bool tags,
                              bool guess, struct detect *out)
{
    errint error = 0;
    for (size_t i = 0; i < listing->count && !error; i++) {
        /* The mount's own directory is not listed; hidden ones of others are no checkpoints. */
        if (listing->at[i].directory && listing->at[i].name[0] != '.')
            error = detect_child(folder, &listing->at[i], tags, guess, out);
    }
    return error;
}

static int64_t detect_step_of_file(const char *name)
{
    const char *at = strstr(name, "step=");
    size_t digits = at ? strspn(at + 5, "0123456789") : 0;
    return digits > 0 && digits <= 18 ? strtoll(at + 5, NULL, 10) : -1;
}

static errint detect_lightning(const struct folder_listing *listing, struct detect *out)
{
    errint error = 0;
    for (size_t i = 0; i < listing->count && !error; i++) {
        const char *name = listing->at[i].name;
        if (!listing->at[i].directory && fnmatch("*.ckpt", name, FNM_PERIOD) == 0)
            error = detect_add(out, name, detect_step_of_file(name), true, false);
    }
    return error;
}

/* -- a directory ------------------------------------------------------------------------------------------
 */

/* A checkpoint by its name or by what a Trainer put into it: its directories are its parts. */
static bool detect_is_one(const char *name, const struct folder_listing *listing,
                          const struct detect_look *look)
{
    int64_t step;
    const struct detect_name *row = detect_find_name(name, &step);
    for (size_t i = 0; i < listing->count; i++) {
        const struct detect_name *below = detect_find_name(listing->at[i].name, &step);
        if (listing->at[i].directory && below && !below->part)
            return false;
    }
    return (row && row->certain) || look->trainer || look->parts || (look->weights && !look->lightning);
}

errint detect_checkpoints(const struct folder *folder, const char *name, struct detect *out)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    struct detect_look look;
    *out = (struct detect){.arena = {.limit = DETECT_MEMORY}};
    errint error = folder_read(folder, "", &listing);
    if (error)
        return error;
    detect_look(&listing, &look);
    if (detect_is_one(name, &listing, &look))
        return detect_add(out, "", detect_step_of_name(name), false, false);
    error = detect_children(folder, &listing, !look.trainer && !look.config, true, out);
    if (!error && look.lightning)
        error = detect_lightning(&listing, out);
    if (!error && look.weights && !look.lightning)
        error = detect_add(out, "", -1, false, out->count > 0);
    return error;
}
