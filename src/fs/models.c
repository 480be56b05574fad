/* SPDX-License-Identifier: Apache-2.0 */
/* Which files the view of a checkpoint shows. */
#include "fs/models.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/side_files.h"
#include "fs/assemble_names.h"
#include "meta/assembled.h"

/* Neighbours that are looked through for what a checkpoint lacks, the newest first. */
enum { MODELS_NEIGHBOURS_MAX = 4096 };

static const char *const models_whole[] = {"model.safetensors", "adapter_model.safetensors"};

/* What is lent: loaders look for these names. `adapter`: beside adapters alone, or never beside them. */
static const struct {
    const char *name;
    enum { MODELS_ANY, MODELS_FULL, MODELS_ADAPTER } beside;
} models_lent[] = {
    {"config.json", MODELS_FULL},
    {"generation_config.json", MODELS_FULL},
    {"adapter_config.json", MODELS_ADAPTER},
    {"tokenizer.json", MODELS_ANY},
    {"tokenizer_config.json", MODELS_ANY},
    {"special_tokens_map.json", MODELS_ANY},
    {"added_tokens.json", MODELS_ANY},
    {"chat_template.jinja", MODELS_ANY},
    {"chat_template.json", MODELS_ANY},
    {"vocab.json", MODELS_ANY},
    {"vocab.txt", MODELS_ANY},
    {"merges.txt", MODELS_ANY},
    {"tokenizer.model", MODELS_ANY},
    {"spiece.model", MODELS_ANY},
    {"sentencepiece.bpe.model", MODELS_ANY},
    {"preprocessor_config.json", MODELS_ANY},
    {"processor_config.json", MODELS_ANY},
    {"image_processor_config.json", MODELS_ANY},
    {"video_preprocessor_config.json", MODELS_ANY},
};
enum { MODELS_LENT_COUNT = sizeof models_lent / sizeof *models_lent };

/* -- names ------------------------------------------------------------------------------------------------
 */

static bool models_equal(const char *name, size_t length, const char *other)
{
    return length == strlen(other) && memcmp(name, other, length) == 0;
}

bool models_is_model(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof models_whole / sizeof *models_whole; i++) {
        if (models_equal(name, length, models_whole[i]))
            return true;
    }
    return false;
}

/* Names come from the namespace without a NUL behind them. */
static bool models_is_side_file(const char *name, size_t length)
{
    char text[META_NAME_MAX + 1];
    memcpy(text, name, length);
    text[length] = '\0';
    return side_file_is(text);
}

/* -- what the directory is --------------------------------------------------------------------------------
 */

struct models_view {
    uint64_t directory;
    bool checkpoint;
    bool adapter;
};

/* 1, 0, or an error. */
static int models_has_own(struct filesystem *fs, uint64_t directory, const char *name)
{
    struct meta_inode row;
    errint error = meta_lookup(fs->meta, directory, name, strlen(name), &row);
    return error ? (error == -ENOENT ? 0 : error) : S_ISREG(row.mode);
}

static errint models_look(struct filesystem *fs, uint64_t directory, struct models_view *view)
{
    *view = (struct models_view){.directory = directory};
    for (size_t i = 0; i < sizeof models_whole / sizeof *models_whole; i++) {
        struct meta_inode row;
        int found = models_has_own(fs, directory, models_whole[i]);
        if (found == 0) {
            errint error =
                meta_assembled_find(fs->meta, directory, models_whole[i], strlen(models_whole[i]), &row);
            found = error ? (error == -ENOENT ? 0 : error) : 1;
        }
        if (found < 0)
            return found;
        if (found) {
            view->checkpoint = true;
            view->adapter = i == 1;
            return 0;
        }
    }
    return 0;
}

/* -- lending ----------------------------------------------------------------------------------------------
 */

/* Directories that lend, in the order in which they are asked. */
struct models_lenders {
    uint64_t at[2];
    size_t count;
};

static bool models_may_lend(const struct meta_inode *lender, const struct meta_inode *borrower)
{
    uint32_t searched = borrower->mode & 0011;
    return lender->uid == borrower->uid && (lender->mode & searched) == searched &&
           (lender->gid == borrower->gid || !(searched & 0010));
}

struct models_neighbour {
    uint64_t ino;
    int64_t mtime;
};

struct models_neighbours {
    const struct meta_inode *borrower;
    struct models_neighbour at[MODELS_NEIGHBOURS_MAX];
    size_t count;
};

static bool models_note_neighbour(void *context, const char *name, size_t length, uint64_t cookie,
                                  const struct meta_inode *inode)
{
    (void)name, (void)length, (void)cookie;
    struct models_neighbours *all = context;
    if (S_ISDIR(inode->mode) && inode->ino != all->borrower->ino && models_may_lend(inode, all->borrower))
        all->at[all->count++] = (struct models_neighbour){inode->ino, inode->mtime};
    return all->count < MODELS_NEIGHBOURS_MAX;
}

static int models_compare_neighbours(const void *a, const void *b)
{
    const struct models_neighbour *left = a, *right = b;
    return (left->mtime < right->mtime) - (left->mtime > right->mtime);
}

/* The newest neighbour that has a configuration, or 0. */
static errint models_find_neighbour(struct filesystem *fs, const struct models_view *view, uint64_t parent,
                                    const struct meta_inode *borrower, uint64_t *out)
{
    *out = 0;
    cleanup_free struct models_neighbours *all = malloc(sizeof *all);
    if (!all)
        return -ENOMEM;
    all->borrower = borrower;
    all->count = 0;
    errint error = meta_list(fs->meta, parent, 0, models_note_neighbour, all);
    if (error)
        return error;
    qsort(all->at, all->count, sizeof *all->at, models_compare_neighbours);
    for (size_t i = 0; i < all->count; i++) {
        int found = models_has_own(fs, all->at[i].ino, view->adapter ? "adapter_config.json" : "config.json");
        if (found < 0)
            return found;
        if (found) {
            *out = all->at[i].ino;
            return 0;
        }
    }
    return 0;
}

static errint models_find_lenders(struct filesystem *fs, const struct models_view *view,
                                  struct models_lenders *lenders)
{
    struct meta_inode borrower, parent;
    uint64_t above, neighbour;
    *lenders = (struct models_lenders){0};
    if (view->directory == META_ROOT_INO)
        return 0;
    errint error = meta_get(fs->meta, view->directory, &borrower);
    if (!error)
        error = meta_parent(fs->meta, view->directory, &above);
    if (!error)
        error = meta_get(fs->meta, above, &parent);
    if (error)
        return error;
    if (models_may_lend(&parent, &borrower))
        lenders->at[lenders->count++] = above;
    error = models_find_neighbour(fs, view, above, &borrower, &neighbour);
    if (!error && neighbour)
        lenders->at[lenders->count++] = neighbour;
    return error;
}

/* The file that somebody lends under that name; -ENOENT. */
static errint models_borrow(struct filesystem *fs, const struct models_view *view,
                            const struct models_lenders *lenders, const char *name, struct meta_inode *out)
{
    struct meta_inode directory;
    for (size_t i = 0; i < lenders->count; i++) {
        errint error = meta_lookup(fs->meta, lenders->at[i], name, strlen(name), out);
        if (!error)
            error = meta_get(fs->meta, view->directory, &directory);
        if (error && error != -ENOENT)
            return error;
        if (!error && S_ISREG(out->mode) && out->uid == directory.uid)
            return 0;
    }
    return -ENOENT;
}

static bool models_is_lent(const struct models_view *view, size_t i)
{
    return models_lent[i].beside == MODELS_ANY || (models_lent[i].beside == MODELS_ADAPTER) == view->adapter;
}

static errint models_find_lent(struct filesystem *fs, const struct models_view *view, const char *name,
                               size_t length, struct meta_inode *out)
{
    struct models_lenders lenders;
    for (size_t i = 0; i < MODELS_LENT_COUNT; i++) {
        if (!models_is_lent(view, i) || !models_equal(name, length, models_lent[i].name))
            continue;
        errint error = models_find_lenders(fs, view, &lenders);
        return error ? error : models_borrow(fs, view, &lenders, models_lent[i].name, out);
    }
    return -ENOENT;
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

errint models_find(struct filesystem *fs, uint64_t directory, const char *name, size_t length,
                   struct meta_inode *out)
{
    struct models_view view;
    errint error = models_look(fs, directory, &view);
    if (error || !view.checkpoint)
        return error ? error : -ENOENT;
    error = meta_lookup(fs->meta, directory, name, length, out);
    if (!error) {
        bool shown = models_is_model(name, length) || models_is_side_file(name, length);
        return S_ISREG(out->mode) && shown ? 0 : -ENOENT;
    }
    if (error == -ENOENT)
        error = meta_assembled_find(fs->meta, directory, name, length, out);
    return error == -ENOENT ? models_find_lent(fs, &view, name, length, out) : error;
}

typedef bool models_entry(void *context, const char *name, size_t length, uint64_t cookie,
                          const struct meta_inode *inode);

/* Hands on what a listing finds, until the receiver has enough. */
struct models_list {
    models_entry *entry;
    void *context;
    bool checkpoint;
    bool enough;
};

static bool models_list_name(void *context, const char *name, size_t length, uint64_t cookie,
                             const struct meta_inode *inode)
{
    struct models_list *list = context;
    bool file = list->checkpoint && S_ISREG(inode->mode) &&
                (models_is_model(name, length) || models_is_side_file(name, length));
    if (S_ISDIR(inode->mode) || file)
        list->enough = !list->entry(list->context, name, length, cookie, inode);
    return !list->enough;
}

/* What has no name in the directory; each is looked up alone, since there are few. */
static errint models_list_assembled(struct filesystem *fs, uint64_t directory, uint64_t after,
                                    struct models_list *list)
{
    static const char *const names[] = {"model.safetensors", "adapter_model.safetensors",
                                        ASSEMBLE_TORCH_NAME};
    for (size_t i = 0; i < sizeof names / sizeof *names && !list->enough; i++) {
        struct meta_inode row;
        uint64_t cookie = MODELS_COOKIE_ASSEMBLED + i;
        if (after >= cookie)
            continue;
        int own = models_has_own(fs, directory, names[i]);
        size_t length = strlen(names[i]);
        errint error = own < 0 ? own
                       : own   ? -ENOENT
                               : meta_assembled_find(fs->meta, directory, names[i], length, &row);
        if (error && error != -ENOENT)
            return error;
        if (!error)
            list->enough = !list->entry(list->context, names[i], length, cookie, &row);
    }
    return 0;
}

static errint models_list_lent(struct filesystem *fs, const struct models_view *view, uint64_t after,
                               struct models_list *list)
{
    struct models_lenders lenders;
    errint error = models_find_lenders(fs, view, &lenders);
    for (size_t i = 0; i < MODELS_LENT_COUNT && !error && !list->enough; i++) {
        struct meta_inode row;
        const char *name = models_lent[i].name;
        uint64_t cookie = MODELS_COOKIE_LENT + i;
        if (after >= cookie || !models_is_lent(view, i))
            continue;
        error = meta_lookup(fs->meta, view->directory, name, strlen(name), &row);
        if (error != -ENOENT)
            continue;
        error = models_borrow(fs, view, &lenders, name, &row);
        if (!error)
            list->enough = !list->entry(list->context, name, strlen(name), cookie, &row);
        error = error == -ENOENT ? 0 : error;
    }
    return error;
}

errint models_list(struct filesystem *fs, uint64_t directory, uint64_t after, models_entry *entry,
                   void *context)
{
    struct models_view view;
    errint error = models_look(fs, directory, &view);
    struct models_list list = {entry, context, view.checkpoint, false};
    if (!error)
        error = meta_list(fs->meta, directory, after, models_list_name, &list);
    if (error || !view.checkpoint || list.enough)
        return error;
    error = models_list_assembled(fs, directory, after, &list);
    return error || list.enough ? error : models_list_lent(fs, &view, after, &list);
}
