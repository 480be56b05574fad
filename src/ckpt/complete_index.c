/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights as save_pretrained writes them: one file, or shards and behind them an index that names them. A
 * save in one file leaves an older save's index where it is, and loaders then take the one file.
 */
#include <errno.h>
#include <string.h>

#include "base/name_table.h"
#include "ckpt/complete_internal.h"
#include "ckpt/weights.h"
#include "format/hf_index.h"

/* The files that an index names, each once. */
static errint index_judge_shards(struct complete_work *work, const struct tree_entry *index,
                                 const struct hf_index *read, bool stale)
{
    __attribute__((cleanup(name_table_release))) struct name_table seen = {0};
    size_t directory = tree_directory_length(index);
    errint error = 0;
    for (size_t i = 0; i < read->count && !error; i++) {
        const char *name = read->entries[i].file;
        error = name_table_add(&seen, name, 0);
        if (error == -EEXIST) {
            error = 0;
            continue;
        }
        if (error || tree_find_file(&work->tree, index->path, directory, name))
            continue;
        if (stale)
            return complete_add_note(work->out, false, "%s is of an earlier save: %s is not here",
                                     index->path, name);
        error = complete_miss(work, "%.*s%s%s is missing: %s names it", (int)directory, index->path,
                              directory > 0 ? "/" : "", name, index->name);
    }
    return error;
}

static errint index_judge(struct complete_work *work, const struct tree_entry *index, bool stale)
{
    cleanup_hf_index struct hf_index read = {0};
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    errint error = folder_open(work->folder, index->path, &source);
    if (error == -ENOENT || error == -EISDIR)
        return complete_miss(work, "%s was removed meanwhile", index->path);
    if (error)
        return error;
    int result = hf_index_read(&source, &read, &problem);
    folder_close(work->folder, &source);
    if (result == FORMAT_FOREIGN)
        return complete_miss(work, "%s: %s", index->path, problem.text);
    return result ? result : index_judge_shards(work, index, &read, stale);
}

/* The index of shards is written behind them. */
static errint index_judge_missing(struct complete_work *work, const struct tree_entry *shard,
                                  const struct weights_kind *kind)
{
    char name[WEIGHTS_NAME_MAX];
    size_t directory = tree_directory_length(shard);
    /* Loaders take the one file, where there is one. */
    if (tree_find_file(&work->tree, shard->path, directory, weights_whole_name(kind, name)) ||
        tree_find_file(&work->tree, shard->path, directory, weights_index_name(kind, name)))
        return 0;
    return complete_miss(work, "%.*s%s%s is missing: it is written behind the shards", (int)directory,
                         shard->path, directory > 0 ? "/" : "", name);
}

static errint index_judge_entry(struct complete_work *work, const struct tree_entry *entry)
{
    char whole[WEIGHTS_NAME_MAX], index[WEIGHTS_NAME_MAX];
    const struct weights_kind *kind;
    int64_t number, count;
    if (weights_is_shard(entry->name, &kind, &number, &count))
        return number == 1 ? index_judge_missing(work, entry, kind) : 0;
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        kind = &weights_kinds[i];
        weights_whole_name(kind, whole);
        if (strcmp(entry->name, whole) == 0)
            work->model = true;
        if (strcmp(entry->name, weights_index_name(kind, index)) != 0)
            continue;
        bool stale = tree_find_file(&work->tree, entry->path, tree_directory_length(entry), whole);
        return index_judge(work, entry, stale);
    }
    return 0;
}

errint complete_judge_indexes(struct complete_work *work)
{
    errint error = 0;
    for (size_t i = 0; i < work->tree.count && !error; i++) {
        if (!work->tree.at[i].directory)
            error = index_judge_entry(work, &work->tree.at[i]);
    }
    return error;
}
