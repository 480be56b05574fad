/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verl: model_world_size_W_rank_R.pt, each rank's state dictionary of DTensors or ShardedTensors, in the
 * directory of the actor or critic (verl/utils/checkpoint/fsdp_checkpoint_manager.py, 0.5). Config and
 * tokenizer are in huggingface/ beside them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/adapter.h"
#include "ckpt/framework.h"
#include "ckpt/rank_files.h"
#include "ckpt/tied.h"

enum { VERL_PATH_MAX = 512 };

/* Where the files are: the folder itself, or the directory of what was trained. */
static const char *const verl_directories[] = {"", "actor", "critic"};

static bool verl_parse_name(const char *name, int64_t *world_size, int64_t *rank)
{
    unsigned size, number;
    int length = 0;
    if (sscanf(name, "model_world_size_%9u_rank_%9u.pt%n", &size, &number, &length) != 2 || length == 0 ||
        name[length] != 0)
        return false;
    *world_size = size;
    *rank = number;
    return size > 0 && number < size;
}

/* The largest number of ranks that a file of the listing names; 0: there is no such file. */
static int64_t verl_world_size(const struct folder_listing *listing)
{
    int64_t largest = 0, size, rank;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && verl_parse_name(listing->at[i].name, &size, &rank) && size > largest)
            largest = size;
    }
    return largest;
}

/* The listing of the directory that has the files; *directory is NULL when none has. */
static errint verl_find(const struct folder *folder, const struct folder_listing *top,
                        struct folder_listing *listing, const char **directory)
{
    *directory = NULL;
    for (size_t i = 0; i < sizeof verl_directories / sizeof *verl_directories; i++) {
        const char *name = verl_directories[i];
        const struct folder_entry *entry = *name ? folder_find(top, name) : NULL;
        if (*name && (!entry || !entry->directory))
            continue;
        errint error = folder_read(folder, name, listing);
        if (error)
            return error;
        if (verl_world_size(listing) > 0) {
            *directory = name;
            return 0;
        }
        folder_listing_release(listing);
        *listing = (struct folder_listing){0};
    }
    return 0;
}

static int verl_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    cleanup_folder_listing struct folder_listing inside = {0};
    const char *directory;
    errint error = verl_find(folder, listing, &inside, &directory);
    return error ? error : directory != NULL;
}

static errint verl_load(const struct folder *folder, const struct folder_listing *listing,
                        const struct framework_wish *wish, struct model *model)
{
    (void)wish;
    cleanup_folder_listing struct folder_listing inside = {0};
    const char *directory;
    errint error = verl_find(folder, listing, &inside, &directory);
    if (error || !directory)
        return error ? error : -ENOENT;
    cleanup_free struct rank_file *files = calloc(inside.count + 1, sizeof *files);
    cleanup_free char *paths = calloc(inside.count + 1, VERL_PATH_MAX);
    if (!files || !paths)
        return -ENOMEM;
    size_t count = 0;
    model->world_size = verl_world_size(&inside);
    for (size_t i = 0; i < inside.count && !error; i++) {
        int64_t size, rank;
        char *path = paths + i * VERL_PATH_MAX;
        if (!verl_parse_name(inside.at[i].name, &size, &rank))
            continue;
        snprintf(path, VERL_PATH_MAX, "%s%s%s", directory, *directory ? "/" : "", inside.at[i].name);
        if (size == model->world_size)
            files[count++] = (struct rank_file){path, rank};
        else
            error = model_add_note(model, false, "%s belongs to a save by %" PRId64 " ranks", path, size);
    }
    if (!error && (int64_t)count < model->world_size)
        error = model_add_note(model, true, "expected the files of %" PRId64 " ranks, found %zu",
                               model->world_size, count);
    if (!error)
        error = rank_files_load(folder, files, count, NULL, model);
    if (!error)
        error = adapter_mark(model);
    return error || model->missing ? error : tied_mark(folder, model);
}

const struct framework framework_verl = {
    .name = "verl",
    .summary = "verl",
    .recognise = verl_recognise,
    .load = verl_load,
};
