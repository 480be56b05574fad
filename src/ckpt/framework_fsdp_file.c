/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that accelerate writes for FSDP without DCP (accelerate/utils/fsdp_utils.py, 1.15):
 * pytorch_model_fsdp.bin is the whole model (FULL_STATE_DICT), pytorch_model_fsdp_rankR.bin a rank's flat
 * parameters (LOCAL_STATE_DICT), pytorch_model_fsdp_0_rankR.bin its part of each tensor (SHARDED_STATE_DICT
 * with use_dcp=False). A second model has its number behind "fsdp".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/adapter.h"
#include "ckpt/framework.h"
#include "ckpt/rank_files.h"
#include "ckpt/tied.h"

struct fsdp_name {
    int64_t model; /* -1: no number */
    int64_t rank;  /* -1: of all ranks */
};

static bool fsdp_take_number(const char **at, const char *prefix, int64_t *number)
{
    size_t length = strlen(prefix);
    const char *digits = *at + length;
    if (strncmp(*at, prefix, length) != 0 || *digits < '0' || *digits > '9')
        return false;
    char *end;
    errno = 0;
    *number = strtoll(digits, &end, 10);
    *at = end;
    return errno == 0;
}

/* pytorch_model_fsdp[_MODEL][_rankRANK].bin */
static bool fsdp_parse_name(const char *name, struct fsdp_name *out)
{
    static const char stem[] = "pytorch_model_fsdp";
    *out = (struct fsdp_name){-1, -1};
    if (strncmp(name, stem, sizeof stem - 1) != 0)
        return false;
    const char *at = name + sizeof stem - 1;
    fsdp_take_number(&at, "_", &out->model);
    fsdp_take_number(&at, "_rank", &out->rank);
    return strcmp(at, ".bin") == 0;
}

static int fsdp_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    (void)folder;
    struct fsdp_name name;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && fsdp_parse_name(listing->at[i].name, &name))
            return 1;
    }
    return 0;
}

/* Whole files before ranks' files, the first model before others. */
static bool fsdp_is_before(const struct fsdp_name *a, const struct fsdp_name *b)
{
    if ((a->rank < 0) != (b->rank < 0))
        return a->rank < 0;
    return a->model < b->model;
}

/* The kind of files that is read, where there are several. */
static void fsdp_choose(const struct folder_listing *listing, struct fsdp_name *chosen)
{
    bool any = false;
    struct fsdp_name name;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->at[i].directory || !fsdp_parse_name(listing->at[i].name, &name))
            continue;
        if (!any || fsdp_is_before(&name, chosen))
            *chosen = name;
        any = true;
    }
}

/* The files of that kind, by rank: listings count numbers as numbers. What is left out, and which ranks are
 * missing, is noted. */
static errint fsdp_find_files(const struct folder_listing *listing, const struct fsdp_name *chosen,
                              struct model *model, struct rank_file *files, size_t *count)
{
    struct fsdp_name name;
    for (size_t i = 0; i < listing->count; i++) {
        const char *path = listing->at[i].name;
        errint error = 0;
        if (listing->at[i].directory || !fsdp_parse_name(path, &name))
            continue;
        if (name.model != chosen->model || (name.rank < 0) != (chosen->rank < 0)) {
            error = model_add_note(model, false, "%s is another model's, or of another save", path);
        } else {
            if (name.rank > (int64_t)*count)
                error =
                    model_add_note(model, true, "the file of rank %zu is missing: %s is there", *count, path);
            files[(*count)++] = (struct rank_file){path, name.rank < 0 ? 0 : name.rank};
        }
        if (error)
            return error;
    }
    return 0;
}

static errint fsdp_load(const struct folder *folder, const struct folder_listing *listing,
                        const struct framework_wish *wish, struct model *model)
{
    (void)wish;
    struct fsdp_name chosen = {-1, -1};
    size_t count = 0;
    cleanup_free struct rank_file *files = calloc(listing->count + 1, sizeof *files);
    if (!files)
        return -ENOMEM;
    fsdp_choose(listing, &chosen);
    if (chosen.rank >= 0) {
        model->framework = "fsdp-ranks";
        model->summary = "FSDP, a file for each rank";
    }
    errint error = fsdp_find_files(listing, &chosen, model, files, &count);
    if (!error)
        error = rank_files_load(folder, files, count, NULL, model);
    if (!error)
        error = adapter_mark(model);
    return error || model->missing ? error : tied_mark(folder, model);
}

const struct framework framework_fsdp_file = {
    .name = "fsdp-full",
    .summary = "FSDP, FULL_STATE_DICT",
    .recognise = fsdp_recognise,
    .load = fsdp_load,
};
