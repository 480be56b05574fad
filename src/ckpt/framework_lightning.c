/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lightning: NAME.ckpt, a torch.save file whose object holds the weights under "state_dict" beside
 * "pytorch-lightning_version" (lightning/pytorch/trainer/connectors/checkpoint_connector.py, 2.5). Names are
 * kept as they are: they start with the attribute that the module has in the LightningModule.
 */
#include <errno.h>
#include <string.h>

#include "ckpt/framework.h"
#include "ckpt/rank_files.h"
#include "ckpt/tied.h"
#include "format/torch_file.h"

static bool lightning_ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);
    return length > end_length && strcmp(name + length - end_length, end) == 0;
}

/* The file that is read: last.ckpt, else the last one by name; NULL: there is none. */
static const struct folder_entry *lightning_find(const struct folder_listing *listing)
{
    const struct folder_entry *found = NULL;
    for (size_t i = 0; i < listing->count; i++) {
        const struct folder_entry *entry = &listing->at[i];
        if (entry->directory || !lightning_ends_with(entry->name, ".ckpt"))
            continue;
        if (!found || strcmp(found->name, "last.ckpt") != 0)
            found = entry;
    }
    return found;
}

/* Files that other libraries load: what lies beside them is not asked. */
static bool lightning_has_other_weights(const struct folder_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++) {
        const char *name = listing->at[i].name;
        if (lightning_ends_with(name, ".safetensors") || strncmp(name, "pytorch_model", 13) == 0)
            return true;
    }
    return false;
}

static int lightning_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    const struct folder_entry *entry = lightning_find(listing);
    struct format_source source;
    if (!entry || lightning_has_other_weights(listing))
        return 0;
    errint error = folder_open(folder, entry->name, &source);
    if (error)
        return error == -ENOENT || error == -EISDIR ? 0 : error;
    bool likely = torch_file_is_likely(&source);
    folder_close(folder, &source);
    return likely;
}

static errint lightning_load(const struct folder *folder, const struct folder_listing *listing,
                             const struct framework_wish *wish, struct model *model)
{
    (void)wish;
    const struct folder_entry *entry = lightning_find(listing);
    if (!entry)
        return -ENOENT;
    const struct rank_file file = {.path = entry->name};
    errint error = model_add_note(model, false, "%s: names of the tensors are those of its LightningModule",
                                  entry->name);
    if (!error)
        error = rank_files_load(folder, &file, 1, "state_dict", model);
    return error || model->missing ? error : tied_mark(folder, model);
}

const struct framework framework_lightning = {
    .name = "lightning",
    .summary = "PyTorch Lightning",
    .recognise = lightning_recognise,
    .load = lightning_load,
};
