/* SPDX-License-Identifier: Apache-2.0 */
/* Which files the view of a checkpoint shows. */
#include "fs/models.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/side_files.h"
#include "fs/assemble_names.h"
#include "meta/assembled.h"
#include "meta/template.h"

/* Neighbours that are looked through for what a checkpoint lacks, the newest first. */
enum { MODELS_NEIGHBOURS_MAX = 4096 };
/* Files of a template (CONTROL_TEMPLATE_FILES). */
enum { MODELS_EXTRA_MAX = 96 };

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

static bool models_is_side_file(const char *name, size_t length)
{
    char text[META_NAME_MAX + 1];
    meta_copy_name(text, name, length);
    return side_file_is(text);
}

/* -- what the directory is --------------------------------------------------------------------------------
 */

struct models_view {
    uint64_t directory;
    bool checkpoint;
    bool adapter;
};

/* A file that is not lent to it: 1, 0, or an error. */
static int models_has_own(struct filesystem *fs, uint64_t directory, const char *name)
{
    struct meta_inode row;
    errint error = meta_lookup(fs->meta, directory, name, strlen(name), &row);
    return error ? (error == -ENOENT ? 0 : error) : S_ISREG(row.mode) && !(row.state & META_LENT);
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
    struct {
        uint64_t directory;
        enum models_source source;
    } at[3];
    size_t count;
    uint64_t template; /* the hidden directory of one of them; 0: none */
};

static void models_add_lender(struct models_lenders *lenders, uint64_t directory, enum models_source source)
{
    lenders->at[lenders->count].directory = directory;
    lenders->at[lenders->count++].source = source;
}

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

static errint models_add_parent(struct filesystem *fs, const struct models_view *view,
                                const struct meta_inode *borrower, struct models_lenders *lenders)
{
    struct meta_inode parent;
    uint64_t above, neighbour;
    errint error = meta_parent(fs->meta, view->directory, &above);
    if (!error)
        error = meta_get(fs->meta, above, &parent);
    if (error)
        return error;
    if (models_may_lend(&parent, borrower))
        models_add_lender(lenders, above, MODELS_FROM_ABOVE);
    error = models_find_neighbour(fs, view, above, borrower, &neighbour);
    if (!error && neighbour)
        models_add_lender(lenders, neighbour, MODELS_FROM_NEIGHBOUR);
    return error;
}

/*
 * A run's template is its owner's. Whoever comes to a checkpoint of his comes through the run, and what the
 * files' own modes let him read is what he could read there.
 */
static errint models_add_template(struct filesystem *fs, const struct models_view *view,
                                  const struct meta_inode *borrower, struct models_lenders *lenders)
{
    struct meta_template_found found;
    struct meta_inode run;
    errint error = meta_template_find(fs->meta, view->directory, &found);
    if (!error)
        error = meta_get(fs->meta, found.run, &run);
    if (error)
        return error == -ENOENT ? 0 : error;
    if (run.uid == borrower->uid) {
        models_add_lender(lenders, found.hidden, MODELS_FROM_TEMPLATE);
        lenders->template = found.hidden;
    }
    return 0;
}

static errint models_find_lenders(struct filesystem *fs, const struct models_view *view,
                                  struct models_lenders *lenders)
{
    struct meta_inode borrower;
    *lenders = (struct models_lenders){0};
    errint error = meta_get(fs->meta, view->directory, &borrower);
    if (!error && view->directory != META_ROOT_INO)
        error = models_add_parent(fs, view, &borrower, lenders);
    return error ? error : models_add_template(fs, view, &borrower, lenders);
}

/* The file that somebody lends under that name; -ENOENT. `source` (may be NULL) tells who. */
static errint models_borrow(struct filesystem *fs, const struct models_view *view,
                            const struct models_lenders *lenders, const char *name, struct meta_inode *out,
                            enum models_source *source)
{
    struct meta_inode directory;
    for (size_t i = 0; i < lenders->count; i++) {
        errint error = meta_lookup(fs->meta, lenders->at[i].directory, name, strlen(name), out);
        if (source)
            *source = lenders->at[i].source;
        if (!error)
            error = meta_get(fs->meta, view->directory, &directory);
        if (error && error != -ENOENT)
            return error;
        if (!error && S_ISREG(out->mode) && out->uid == directory.uid && !(out->state & META_LENT))
            return 0;
    }
    return -ENOENT;
}

static bool models_is_lent(const struct models_view *view, size_t i)
{
    return models_lent[i].beside == MODELS_ANY || (models_lent[i].beside == MODELS_ADAPTER) == view->adapter;
}

/* The index of a name that everybody lends; MODELS_LENT_COUNT: only a template may. */
static size_t models_lent_index(const char *name, size_t length)
{
    size_t i = 0;
    while (i < MODELS_LENT_COUNT && !models_equal(name, length, models_lent[i].name))
        i++;
    return i;
}

static errint models_find_borrowed(struct filesystem *fs, const struct models_view *view, const char *name,
                                   size_t length, struct meta_inode *out)
{
    struct models_lenders lenders;
    size_t i = models_lent_index(name, length);
    if (i < MODELS_LENT_COUNT ? !models_is_lent(view, i) : !models_is_side_file(name, length))
        return -ENOENT;
    errint error = models_find_lenders(fs, view, &lenders);
    if (error || i < MODELS_LENT_COUNT)
        return error ? error : models_borrow(fs, view, &lenders, models_lent[i].name, out, NULL);
    error = lenders.template ? meta_lookup(fs->meta, lenders.template, name, length, out) : -ENOENT;
    return error || S_ISREG(out->mode) ? error : -ENOENT;
}

/* A clone of what somebody lends, who may have a newer one now. What only a template lends goes with it. */
static bool models_is_stand_in(const struct meta_inode *row, const char *name, size_t length)
{
    return (row->state & META_LENT) && models_lent_index(name, length) < MODELS_LENT_COUNT;
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
    if (!error && models_is_stand_in(out, name, length)) {
        const struct meta_inode clone = *out;
        error = models_find_borrowed(fs, &view, name, length, out);
        *out = error == -ENOENT ? clone : *out;
        return error == -ENOENT ? 0 : error;
    }
    if (!error) {
        bool shown = models_is_model(name, length) || models_is_side_file(name, length);
        return S_ISREG(out->mode) && shown ? 0 : -ENOENT;
    }
    if (error == -ENOENT)
        error = meta_assembled_find(fs->meta, directory, name, length, out);
    return error == -ENOENT ? models_find_borrowed(fs, &view, name, length, out) : error;
}

errint models_find_source(struct filesystem *fs, uint64_t directory, const char *name,
                          enum models_source *out)
{
    struct models_view view;
    struct models_lenders lenders;
    struct meta_inode row;
    *out = MODELS_FROM_DIRECTORY;
    errint error = models_look(fs, directory, &view);
    view.adapter |= strcmp(name, "adapter_config.json") == 0;
    int own = error ? error : models_has_own(fs, directory, name);
    if (own)
        return own < 0 ? own : 0;
    error = models_find_lenders(fs, &view, &lenders);
    if (!error)
        error = models_borrow(fs, &view, &lenders, name, &row, out);
    if (error == -ENOENT)
        *out = MODELS_FROM_NOBODY;
    return error == -ENOENT ? 0 : error;
}

typedef bool models_entry(void *context, const char *name, size_t length, uint64_t cookie,
                          const struct meta_inode *inode);

/* Hands on what a listing finds, until the receiver has enough. */
struct models_list {
    models_entry *entry;
    void *context;
    bool checkpoint;
    bool lends; /* what the directory has a clone of, too */
    bool enough;
};

static bool models_list_name(void *context, const char *name, size_t length, uint64_t cookie,
                             const struct meta_inode *inode)
{
    struct models_list *list = context;
    bool file = list->checkpoint && S_ISREG(inode->mode) && !models_is_stand_in(inode, name, length) &&
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

/* What of a template is lent besides: collected first, since a listing may not ask for more. */
struct models_extra {
    struct {
        char name[META_NAME_MAX + 1];
        uint64_t cookie;
        struct meta_inode row;
    } at[MODELS_EXTRA_MAX];
    size_t count;
};

static bool models_note_extra(void *context, const char *name, size_t length, uint64_t cookie,
                              const struct meta_inode *inode)
{
    struct models_extra *extra = context;
    if (models_lent_index(name, length) < MODELS_LENT_COUNT || !S_ISREG(inode->mode))
        return true;
    meta_copy_name(extra->at[extra->count].name, name, length);
    extra->at[extra->count].cookie = cookie;
    extra->at[extra->count].row = *inode;
    return ++extra->count < MODELS_EXTRA_MAX;
}

static errint models_list_template(struct filesystem *fs, const struct models_view *view,
                                   const struct models_lenders *lenders, uint64_t after,
                                   struct models_list *list)
{
    if (!lenders->template)
        return 0;
    cleanup_free struct models_extra *extra = calloc(1, sizeof *extra);
    if (!extra)
        return -ENOMEM;
    uint64_t shown = after > MODELS_COOKIE_TEMPLATE ? after - MODELS_COOKIE_TEMPLATE : 0;
    errint error = meta_list(fs->meta, lenders->template, shown, models_note_extra, extra);
    for (size_t i = 0; i < extra->count && !error && !list->enough; i++) {
        struct meta_inode own;
        const char *name = extra->at[i].name;
        error = meta_lookup(fs->meta, view->directory, name, strlen(name), &own);
        if (error == -ENOENT || (!error && list->lends && (own.state & META_LENT))) {
            error = 0;
            list->enough = !list->entry(list->context, name, strlen(name),
                                        MODELS_COOKIE_TEMPLATE + extra->at[i].cookie, &extra->at[i].row);
        }
    }
    return error == -ENOENT ? 0 : error;
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
        struct meta_inode own;
        errint found = meta_lookup(fs->meta, view->directory, name, strlen(name), &own);
        if (found != -ENOENT && (found || !(own.state & META_LENT))) {
            error = found;
            continue;
        }
        error = models_borrow(fs, view, &lenders, name, &row, NULL);
        if (error == -ENOENT && !found) {
            row = own; /* who lent it has it no more */
            error = 0;
        }
        if (!error)
            list->enough = !list->entry(list->context, name, strlen(name), cookie, &row);
        error = error == -ENOENT ? 0 : error;
    }
    return error || list->enough ? error : models_list_template(fs, view, &lenders, after, list);
}

errint models_list(struct filesystem *fs, uint64_t directory, uint64_t after, models_entry *entry,
                   void *context)
{
    struct models_view view;
    errint error = models_look(fs, directory, &view);
    struct models_list list = {entry, context, view.checkpoint, false, false};
    if (!error)
        error = meta_list(fs->meta, directory, after, models_list_name, &list);
    if (error || !view.checkpoint || list.enough)
        return error;
    error = models_list_assembled(fs, directory, after, &list);
    return error || list.enough ? error : models_list_lent(fs, &view, after, &list);
}

errint models_list_lent_files(struct filesystem *fs, uint64_t directory, models_entry *entry, void *context)
{
    struct models_view view;
    struct models_list list = {.entry = entry, .context = context, .checkpoint = true, .lends = true};
    errint error = models_look(fs, directory, &view);
    return error || !view.checkpoint ? error : models_list_lent(fs, &view, MODELS_COOKIE_ASSEMBLED, &list);
}

errint models_find_lent(struct filesystem *fs, uint64_t directory, const char *name, struct meta_inode *out)
{
    struct models_view view;
    errint error = models_look(fs, directory, &view);
    return error ? error : models_find_borrowed(fs, &view, name, strlen(name), out);
}
