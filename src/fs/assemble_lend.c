/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration and tokenizer beside assembled models. */
#include "fs/assemble_lend.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ckpt/side_files.h"
#include "ckpt/tied.h"
#include "fs/assembler.h"
#include "fs/models.h"
#include "fs/namespace_folder.h"
#include "fs/policy.h"
#include "fs/writeback.h"
#include "meta/assembled.h"
#include "meta/lent.h"

/* More than a template has files, and names that are lent. */
enum { LEND_FILES_MAX = 128, LEND_CONFIG_MAX = 1 << 20 };

struct lend_list {
    char names[LEND_FILES_MAX][META_NAME_MAX + 1];
    struct meta_lent files[LEND_FILES_MAX];
    bool stays[LEND_FILES_MAX]; /* the clone itself: nobody lends it any more */
    size_t count;
};

/* No loader reads these, and what a trainer finds of them it adds to. */
static bool lend_is_needless(const char *name)
{
    static const char *const patterns[] = {"README.md", "LICENSE*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

static bool lend_note(void *context, const char *name, size_t length, uint64_t cookie,
                      const struct meta_inode *inode)
{
    (void)cookie;
    struct lend_list *list = context;
    char *copy = list->names[list->count];
    meta_copy_name(copy, name, length);
    if (lend_is_needless(copy))
        return true;
    list->stays[list->count] = inode->state & META_LENT;
    list->files[list->count++] = (struct meta_lent){copy, inode->ino};
    return list->count < LEND_FILES_MAX;
}

/* Trainer reads a configuration that it finds where it resumes, and takes any object for one. 1, 0 or an
 * error. */
static int lend_is_config(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs))
{
    cleanup_namespace_folder struct namespace_folder folder = {0};
    cleanup_free char *text = NULL;
    struct folder reader;
    size_t length;
    errint error = namespace_folder_open(fs, directory, stops, &folder, &reader);
    folder.lends = folder.looks = true;
    if (!error)
        error = folder_read_text(&reader, TIED_CONFIG_NAME, LEND_CONFIG_MAX, &text, &length);
    if (error)
        return error == -ENOENT || error == -EFBIG ? 0 : error;
    cJSON *config = cJSON_ParseWithLength(text, length);
    bool is = cJSON_IsObject(config);
    cJSON_Delete(config);
    return is;
}

/* Takes off what would be no configuration to whoever resumes. */
static errint lend_check_config(struct filesystem *fs, uint64_t directory, struct lend_list *list,
                                bool (*stops)(struct filesystem *fs))
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->stays[i] || strcmp(list->files[i].name, TIED_CONFIG_NAME) != 0)
            continue;
        int is = lend_is_config(fs, directory, stops);
        if (is == 0)
            list->files[i] = list->files[--list->count];
        return is < 0 && is != -EBUSY ? is : 0;
    }
    return 0;
}

static errint lend_to(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs))
{
    enum policy_assembling assembling;
    bool changed = false;
    errint error = policy_assemble(fs, directory, &assembling, NULL);
    if (error || assembling == POLICY_ASSEMBLING_OFF || assembling == POLICY_ASSEMBLING_VIEW)
        return error;
    cleanup_free struct lend_list *list = calloc(1, sizeof *list);
    if (!list)
        return -ENOMEM;
    error = models_list_lent_files(fs, directory, lend_note, list);
    if (!error)
        error = lend_check_config(fs, directory, list, stops);
    if (!error)
        error = meta_lent_set(fs->meta, directory, list->files, list->count, &changed);
    if (changed) {
        cleanup_free char *path = NULL;
        if (meta_path(fs->meta, directory, &path) < 0)
            path = NULL;
        log_info("lent path=\"%s\" files=%zu", path ? path : "?", list->count);
        writeback_kick(fs);                       /* that one removes what was withdrawn */
        assembler_touch_directory(fs, directory); /* for what the configuration says of the model */
    }
    return error;
}

/* -- those below ------------------------------------------------------------------------------------------
 */

/* What a directory has that it may lend, and the directories below it, each of which may lend to the others.
 */
struct lend_sight {
    struct ids below;
    uint64_t hash;
    errint error;
};

static void lend_mix(struct lend_sight *sight, const struct meta_inode *file)
{
    const uint64_t parts[] = {file->ino, (uint64_t)file->mtime, (uint64_t)file->size};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        sight->hash = (sight->hash ^ parts[i]) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool lend_see(void *context, const char *name, size_t length, uint64_t cookie,
                     const struct meta_inode *inode)
{
    (void)cookie;
    struct lend_sight *sight = context;
    char text[META_NAME_MAX + 1];
    meta_copy_name(text, name, length);
    if (S_ISDIR(inode->mode))
        sight->error = ids_append(&sight->below, inode->ino);
    else if (side_file_is(text) && !(inode->state & META_LENT))
        lend_mix(sight, inode);
    return !sight->error;
}

/* Of the directories below, those with a configuration lend. */
static errint lend_look(struct filesystem *fs, uint64_t directory, uint64_t *out)
{
    struct lend_sight sight = {.hash = directory};
    errint error = meta_list(fs->meta, directory, 0, lend_see, &sight);
    if (!error)
        error = sight.error;
    for (size_t i = 0; i < sight.below.count && !error; i++) {
        struct meta_inode row;
        error = meta_lookup(fs->meta, sight.below.at[i], TIED_CONFIG_NAME, strlen(TIED_CONFIG_NAME), &row);
        if (!error && !(row.state & META_LENT))
            lend_mix(&sight, &row);
        error = error == -ENOENT ? 0 : error;
    }
    ids_release(&sight.below);
    *out = sight.hash;
    return error;
}

static bool lend_knows(const struct assemble_lenders *lenders, uint64_t directory, uint64_t lends)
{
    for (size_t i = 0; i < sizeof lenders->at / sizeof *lenders->at; i++) {
        if (lenders->at[i].directory == directory)
            return lenders->at[i].lends == lends;
    }
    return false;
}

static void lend_remember(struct assemble_lenders *lenders, uint64_t directory, uint64_t lends)
{
    const size_t count = sizeof lenders->at / sizeof *lenders->at;
    size_t i = 0;
    while (i < count && lenders->at[i].directory != directory)
        i++;
    if (i == count)
        i = lenders->next++ % count;
    lenders->at[i].directory = directory;
    lenders->at[i].lends = lends;
}

static errint lend_below(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs))
{
    cleanup_ids struct ids borrowers = {0};
    bool busy = false;
    errint error = meta_lent_find_borrowers(fs->meta, directory, &borrowers);
    for (size_t i = 0; i < borrowers.count && !error; i++) {
        error = stops(fs) ? -ECANCELED : lend_to(fs, borrowers.at[i], stops);
        busy |= error == -EBUSY;
        error = error == -EBUSY || error == -ENOENT ? 0 : error;
    }
    return error ? error : busy ? -EBUSY : 0;
}

errint assemble_lend_around(struct filesystem *fs, struct assemble_lenders *lenders, uint64_t directory,
                            bool (*stops)(struct filesystem *fs))
{
    struct meta_inode row;
    uint64_t lends;
    if (atomic_load(&fs->disk_full))
        return 0; /* the next look adds it */
    errint error = meta_assembled_find(fs->meta, directory, NULL, 0, &row);
    if (!error && row.nlink > 0)
        error = lend_to(fs, directory, stops);
    if (error && error != -ENOENT)
        return error;
    error = lend_look(fs, directory, &lends);
    if (error || lend_knows(lenders, directory, lends))
        return error == -ENOENT || error == -ENOTDIR ? 0 : error;
    error = lend_below(fs, directory, stops);
    if (!error)
        lend_remember(lenders, directory, lends);
    return error;
}
