/* SPDX-License-Identifier: Apache-2.0 */
/* Finding model files and shards of the same model. */
#include "fs/share_vicinity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "ckpt/framework.h"
#include "fs/inode_model.h"
#include "fs/namespace_folder.h"
#include "fs/share_ranges.h"
#include "meta/assembled.h"
#include "store/hash.h"

enum {
    VICINITY_NEAR = 4, /* directories below, and as many beside */
    VICINITY_DIRECTORIES = 2 + 2 * VICINITY_NEAR,
    VICINITY_BELOW = 32,            /* directories one level below a model's, whose files are its own too */
    VICINITY_ENTRIES_MAX = 1 << 14, /* a directory of more is looked at as far as this */
    VICINITY_FILES_MAX = 1024,      /* model files that are compared with one model in pieces */
};

/* -- directories ------------------------------------------------------------------------------------------
 */

/* An entry of a directory. */
struct vicinity_entry {
    uint64_t ino;
    int64_t mtime, size;
    uint32_t uid;
    bool directory;
    bool weights; /* a sealed file that is called as files of weights are */
};

struct vicinity_list {
    struct vicinity_entry *at;
    size_t count, capacity;
    errint error;
};

static bool vicinity_is_weights(const char *name, size_t length)
{
    static const char *const suffixes[] = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t end = strlen(suffixes[i]);
        if (length > end && memcmp(name + length - end, suffixes[i], end) == 0)
            return true;
    }
    return false;
}

static bool vicinity_collect(void *context, const char *name, size_t length, uint64_t cookie,
                             const struct meta_inode *inode)
{
    (void)cookie;
    struct vicinity_list *list = context;
    bool directory = S_ISDIR(inode->mode);
    if (!directory && !S_ISREG(inode->mode))
        return true;
    if (!grow_reserve(list->at, list->capacity, list->count + 1)) {
        list->error = -ENOMEM;
        return false;
    }
    list->at[list->count++] = (struct vicinity_entry){
        .ino = inode->ino,
        .mtime = inode->mtime,
        .size = inode->size,
        .uid = inode->uid,
        .directory = directory,
        .weights = inode->kind == META_EXTENTS && !(inode->state & (META_DIRTY | META_TORN)) &&
                   inode->size >= COUNTERPART_LENGTH_MIN && vicinity_is_weights(name, length),
    };
    return list->count < VICINITY_ENTRIES_MAX;
}

/* Of a directory that is gone, nothing. The caller frees out->at, whatever is returned. */
static errint vicinity_list(struct filesystem *fs, uint64_t directory, struct vicinity_list *out)
{
    *out = (struct vicinity_list){0};
    errint error = meta_list(fs->meta, directory, 0, vicinity_collect, out);
    if (error == -ENOENT || error == -ENOTDIR)
        return 0;
    return error ? error : out->error;
}

static int vicinity_compare_age(const void *one, const void *other)
{
    const struct vicinity_entry *a = one, *b = other;
    if (a->mtime != b->mtime)
        return a->mtime > b->mtime ? -1 : 1;
    return (a->ino < b->ino) - (a->ino > b->ino);
}

/* Appends the newest directories of a directory. */
static errint vicinity_add_below(struct filesystem *fs, uint64_t directory, struct ids *out)
{
    struct vicinity_list list;
    errint error = vicinity_list(fs, directory, &list);
    size_t added = 0;
    if (list.count > 0)
        qsort(list.at, list.count, sizeof *list.at, vicinity_compare_age);
    for (size_t i = 0; i < list.count && added < VICINITY_NEAR && !error; i++) {
        if (!list.at[i].directory || ids_contain(out, list.at[i].ino))
            continue;
        error = ids_append(out, list.at[i].ino);
        added++;
    }
    free(list.at);
    return error;
}

/* The directory itself first. */
static errint vicinity_find(struct filesystem *fs, uint64_t directory, struct ids *out)
{
    uint64_t above;
    errint error = ids_append(out, directory);
    if (!error)
        error = vicinity_add_below(fs, directory, out);
    if (error || directory == META_ROOT_INO)
        return error;
    error = meta_parent(fs->meta, directory, &above);
    if (!error)
        error = ids_append(out, above);
    return error ? error : vicinity_add_below(fs, above, out);
}

/* -- what was looked at -----------------------------------------------------------------------------------
 */

static uint64_t vicinity_mix(struct filesystem *fs, uint64_t before, const struct vicinity_entry *entry)
{
    const uint64_t words[] = {before, entry->ino, entry->directory ? 0 : (uint64_t)entry->mtime,
                              (uint64_t)entry->size};
    return hash_of(fs->store, words, sizeof words).low;
}

static uint64_t vicinity_mix_all(struct filesystem *fs, uint64_t state, const struct vicinity_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        state = vicinity_mix(fs, state, &list->at[i]);
    return state;
}

/* A number that changes with the files of the directory and of those one level below, and with what is
 * assembled of them. */
static errint vicinity_digest(struct filesystem *fs, uint64_t directory, const struct vicinity_list *list,
                              uint64_t *out)
{
    struct meta_inode row;
    uint64_t state = vicinity_mix_all(fs, directory, list);
    size_t below = 0;
    errint error = 0;
    for (size_t i = 0; i < list->count && below < VICINITY_BELOW && !error; i++) {
        struct vicinity_list inner;
        if (!list->at[i].directory)
            continue;
        error = vicinity_list(fs, list->at[i].ino, &inner);
        state = vicinity_mix_all(fs, state, &inner);
        free(inner.at);
        below++;
    }
    if (!error)
        error = meta_assembled_find(fs->meta, directory, NULL, 0, &row);
    *out = error ? state : vicinity_mix(fs, state, &(struct vicinity_entry){.ino = row.ino});
    return error == -ENOENT ? 0 : error;
}

static bool vicinity_knows(const struct vicinity_known *known, uint64_t pair)
{
    for (size_t i = 0; i < VICINITY_KNOWN; i++) {
        if (known->pairs[i] == pair)
            return true;
    }
    return false;
}

static void vicinity_note(struct vicinity_known *known, uint64_t pair)
{
    known->pairs[known->next++ % VICINITY_KNOWN] = pair;
}

/* -- pairs ------------------------------------------------------------------------------------------------
 */

/* A model file that was not compared with the model in pieces yet. */
struct vicinity_file {
    struct vicinity_entry entry;
    uint64_t pair;
    bool done;
};

/* One directory's model in pieces, and the files that are compared with it. */
struct vicinity_work {
    struct filesystem *fs;
    bool (*stops)(struct filesystem *fs);
    uint64_t directory;
    struct vicinity_file *files;
    size_t file_count;
};

/* What happened is no reason to leave the other pairs alone; the worst of it is kept. */
static errint vicinity_go_on(errint error, errint *later)
{
    if (error == -EAGAIN || error == -EBUSY || error == -EIO || error == -ENOSPC) {
        *later = error == -EBUSY ? -EBUSY : -EAGAIN;
        return 0;
    }
    return error == -ENOENT || error == -EFBIG ? 0 : error;
}

/* Compares one file with a model whose files are these inodes. */
static errint vicinity_compare(const struct vicinity_work *work, const struct vicinity_entry *file,
                               const struct model *pieces, const uint64_t *inodes)
{
    struct filesystem *fs = work->fs;
    cleanup_model struct model whole;
    cleanup_free struct counterpart *ranges = NULL;
    struct share_ranges request = {
        .whole = file->ino, .uid = file->uid, .pieces = inodes, .piece_count = pieces->file_count};
    errint error = inode_model_load(fs, file->ino, work->stops, &whole);
    if (error || !model_is_whole(&whole))
        return error;
    error = counterpart_find(&whole, pieces, &ranges, &request.range_count);
    request.ranges = ranges;
    return error || request.range_count == 0 ? error : share_ranges(fs, &request, work->stops);
}

static errint vicinity_compare_all(struct vicinity_work *work, const struct model *pieces,
                                   const uint64_t *inodes, errint *later)
{
    errint error = 0;
    for (size_t i = 0; i < work->file_count && !error; i++) {
        struct vicinity_file *file = &work->files[i];
        errint here = 0;
        bool own = false;
        for (size_t k = 0; k < pieces->file_count && !own; k++)
            own = inodes[k] == file->entry.ino;
        if (own)
            continue;
        error = vicinity_go_on(vicinity_compare(work, &file->entry, pieces, inodes), &here);
        file->done &= !error && !here;
        *later = here ? here : *later;
    }
    return error;
}

/* The inodes of the model's files, 0 where one is missing. The caller frees them. */
static errint vicinity_find_inodes(const struct namespace_folder *folder, const struct model *model,
                                   uint64_t **out)
{
    uint64_t *inodes = calloc(model->file_count + 1, sizeof *inodes);
    errint error = inodes ? 0 : -ENOMEM;
    for (size_t i = 0; i < model->file_count && !error; i++) {
        const char *path = model->files[i].path;
        struct meta_inode row;
        error = namespace_find(folder->fs, folder->directory, path, strlen(path), &row);
        inodes[i] = error ? 0 : row.ino;
        error = error == -ENOENT ? 0 : error;
    }
    *out = inodes;
    return error;
}

/* `again`: the copy that an optimizer holds may be asked for, too. */
static errint vicinity_share_pieces(struct vicinity_work *work, bool master, bool *again, errint *later)
{
    const struct framework_wish wish = {.master = master};
    cleanup_namespace_folder struct namespace_folder folder = {0};
    struct folder reader;
    errint error = namespace_folder_open(work->fs, work->directory, work->stops, &folder, &reader);
    if (error)
        return error;
    folder.compares = true;
    cleanup_model struct model model;
    cleanup_free uint64_t *inodes = NULL;
    error = framework_load(&reader, &wish, &model);
    /* A file that is written comes back when it is sealed. */
    for (size_t i = 0; i < work->file_count && folder.busy; i++)
        work->files[i].done = false;
    if (error)
        return folder.busy ? 0 : error;
    *again = strncmp(model.framework, "deepspeed", strlen("deepspeed")) == 0;
    /* What these have in common with another file is found tensor by tensor. */
    if (!model_is_whole(&model) || model.framework == framework_single.name ||
        model.framework == framework_sharded.name)
        return 0;
    error = vicinity_find_inodes(&folder, &model, &inodes);
    return error ? error : vicinity_compare_all(work, &model, inodes, later);
}

/* The bytes that were computed for the assembled file are nowhere else. */
static errint vicinity_share_assembled(struct vicinity_work *work, errint *later)
{
    struct meta_inode row;
    cleanup_model struct model model = {0};
    errint error = meta_assembled_find(work->fs->meta, work->directory, NULL, 0, &row);
    if (!error)
        error = inode_model_load(work->fs, row.ino, work->stops, &model);
    if (error || !model_is_whole(&model))
        return error;
    return vicinity_compare_all(work, &model, &row.ino, later);
}

static errint vicinity_share_directory(struct vicinity_work *work, struct vicinity_known *known,
                                       errint *later)
{
    bool again = false, unused;
    errint error = vicinity_go_on(vicinity_share_pieces(work, false, &again, later), later);
    if (!error && again)
        error = vicinity_go_on(vicinity_share_pieces(work, true, &unused, later), later);
    if (!error)
        error = vicinity_go_on(vicinity_share_assembled(work, later), later);
    for (size_t i = 0; i < work->file_count && !error; i++) {
        if (work->files[i].done)
            vicinity_note(known, work->files[i].pair);
    }
    return error;
}

/* -- all of them ------------------------------------------------------------------------------------------
 */

/* The directories, the first of which is the one that is looked at, and what they hold. */
struct vicinity {
    struct ids directories;
    struct vicinity_list lists[VICINITY_DIRECTORIES];
};

static void vicinity_release(struct vicinity *vicinity)
{
    for (size_t i = 0; i < VICINITY_DIRECTORIES; i++)
        free(vicinity->lists[i].at);
    ids_release(&vicinity->directories);
}

#define cleanup_vicinity __attribute__((cleanup(vicinity_release)))

/* Whether there is a file to compare with the model in pieces of that directory. */
static bool vicinity_has_weights(const struct vicinity *vicinity, size_t which)
{
    for (size_t i = 0; i < vicinity->directories.count; i++) {
        for (size_t k = 0; k < vicinity->lists[i].count && (which == 0 || i == 0); k++) {
            if (vicinity->lists[i].at[k].weights)
                return true;
        }
    }
    return false;
}

/* Puts the files of one directory on the list that were not compared with the model yet. */
static void vicinity_add_files(struct vicinity_work *work, const struct vicinity_list *list, uint64_t digest,
                               const struct vicinity_known *known)
{
    for (size_t i = 0; i < list->count && work->file_count < VICINITY_FILES_MAX; i++) {
        const struct vicinity_entry *entry = &list->at[i];
        uint64_t pair = vicinity_mix(work->fs, digest, entry);
        if (entry->weights && !vicinity_knows(known, pair))
            work->files[work->file_count++] = (struct vicinity_file){*entry, pair, true};
    }
}

/* The model in pieces of one directory, with the files of the others; of two, one is the first. */
static errint vicinity_share_one(struct filesystem *fs, const struct vicinity *vicinity, size_t which,
                                 struct vicinity_known *known, bool (*stops)(struct filesystem *fs),
                                 errint *later)
{
    struct vicinity_work work = {.fs = fs, .stops = stops, .directory = vicinity->directories.at[which]};
    cleanup_free struct vicinity_file *files = calloc(VICINITY_FILES_MAX, sizeof *files);
    uint64_t digest;
    if (!files)
        return -ENOMEM;
    work.files = files;
    if (!vicinity_has_weights(vicinity, which))
        return 0;
    errint error = vicinity_digest(fs, work.directory, &vicinity->lists[which], &digest);
    for (size_t i = 0; i < vicinity->directories.count && !error; i++) {
        if (which == 0 || i == 0)
            vicinity_add_files(&work, &vicinity->lists[i], digest, known);
    }
    return error || work.file_count == 0 ? error : vicinity_share_directory(&work, known, later);
}

errint vicinity_share(struct filesystem *fs, uint64_t directory, struct vicinity_known *known,
                      bool (*stops)(struct filesystem *fs))
{
    cleanup_vicinity struct vicinity vicinity = {0};
    errint later = 0;
    errint error = vicinity_find(fs, directory, &vicinity.directories);
    for (size_t i = 0; i < vicinity.directories.count && !error; i++)
        error = vicinity_list(fs, vicinity.directories.at[i], &vicinity.lists[i]);
    for (size_t i = 0; i < vicinity.directories.count && !error; i++)
        error = stops(fs) ? -ECANCELED : vicinity_share_one(fs, &vicinity, i, known, stops, &later);
    return error ? error : later;
}
