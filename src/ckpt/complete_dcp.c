/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of torch.distributed.checkpoint. The .metadata is written when every rank has written and
 * synced its files, by a rename: without it the save has not ended. It says how far each file reaches.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/complete_internal.h"
#include "ckpt/framework.h"
#include "format/dcp_metadata.h"
#include "format/zip.h"

/* -- names ------------------------------------------------------------------------------------------------
 */

/* __RANK_N.distcp */
static bool dcp_is_shard(const char *name, int64_t *rank)
{
    long long found, number;
    int length = 0;
    if (sscanf(name, "__%9lld_%9lld.distcp%n", &found, &number, &length) != 2 || length == 0 || name[length])
        return false;
    *rank = found;
    return found >= 0;
}

static bool dcp_in_directory(const struct tree_entry *entry, const char *directory, size_t length)
{
    return tree_directory_length(entry) == length && memcmp(entry->path, directory, length) == 0;
}

/* -- one directory ----------------------------------------------------------------------------------------
 */

/* Parts of an encoded file are no archives. */
static bool dcp_is_encoded(const struct dcp_metadata *metadata)
{
    for (size_t i = 0; i < metadata->item_count; i++) {
        for (size_t chunk = 0; chunk < metadata->items[i].chunk_count; chunk++) {
            if (metadata->items[i].chunks[chunk].transform)
                return true;
        }
    }
    return false;
}

/* A file is archives one behind the other: whatever the metadata says, it ends with one. */
static errint dcp_judge_end(struct complete_work *work, const struct tree_entry *file, bool *whole)
{
    struct format_source source;
    struct zip_archive archive;
    errint error = folder_open(work->folder, file->path, &source);
    if (error == -ENOENT || error == -EISDIR)
        return complete_miss(work, "%s was removed meanwhile", file->path);
    if (error)
        return error;
    int result = source.size > 0 ? zip_find_archive(&source, source.size, &archive) : 0;
    folder_close(work->folder, &source);
    *whole = result == 0;
    if (result == FORMAT_FOREIGN)
        return complete_miss(work, "%s, offset %" PRId64 ": expected the end of a torch.save archive",
                             file->path, file->size);
    return result;
}

static errint dcp_judge_file(struct complete_work *work, const char *directory, size_t length,
                             const struct dcp_metadata *metadata, size_t i, bool encoded)
{
    const struct complete_memory *memory = work->asked->memory;
    const struct tree_entry *file = tree_find_file(&work->tree, directory, length, metadata->files[i]);
    if (!file)
        return complete_miss(work, "%.*s%s%s is missing: .metadata names it", (int)length, directory,
                             length > 0 ? "/" : "", metadata->files[i]);
    if (file->size < metadata->file_sizes[i])
        return complete_miss(work, "%s: expected %" PRId64 " bytes or more, found %" PRId64, file->path,
                             metadata->file_sizes[i], file->size);
    if (encoded || file->shed || (memory && memory->is_whole(memory->context, file)))
        return 0;
    bool whole = false;
    errint error = dcp_judge_end(work, file, &whole);
    if (memory && whole)
        memory->keep_whole(memory->context, file);
    return error;
}

/* Whether an item is an optimizer's, by its name: "optimizer.state...", "app.optim...", "...exp_avg". */
static void dcp_note_items(struct complete_work *work, const struct dcp_metadata *metadata)
{
    bool model = false, optimizer = false;
    for (size_t i = 0; i < metadata->item_count; i++) {
        const struct dcp_item *item = &metadata->items[i];
        bool is_optimizer = strncmp(item->name, "optim", 5) == 0 || strstr(item->name, ".optim") ||
                            strstr(item->name, "exp_avg");
        optimizer |= is_optimizer;
        model |= item->is_tensor && !is_optimizer;
    }
    work->model |= model;
    work->out->sharded |= model;
    work->optimizer |= optimizer;
}

/* A part of a tensor that is in no file. */
static errint dcp_judge_parts(struct complete_work *work, const char *path,
                              const struct dcp_metadata *metadata)
{
    for (size_t i = 0; i < metadata->item_count; i++) {
        const struct dcp_item *item = &metadata->items[i];
        for (size_t chunk = 0; chunk < item->chunk_count; chunk++) {
            bool empty = false;
            for (uint32_t d = 0; d < item->shape.rank; d++)
                empty |= item->chunks[chunk].sizes[d] == 0;
            if (!empty && item->chunks[chunk].file == DCP_NO_FILE)
                return complete_miss(work, "%s: expected a file for each part of %s, found none", path,
                                     item->name);
        }
    }
    return 0;
}

static errint dcp_read_metadata(struct complete_work *work, const struct tree_entry *entry,
                                struct dcp_metadata *metadata, bool *usable)
{
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    *usable = false;
    errint error = folder_open(work->folder, entry->path, &source);
    if (error == -ENOENT || error == -EISDIR)
        return complete_miss(work, "%s was removed meanwhile", entry->path);
    if (error)
        return error;
    int result = dcp_metadata_read(&source, metadata, &problem);
    folder_close(work->folder, &source);
    *usable = result == 0;
    if (result == FORMAT_FOREIGN)
        return complete_miss(work, "%s: %s", entry->path, problem.text);
    return result;
}

static errint dcp_judge_metadata(struct complete_work *work, const struct tree_entry *entry)
{
    cleanup_dcp_metadata struct dcp_metadata metadata = {0};
    size_t length = tree_directory_length(entry);
    bool usable;
    errint error = dcp_read_metadata(work, entry, &metadata, &usable);
    if (error || !usable)
        return error;
    bool encoded = dcp_is_encoded(&metadata);
    dcp_note_items(work, &metadata);
    error = dcp_judge_parts(work, entry->path, &metadata);
    for (size_t i = 0; i < metadata.file_count && !error && complete_may_read(work); i++) {
        int64_t rank;
        error = dcp_judge_file(work, entry->path, length, &metadata, i, encoded);
        if (dcp_is_shard(metadata.files[i], &rank))
            complete_saw_ranks(work, rank + 1);
    }
    return error;
}

/* What shards wait for. `first` is one of them. */
static errint dcp_judge_shards(struct complete_work *work, const struct tree_entry *first)
{
    size_t length = tree_directory_length(first);
    const struct tree_entry *own = tree_find_file(&work->tree, first->path, length, "__0.metadata");
    if (own)
        return complete_doubt(work, "%s: each rank has its own metadata, which are not understood",
                              own->path);
    return complete_miss(work, "%.*s%s.metadata is missing: the save has not ended", (int)length, first->path,
                         length > 0 ? "/" : "");
}

/* -- the HuggingFace form ---------------------------------------------------------------------------------
 */

/* shard-R-model-I-of-N.safetensors: only together do their headers tell what belongs to it. */
static errint dcp_judge_hf(struct complete_work *work)
{
    cleanup_model struct model model;
    errint error = framework_load(work->folder, NULL, &model);
    work->model = work->out->sharded = true;
    work->out->framework = framework_dcp_hf.name;
    if (error)
        return error == -ENOENT ? 0 : error;
    complete_saw_ranks(work, model.world_size);
    work->missing |= model.missing;
    for (size_t i = 0; i < model.note_count && !error; i++) {
        if (model.notes[i].missing)
            error = complete_miss(work, "%s", model.notes[i].text);
    }
    /* Without either nobody knows whether the last rank's is there. */
    if (!error && !work->out->config && !tree_find_file(&work->tree, "", 0, "rng_state_0.pth"))
        error = complete_doubt(work, "how many shards were saved is in none of them");
    return error;
}

static bool dcp_is_hf_shard(const char *name)
{
    unsigned rank, number, count;
    int length = 0;
    return sscanf(name, "shard-%9u-model-%9u-of-%9u.safetensors%n", &rank, &number, &count, &length) == 3 &&
           length > 0 && !name[length];
}

/* -- all of them ------------------------------------------------------------------------------------------
 */

/* Other programs have files of that name too. */
static errint dcp_is_pickle(struct complete_work *work, const struct tree_entry *entry, bool *pickle)
{
    struct format_source source;
    uint8_t first = 0;
    *pickle = entry->size == 0;
    errint error = folder_open(work->folder, entry->path, &source);
    if (error)
        return error == -ENOENT || error == -EISDIR ? 0 : error;
    if (source.size > 0)
        error = source.read(source.context, &first, 1, 0);
    folder_close(work->folder, &source);
    *pickle |= first == 0x80;
    return error;
}

static errint dcp_judge_entry(struct complete_work *work, const struct tree_entry *entry, bool *waits)
{
    int64_t rank;
    bool pickle = true;
    size_t length = tree_directory_length(entry);
    if (dcp_is_shard(entry->name, &rank)) {
        *waits = !tree_find_file(&work->tree, entry->path, length, ".metadata");
        work->dcp = true;
        return 0;
    }
    if (strcmp(entry->name, ".metadata") != 0 || !complete_may_read(work))
        return 0;
    errint error = dcp_is_pickle(work, entry, &pickle);
    if (error || !pickle)
        return error;
    work->dcp = true;
    return dcp_judge_metadata(work, entry);
}

/* Directories that accelerate makes first and fills then. */
static errint dcp_judge_empty(struct complete_work *work, const struct tree_entry *entry)
{
    unsigned number;
    int length = 0;
    bool known = (sscanf(entry->name, "pytorch_model_fsdp_%9u%n", &number, &length) == 1 ||
                  sscanf(entry->name, "optimizer_%9u%n", &number, &length) == 1) &&
                 !entry->name[length];
    if (!known || tree_find_file(&work->tree, entry->path, strlen(entry->path), ".metadata"))
        return 0;
    return complete_miss(work, "%s/.metadata is missing: the save has not ended", entry->path);
}

errint complete_judge_dcp(struct complete_work *work)
{
    const struct tree_entry *told = NULL;
    errint error = 0;
    for (size_t i = 0; i < work->tree.count && !error; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        bool waits = false;
        if (entry->directory) {
            error = dcp_judge_empty(work, entry);
            continue;
        }
        error = dcp_judge_entry(work, entry, &waits);
        /* Each directory is told once: its shards follow each other. */
        if (error || !waits || (told && dcp_in_directory(entry, told->path, tree_directory_length(told))))
            continue;
        told = entry;
        error = dcp_judge_shards(work, entry);
    }
    for (size_t i = 0; i < work->tree.count && !error && complete_may_read(work); i++) {
        if (dcp_is_hf_shard(work->tree.at[i].name) && !work->tree.at[i].directory)
            return dcp_judge_hf(work);
    }
    return error;
}
