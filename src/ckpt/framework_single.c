/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model in one file: what save_pretrained writes (model.safetensors, pytorch_model.bin, adapter_model.*),
 * or the only file of weights that is there.
 */
#include <string.h>

#include "ckpt/framework.h"
#include "ckpt/weights.h"
#include "format/torch_file.h"

/* The standard name that is there, first come first served; NULL: none. */
static const struct folder_entry *single_find_standard(const struct folder_listing *listing,
                                                       const char **stem)
{
    char name[WEIGHTS_NAME_MAX];
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        const struct folder_entry *entry = folder_find(listing, weights_whole_name(&weights_kinds[i], name));
        if (entry && !entry->directory) {
            *stem = weights_kinds[i].model_stem;
            return entry;
        }
    }
    return NULL;
}

/* The only *.safetensors, or the only file; NULL: there are more of them, or none. */
static const struct folder_entry *single_find_only(const struct folder_listing *listing)
{
    const struct folder_entry *found = NULL;
    static const char suffix[] = ".safetensors";
    size_t count = 0;
    for (size_t i = 0; i < listing->count; i++) {
        const struct folder_entry *entry = &listing->at[i];
        size_t length = strlen(entry->name);
        if (!entry->directory && length > strlen(suffix) &&
            strcmp(entry->name + length - strlen(suffix), suffix) == 0) {
            found = entry;
            count++;
        }
    }
    if (count == 0 && listing->count == 1 && !listing->at[0].directory)
        return &listing->at[0];
    return count == 1 ? found : NULL;
}

static const struct folder_entry *single_find(const struct folder_listing *listing, const char **stem)
{
    *stem = "model";
    const struct folder_entry *entry = single_find_standard(listing, stem);
    return entry ? entry : single_find_only(listing);
}

/* By the first bytes: a torch file, or a length and the bracket of a safetensors header. */
static int single_is_weights(const struct folder *folder, const char *name)
{
    struct format_source source;
    uint8_t start[9] = {0};
    errint error = folder_open(folder, name, &source);
    if (error)
        return error;
    bool likely = torch_file_is_likely(&source);
    if (!likely && source.size >= (int64_t)sizeof start)
        error = source.read(source.context, start, sizeof start, 0);
    folder_close(folder, &source);
    return error ? error : likely || (start[8] == '{' && start[7] == 0);
}

static int single_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    const char *stem;
    if (single_find_standard(listing, &stem))
        return 1;
    const struct folder_entry *entry = single_find_only(listing);
    return entry ? single_is_weights(folder, entry->name) : 0;
}

static errint single_load(const struct folder *folder, const struct folder_listing *listing,
                          const struct framework_wish *wish, struct model *model)
{
    char index[WEIGHTS_NAME_MAX];
    int64_t number, count;
    const struct folder_entry *entry = single_find(listing, &model->stem);
    errint error = 0;
    (void)wish;
    if (weights_is_shard(entry->name, NULL, &number, &count) && count > 1)
        error = model_add_note(model, true, "%s is shard %lld of %lld: the others are not here", entry->name,
                               (long long)number, (long long)count);
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT && !error; i++) {
        if (strcmp(weights_kinds[i].model_stem, model->stem) == 0 &&
            folder_find(listing, weights_index_name(&weights_kinds[i], index)))
            error = model_add_note(model, false, "%s is there too; loaders take %s", index, entry->name);
    }
    for (size_t i = 0; i < listing->count && !error; i++) {
        const struct weights_kind *kind;
        const char *name = listing->at[i].name;
        if (name != entry->name && weights_is_shard(name, &kind, NULL, NULL) &&
            strcmp(kind->model_stem, model->stem) == 0)
            error = model_add_note(model, false, "%s is stale: loaders take %s", name, entry->name);
    }
    return error ? error : weights_read(folder, entry->name, model, NULL, NULL);
}

const struct framework framework_single = {
    .name = "single",
    .summary = "a model in one file",
    .recognise = single_recognise,
    .load = single_load,
};
