/* SPDX-License-Identifier: Apache-2.0 */
/* The model that a directory shows, or showed last, and the files that lie there now. */
#include "fs/assemble_former.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/grow.h"
#include "ckpt/beside.h"
#include "ckpt/tied.h"
#include "ckpt/weights.h"
#include "fs/assemble_names.h"
#include "fs/events.h"
#include "fs/policy.h"
#include "fs/writeback.h"
#include "meta/assembled.h"
#include "meta/beside.h"
#include "meta/trash.h"

/* A save that goes over an older one is thought to be under way so long after its last write. */
#define FORMER_MIXED_NS (300 * CLOCK_NS_PER_SECOND)

/* -- whether what is there still holds ------------------------------------------------------------------
 */

struct former_look {
    struct filesystem *fs;
    bool (*stops)(struct filesystem *fs);
    struct namespace_input *at;
    size_t count, capacity;
    errint error;
};

static bool former_note_input(void *context, const char *path, size_t length, uint64_t ino, int64_t mtime)
{
    struct former_look *look = context;
    char *copy = grow_reserve(look->at, look->capacity, look->count + 1) ? strndup(path, length) : NULL;
    if (copy)
        look->at[look->count++] = (struct namespace_input){copy, {.ino = ino, .mtime = mtime}};
    else
        look->error = -ENOMEM;
    return !look->error;
}

static void former_look_release(struct former_look *look)
{
    for (size_t i = 0; i < look->count; i++)
        free(look->at[i].path);
    free(look->at);
}

#define cleanup_former_look __attribute__((cleanup(former_look_release)))

/* Whether the file still lies there, or (where `kept`) was removed and has no successor: 1, 0 or an error. */
static int former_input_holds(struct filesystem *fs, uint64_t directory, const struct namespace_input *input,
                              bool kept)
{
    struct meta_inode row;
    errint error = namespace_find(fs, directory, input->path, strlen(input->path), &row);
    if (!error)
        return row.ino == input->row.ino;
    if (error == -ENOENT)
        error = meta_get(fs->meta, input->row.ino, &row);
    if (error && error != -ENOENT)
        return error;
    return !kept ? 0 : error ? 1 : meta_trash_has(fs->meta, row.ino);
}

static bool former_note_asked(void *context, const char *path, size_t length, uint64_t ino, int64_t mtime)
{
    bool *asked = context;
    (void)path, (void)ino, (void)mtime;
    *asked = length == strlen(ASSEMBLE_ASKED_NAME);
    return false; /* it is the first one: they come in order */
}

int assemble_was_asked(struct filesystem *fs, uint64_t directory)
{
    bool asked = false;
    errint error = meta_assembled_inputs(fs->meta, directory, former_note_asked, &asked);
    return error ? error : asked;
}

/* Whether what others lend says still what it said of tied weights: 1, 0 or an error. */
static int former_config_holds(const struct former_look *look, uint64_t directory,
                               const struct namespace_input *input)
{
    cleanup_namespace_folder struct namespace_folder folder = {0};
    struct folder reader;
    bool untied;
    errint error = namespace_folder_open(look->fs, directory, look->stops, &folder, &reader);
    folder.lends = folder.looks = true;
    if (!error)
        error = tied_is_ruled_out(&reader, &untied);
    if (folder.busy)
        return -EBUSY; /* what is written now says it when it is whole */
    return error ? error : untied == (input->row.mtime == ASSEMBLE_UNTIED);
}

/* Whether all shards lie where they lay: 1, 0 or an error. */
static int former_has_shards(const struct former_look *look, uint64_t directory)
{
    int has = 1;
    for (size_t i = 0; i < look->count && has > 0; i++) {
        if (look->at[i].row.mtime > ASSEMBLE_UNTIED)
            has = former_input_holds(look->fs, directory, &look->at[i], false);
    }
    return has;
}

/* Whether a note of the directory's own still holds, or nothing could be made anew: 1, 0 or an error. */
static int former_note_holds(const struct former_look *look, uint64_t directory,
                             const struct namespace_input *note)
{
    if (strcmp(note->path, TIED_CONFIG_NAME) != 0)
        return 1;
    int has = former_has_shards(look, directory);
    return has <= 0 ? (has < 0 ? has : 1) : former_config_holds(look, directory, note);
}

/*
 * Whether the model outlives its shards. One that was made of a single file is that file in another form, and
 * what the root has would be kept for ever; but what has a name can be removed by it.
 */
static bool former_outlives(uint64_t directory, const struct meta_inode *shown,
                            const struct former_look *look)
{
    size_t shards = 0;
    if (shown->nlink > 0)
        return true;
    for (size_t i = 0; i < look->count; i++)
        shards += look->at[i].row.mtime > ASSEMBLE_UNTIED;
    return directory != META_ROOT_INO && shards > 1;
}

/* Whether shards were taken without an index, and one is there now that may say which are right: 1, 0 or an
 * error. */
static int former_has_new_index(struct filesystem *fs, uint64_t directory, const struct former_look *look)
{
    bool sharded = false;
    for (size_t i = 0; i < look->count; i++)
        sharded |= weights_is_shard(look->at[i].path, NULL, NULL, NULL);
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT && sharded; i++) {
        char name[WEIGHTS_NAME_MAX];
        struct meta_inode row;
        weights_index_name(&weights_kinds[i], name);
        errint error = meta_lookup(fs->meta, directory, name, strlen(name), &row);
        if (error && error != -ENOENT)
            return error;
        bool known = error != 0;
        for (size_t j = 0; j < look->count && !known; j++)
            known = strcmp(look->at[j].path, name) == 0;
        if (!known)
            return 1;
    }
    return 0;
}

/* Whether what is shown lies beside weights that have come since, or where it should not any more: 1, 0 or
 * an error. */
static int former_is_in_the_way(struct filesystem *fs, uint64_t directory, const struct meta_inode *shown)
{
    cleanup_namespace_folder struct namespace_folder folder = {0};
    cleanup_folder_listing struct folder_listing listing = {0};
    struct folder reader;
    enum policy_assembling assembling;
    if (shown->nlink == 0)
        return 0;
    errint error = policy_assemble(fs, directory, &assembling, NULL);
    if (error || assembling == POLICY_ASSEMBLING_VIEW)
        return error ? error : 1;
    error = namespace_folder_open(fs, directory, NULL, &folder, &reader);
    if (!error)
        error = folder_read(&reader, "", &listing);
    return error ? error : beside_has_weights(&listing);
}

int assemble_check(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs),
                   uint64_t *outdated)
{
    *outdated = 0;
    cleanup_former_look struct former_look look = {.fs = fs, .stops = stops};
    struct meta_inode row;
    errint error = meta_assembled_find(fs->meta, directory, NULL, 0, &row);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = meta_assembled_inputs(fs->meta, directory, former_note_input, &look);
    if (!error)
        error = look.error;
    int holds = error ? error : assemble_names_hold(fs, directory);
    int changed = holds > 0 ? former_has_new_index(fs, directory, &look) : 0;
    if (holds > 0 && !changed)
        changed = former_is_in_the_way(fs, directory, &row);
    if (changed)
        holds = changed < 0 ? changed : 0;
    bool outlives = holds > 0 && former_outlives(directory, &row, &look);
    bool note = false;
    for (size_t i = 0; holds > 0 && i < look.count; i++) {
        note = look.at[i].row.ino == directory;
        holds = note ? former_note_holds(&look, directory, &look.at[i])
                     : former_input_holds(fs, directory, &look.at[i],
                                          outlives || look.at[i].row.mtime == ASSEMBLE_NO_SHARD);
    }
    if (holds == 0 && note)
        *outdated = row.ino;
    if (holds || note)
        return holds;
    error = meta_assembled_withdraw(fs->meta, directory, NULL);
    writeback_kick(fs); /* that one removes what was withdrawn */
    if (!error)
        events_emit(fs, &(struct event){.kind = EVENT_WITHDRAWN,
                                        .ino = directory,
                                        .step = -1,
                                        .bytes = -1,
                                        .reason = "it is not what lies there any more"});
    return error;
}

/* -- saves over an older one ----------------------------------------------------------------------------
 */

/* Whether the shard is as it was when the directory's last model was made. */
static bool former_is_former(const struct former_look *former, const struct namespace_input *input)
{
    for (size_t i = 0; i < former->count; i++) {
        const struct namespace_input *before = &former->at[i];
        if (before->row.ino == input->row.ino && strcmp(before->path, input->path) == 0)
            return before->row.mtime == input->row.mtime;
    }
    return false;
}

errint assemble_check_former(const struct namespace_folder *folder, const struct model *model)
{
    cleanup_former_look struct former_look former = {.fs = folder->fs};
    int removed = meta_assembled_is_removed(folder->fs->meta, folder->directory);
    errint error = meta_assembled_inputs(folder->fs->meta, folder->directory, former_note_input, &former);
    if (error || former.error || removed < 0)
        return error ? error : former.error ? former.error : removed;
    size_t kept = 0, changed = 0;
    int64_t newest = 0;
    for (size_t i = 0; i < model->file_count && former.count > 0; i++) {
        const struct namespace_input *input = namespace_folder_find(folder, model->files[i].path);
        if (!input)
            continue;
        bool is_former = former_is_former(&former, input);
        kept += is_former;
        changed += !is_former;
        newest = input->row.mtime > newest ? input->row.mtime : newest;
    }
    if (removed && kept > 0 && changed == 0)
        return -EEXIST;
    return kept > 0 && changed > 0 && clock_file_time() - newest < FORMER_MIXED_NS ? -EAGAIN : 0;
}
