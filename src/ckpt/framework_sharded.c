/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model in several files with an index, as save_pretrained writes it: model-0000I-of-0000N.safetensors, or
 * pytorch_model-0000I-of-0000N.bin. The index is the truth: what it does not name is stale. Where there is no
 * index, the shards must be complete.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/framework.h"
#include "ckpt/weights.h"
#include "format/hf_index.h"

/* The kind whose index or shards are there, and that loaders would take; NULL: none. */
static const struct weights_kind *sharded_find(const struct folder_listing *listing, bool *indexed)
{
    char name[WEIGHTS_NAME_MAX];
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        if (folder_find(listing, weights_whole_name(&weights_kinds[i], name)))
            return NULL; /* Loaders look for it first. */
        *indexed = folder_find(listing, weights_index_name(&weights_kinds[i], name));
        if (*indexed)
            return &weights_kinds[i];
    }
    for (size_t i = 0; i < listing->count && listing->count > 1; i++) {
        const struct weights_kind *kind;
        if (weights_is_shard(listing->at[i].name, &kind, NULL, NULL))
            return kind;
    }
    return NULL;
}

static int sharded_recognise(const struct folder *folder, const struct folder_listing *listing)
{
    bool indexed;
    (void)folder;
    return sharded_find(listing, &indexed) != NULL;
}

/* -- by the index -----------------------------------------------------------------------------------------
 */

/* The shard that is read. */
struct sharded_reading {
    const struct hf_index *index;
    const char *shard;
    size_t stale; /* tensors that the index has in another file, or not at all */
};

static int sharded_compare_names(const void *name, const void *entry)
{
    return strcmp(name, ((const struct hf_index_entry *)entry)->name);
}

static errint sharded_take(void *context, struct model *model, const struct tensor *tensor, const char *name,
                           uint32_t file)
{
    struct sharded_reading *reading = context;
    const struct hf_index_entry *entry = bsearch(name, reading->index->entries, reading->index->count,
                                                 sizeof *reading->index->entries, sharded_compare_names);
    if (entry && strcmp(entry->file, reading->shard) == 0)
        return model_add_whole(model, tensor, name, file);
    reading->stale++;
    return 0;
}

static int sharded_compare_files(const void *one, const void *other)
{
    return folder_compare_names(*(const char *const *)one, *(const char *const *)other);
}

/* The shards that the index names, each once, in the order of their numbers. The caller frees them. */
static const char **sharded_list_files(const struct hf_index *index, size_t *count)
{
    const char **files = calloc(index->count + 1, sizeof *files);
    if (!files)
        return NULL;
    for (size_t i = 0; i < index->count; i++)
        files[i] = index->entries[i].file;
    if (index->count > 0)
        qsort(files, index->count, sizeof *files, sharded_compare_files);
    *count = 0;
    for (size_t i = 0; i < index->count; i++) {
        if (*count == 0 || strcmp(files[*count - 1], files[i]) != 0)
            files[(*count)++] = files[i];
    }
    return files;
}

static errint sharded_read_shards(const struct folder *folder, const struct hf_index *index,
                                  struct model *model)
{
    size_t count;
    cleanup_free const char **files = sharded_list_files(index, &count);
    errint error = files ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && !error; i++) {
        struct sharded_reading reading = {.index = index, .shard = files[i]};
        error = weights_read(folder, files[i], model, sharded_take, &reading);
        if (!error && reading.stale > 0)
            error = model_add_note(model, false,
                                   "%s: %zu tensors are left out: the index does not have them there",
                                   files[i], reading.stale);
    }
    return error;
}

/* What the index promises and the shards do not hold, and the other way round. */
static errint sharded_compare(const struct folder_listing *listing, const struct hf_index *index,
                              const struct weights_kind *kind, struct model *model)
{
    int64_t elements, bytes;
    errint error = 0;
    for (size_t i = 0; i < index->count && !error; i++) {
        const struct hf_index_entry *entry = &index->entries[i];
        if (!model_find_tensor(model, entry->name))
            error = model_add_note(model, true, "tensor %s is missing: the index has it in %s", entry->name,
                                   entry->file);
    }
    for (size_t i = 0; i < listing->count && !error; i++) {
        const struct weights_kind *found;
        const char *name = listing->at[i].name;
        if (weights_is_shard(name, &found, NULL, NULL) && found == kind &&
            !name_table_find(&model->files_by_path, name, NULL))
            error = model_add_note(model, false, "%s is stale: the index does not name it", name);
    }
    model_count(model, &elements, &bytes);
    if (!error && !model->missing && index->total_size >= 0 && index->total_size != bytes)
        error = model_add_note(model, false,
                               "the index says that all tensors have %" PRId64 " bytes, they have %" PRId64,
                               index->total_size, bytes);
    return error;
}

static errint sharded_load_index(const struct folder *folder, const struct folder_listing *listing,
                                 const struct weights_kind *kind, struct model *model)
{
    char name[WEIGHTS_NAME_MAX];
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    cleanup_hf_index struct hf_index index = {0};
    weights_index_name(kind, name);
    errint error = folder_open(folder, name, &source);
    if (error)
        return error;
    int result = hf_index_read(&source, &index, &problem);
    folder_close(folder, &source);
    if (result == FORMAT_FOREIGN)
        return model_add_problem(model, name, &problem);
    error = result ? result : sharded_read_shards(folder, &index, model);
    return error ? error : sharded_compare(listing, &index, kind, model);
}

/* -- without one ------------------------------------------------------------------------------------------
 */

/* Sets of other numbers of shards are told as two: which is meant, nobody knows then. */
enum { SHARDED_SETS_MAX = 16 };

/* Shards of one kind that say how many they are. */
struct sharded_set {
    int64_t total;
    int64_t found;
};

struct sharded_sets {
    struct sharded_set at[SHARDED_SETS_MAX];
    size_t count;
    size_t complete; /* how many of them are */
    int64_t total;   /* of the last one that is complete, else of the first */
};

/* Whether it is a shard of this kind; which one of how many. */
static bool sharded_is_of(const struct folder_entry *entry, const struct weights_kind *kind, int64_t *number,
                          int64_t *total)
{
    const struct weights_kind *found;
    return !entry->directory && weights_is_shard(entry->name, &found, number, total) && found == kind;
}

static void sharded_count(struct sharded_sets *sets, int64_t total)
{
    for (size_t i = 0; i < sets->count; i++) {
        if (sets->at[i].total == total) {
            sets->at[i].found++;
            return;
        }
    }
    if (sets->count < SHARDED_SETS_MAX)
        sets->at[sets->count++] = (struct sharded_set){total, 1};
}

static void sharded_find_sets(const struct folder_listing *listing, const struct weights_kind *kind,
                              struct sharded_sets *sets)
{
    int64_t number, total;
    *sets = (struct sharded_sets){0};
    for (size_t i = 0; i < listing->count; i++) {
        if (sharded_is_of(&listing->at[i], kind, &number, &total))
            sharded_count(sets, total);
    }
    sets->total = sets->at[0].total;
    for (size_t i = 0; i < sets->count; i++) {
        if (sets->at[i].found != sets->at[i].total)
            continue;
        sets->complete++;
        sets->total = sets->at[i].total;
    }
}

/* Reads the shards that say that they are `total`; others are left from another save. */
static errint sharded_load_set(const struct folder *folder, const struct folder_listing *listing,
                               const struct weights_kind *kind, int64_t total, struct model *model)
{
    char name[WEIGHTS_NAME_MAX];
    int64_t last = 0, number, count;
    errint error = 0;
    for (size_t i = 0; i < listing->count && !error; i++) {
        if (!sharded_is_of(&listing->at[i], kind, &number, &count))
            continue;
        if (count != total) {
            error = model_add_note(model, false,
                                   "%s is stale: the %" PRId64 " shards of another save are complete",
                                   listing->at[i].name, total);
            continue;
        }
        if (number != last + 1)
            error =
                model_add_note(model, true, "%s is missing", weights_shard_name(kind, last + 1, total, name));
        last = number;
        if (!error)
            error = weights_read(folder, listing->at[i].name, model, NULL, NULL);
    }
    if (!error && last != total)
        error = model_add_note(model, true, "%s is missing", weights_shard_name(kind, last + 1, total, name));
    return error;
}

static errint sharded_load_all(const struct folder *folder, const struct folder_listing *listing,
                               const struct weights_kind *kind, struct model *model)
{
    struct sharded_sets sets;
    char index[WEIGHTS_NAME_MAX];
    sharded_find_sets(listing, kind, &sets);
    errint error =
        model_add_note(model, false, "%s is missing: all shards are taken", weights_index_name(kind, index));
    if (error)
        return error;
    if (sets.complete == 1 || sets.count == 1)
        return sharded_load_set(folder, listing, kind, sets.total, model);
    return model_add_note(model, true,
                          "shards of two models lie here, one of %" PRId64 " and one of %" PRId64
                          " files, and no index says which is right",
                          sets.at[0].total, sets.at[1].total);
}

static errint sharded_load(const struct folder *folder, const struct folder_listing *listing,
                           const struct framework_wish *wish, struct model *model)
{
    bool indexed;
    const struct weights_kind *kind = sharded_find(listing, &indexed);
    (void)wish;
    model->stem = kind->model_stem;
    return indexed ? sharded_load_index(folder, listing, kind, model)
                   : sharded_load_all(folder, listing, kind, model);
}

const struct framework framework_sharded = {
    .name = "sharded",
    .summary = "a model in several files",
    .recognise = sharded_recognise,
    .load = sharded_load,
};
