/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SageMaker model parallel, version 1: a whole model (as save_pretrained writes it, beside user_content.pt;
 * or one file TAG beside user_content_TAG), the optimizer in a file of each model-parallel rank, and partial
 * saves in TAG_partial, whose slices only the training program can put together
 * (smdistributed.modelparallel.torch, checkpoint.py).
 */
#include <string.h>

#include "ckpt/framework.h"
#include "ckpt/weights.h"

static const char sagemaker_content[] = "user_content.pt";
static const char sagemaker_content_of[] = "user_content_";

/* -- names ------------------------------------------------------------------------------------------------
 */

/* PREFIX, then numbers with '_' between them, then perhaps ".pt". */
static bool sagemaker_is_part(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0)
        return false;
    const char *at = name + length;
    for (;;) {
        size_t digits = strspn(at, "0123456789");
        if (digits == 0)
            return false;
        at += digits;
        if (*at != '_')
            return *at == '\0' || strcmp(at, ".pt") == 0;
        at++;
    }
}

static bool sagemaker_is_partial(const struct folder_entry *entry)
{
    static const char suffix[] = "_partial";
    size_t length = strlen(entry->name), tail = sizeof suffix - 1;
    return entry->directory && length > tail && strcmp(entry->name + length - tail, suffix) == 0;
}

/* The file whose user content lies beside it; NULL: there is none. */
static const struct folder_entry *sagemaker_find_tagged(const struct folder_listing *listing)
{
    size_t length = sizeof sagemaker_content_of - 1;
    for (size_t i = 0; i < listing->count; i++) {
        const struct folder_entry *entry = &listing->at[i];
        if (entry->directory || strncmp(entry->name, sagemaker_content_of, length) != 0)
            continue;
        const struct folder_entry *tagged = folder_find(listing, entry->name + length);
        if (tagged && !tagged->directory)
            return tagged;
    }
    return NULL;
}

/* How many files of that kind there are, and the first. */
static const char *sagemaker_find_parts(const struct folder_listing *listing, const char *prefix,
                                        size_t *count)
{
    const char *first = NULL;
    *count = 0;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->at[i].directory || !sagemaker_is_part(listing->at[i].name, prefix))
            continue;
        if ((*count)++ == 0)
            first = listing->at[i].name;
    }
    return first;
}

/* A directory with slices in it: 1, 0 or a negative errno. */
static int sagemaker_holds_slices(const struct folder *folder, const char *path)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    size_t count;
    errint error = folder_read(folder, path, &listing);
    if (error)
        return error;
    return folder_find(&listing, "smp_config.pt") || sagemaker_find_parts(&listing, "model_", &count);
}

static int sagemaker_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    size_t count;
    if (folder_find(listing, sagemaker_content) || folder_find(listing, "smp_config.pt") ||
        sagemaker_find_tagged(listing) || sagemaker_find_parts(listing, "optimizer.pt_", &count))
        return 1;
    for (size_t i = 0; i < listing->count; i++) {
        int found =
            sagemaker_is_partial(&listing->at[i]) ? sagemaker_holds_slices(folder, listing->at[i].name) : 0;
        if (found)
            return found;
    }
    return 0;
}

/* -- what is there ----------------------------------------------------------------------------------------
 */

static errint sagemaker_note_optimizer(const struct folder_listing *listing, struct model *model)
{
    size_t count;
    const char *first = sagemaker_find_parts(listing, "optimizer.pt_", &count);
    if (!first)
        return 0;
    return model_add_note(model, false, "the optimizer is in %zu file%s of model-parallel ranks, like %s",
                          count, count == 1 ? "" : "s", first);
}

/* The slices of a partial save, in a directory or in the folder itself. */
static errint sagemaker_note_slices(const struct folder *folder, const char *path, bool missing,
                                    struct model *model)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    size_t count;
    errint error = folder_read(folder, path, &listing);
    if (error)
        return error;
    const char *first = sagemaker_find_parts(&listing, "model_", &count);
    if (!first)
        return model_add_note(model, missing, "%s%sa partial save without model_*.pt", path,
                              *path ? ": " : "");
    return model_add_note(
        model, missing,
        "%s%s%s is one of %zu slices of model-parallel ranks: nothing in them says how they "
        "are put together, only the training program can (smp.resume_from_checkpoint)",
        path, *path ? "/" : "", first, count);
}

static errint sagemaker_note_partials(const struct folder *folder, const struct folder_listing *listing,
                                      bool missing, struct model *model, size_t *count)
{
    errint error = 0;
    *count = 0;
    for (size_t i = 0; !error && i < listing->count; i++) {
        if (!sagemaker_is_partial(&listing->at[i]))
            continue;
        error = sagemaker_note_slices(folder, listing->at[i].name, missing, model);
        (*count)++;
    }
    return error;
}

/* model.safetensors or another name of a whole model; not just any file that is alone. */
static bool sagemaker_has_whole(const struct folder_listing *listing)
{
    char name[WEIGHTS_NAME_MAX];
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        if (folder_find(listing, weights_whole_name(&weights_kinds[i], name)))
            return true;
    }
    return false;
}

/* Reads the whole model if there is one: *found. */
static errint sagemaker_load_whole(const struct folder *folder, const struct folder_listing *listing,
                                   const struct framework_wish *wish, struct model *model, bool *found)
{
    const struct folder_entry *tagged = sagemaker_find_tagged(listing);
    *found = true;
    if (tagged)
        return weights_read(folder, tagged->name, model, NULL, NULL);
    if (sagemaker_has_whole(listing))
        return framework_single.load(folder, listing, wish, model);
    int sharded = framework_sharded.recognise(folder, listing);
    if (sharded > 0)
        return framework_sharded.load(folder, listing, wish, model);
    *found = false;
    return sharded;
}

static errint sagemaker_load(const struct folder *folder, const struct folder_listing *listing,
                             const struct framework_wish *wish, struct model *model)
{
    bool whole = false;
    size_t partials;
    errint error = sagemaker_note_optimizer(listing, model);
    if (!error && folder_find(listing, "smp_config.pt"))
        return sagemaker_note_slices(folder, "", true, model);
    if (!error)
        error = sagemaker_load_whole(folder, listing, wish, model, &whole);
    if (!error)
        error = sagemaker_note_partials(folder, listing, !whole, model, &partials);
    if (!error && !whole && partials == 0)
        error = model_add_note(model, true,
                               "no weights are here: neither model.safetensors nor "
                               "pytorch_model.bin, nor an index of shards");
    return error;
}

const struct framework framework_sagemaker = {
    .name = "sagemaker",
    .summary = "SageMaker model parallel",
    .recognise = sagemaker_recognise,
    .load = sagemaker_load,
};
