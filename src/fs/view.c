/* SPDX-License-Identifier: Apache-2.0 */
/* The directory .ckptfs: what its inodes are, and finding them. */
#include "fs/view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "fs/handle.h"
#include "fs/models.h"
#include "fs/view_events.h"
#include "fs/view_link.h"
#include "fs/view_links.h"
#include "meta/hidden.h"

/* Each text has one from the last on. */
enum {
    VIEW_COOKIE_MODELS = META_COOKIE_FIRST,
    VIEW_COOKIE_LATEST,
    VIEW_COOKIE_BEST,
    VIEW_COOKIE_TORN,
    VIEW_COOKIE_EVENTS,
    VIEW_COOKIE_TRASH,
    VIEW_COOKIE_TEXTS = META_COOKIE_FIRST + 64
};

#define VIEW_MODELS_NAME "models"
#define VIEW_LATEST_NAME "latest"
#define VIEW_BEST_NAME   "best"
#define VIEW_TORN_NAME   "torn"
#define VIEW_EVENTS_NAME "events"
#define VIEW_TRASH_NAME  "trash"

bool view_is_name(uint64_t parent, const char *name)
{
    return parent == META_ROOT_INO && strcmp(name, FS_CONTROL_NAME) == 0;
}

/* -- attributes -------------------------------------------------------------------------------------------
 */

/* What exists in the view alone: the root's owner has it. */
static errint view_fixed_row(struct filesystem *fs, enum view_kind kind, struct meta_inode *row)
{
    struct meta_inode root;
    errint error = meta_get(fs->meta, META_ROOT_INO, &root);
    if (error)
        return error;
    int64_t time = fs->state->mounted_at;
    *row = (struct meta_inode){
        .ino = 0,
        .mode = kind == VIEW_STATUS || kind == VIEW_EVENTS ? S_IFREG | 0444 : S_IFDIR | 0555,
        .nlink = kind == VIEW_STATUS    ? 1
                 : kind == VIEW_CONTROL ? 3
                                        : 2,
        .uid = root.uid,
        .gid = root.gid,
        .atime = time,
        .mtime = time,
        .ctime = time,
    };
    return 0;
}

static bool view_is_trash(uint64_t number)
{
    enum view_kind kind = view_kind(number);
    return kind == VIEW_TRASH || kind == VIEW_ENTRY || kind == VIEW_PART;
}

static bool view_is_link(enum view_kind kind)
{
    return kind == VIEW_LATEST_LINK || kind == VIEW_BEST_LINK;
}

static bool view_is_directory(enum view_kind kind)
{
    return kind == VIEW_MODELS || kind == VIEW_LATEST || kind == VIEW_BEST || kind == VIEW_TORN;
}

static uint64_t view_number_of_torn(struct filesystem *fs)
{
    uint64_t directory;
    return view_number(VIEW_TORN,
                       meta_hidden_find(fs->meta, META_HIDDEN_TORN, &directory) == 0 ? directory : 0);
}

/* The hidden directory is nobody's; what is shown of it stands for the mount's root. */
static errint view_as_root(struct filesystem *fs, struct meta_inode *row)
{
    struct meta_inode root;
    errint error = meta_get(fs->meta, META_ROOT_INO, &root);
    if (error)
        return error;
    row->mode = root.mode;
    row->uid = root.uid;
    row->gid = root.gid;
    return 0;
}

/* The row that a view's inode shows. -ENOENT when what it stands for is gone. */
static errint view_row(struct filesystem *fs, uint64_t number, struct meta_inode *row)
{
    enum view_kind kind = view_kind(number);
    if (kind == VIEW_STATUS && !view_text_name(view_text_of(number)))
        return -ENOENT;
    if (kind == VIEW_CONTROL || kind == VIEW_STATUS || kind == VIEW_EVENTS ||
        number == view_number(VIEW_TORN, 0))
        return view_fixed_row(fs, kind, row);
    if (view_is_link(kind))
        return view_link_row(fs, number, row);
    errint error = meta_get(fs->meta, view_target(number), row);
    if (!error && number == view_number_of_torn(fs))
        error = view_as_root(fs, row);
    bool fits = !error && ((view_is_directory(kind) || view_is_trash(number))
                               ? S_ISDIR(row->mode)
                               : kind == VIEW_FILE && !S_ISDIR(row->mode));
    return error || fits ? error : -ENOENT;
}

static void view_fill_stat(struct filesystem *fs, uint64_t number, const struct meta_inode *row,
                           struct stat *status)
{
    node_stat_row(fs, row, status);
    status->st_ino = number;
    /* Into what was removed only its owner may look, whoever might before. */
    if (view_kind(number) == VIEW_ENTRY)
        status->st_mode &= ~(mode_t)07277;
    /* Its owner may remove what was torn. */
    else if (S_ISDIR(row->mode))
        status->st_mode &= view_kind(number) == VIEW_TORN ? ~(mode_t)07022 : ~(mode_t)07222;
    else
        status->st_nlink = 1;
}

/*
 * What a view shows changes without the kernel's knowledge, as the inodes that it stands for are others to
 * it: it asks each time. Only what never changes is kept.
 */
static double view_keeps(uint64_t number, const struct meta_inode *row)
{
    bool constant = view_kind(number) == VIEW_FILE && (row->state & META_ASSEMBLED);
    return constant ? FS_TIMEOUT_SECONDS : 0;
}

static void view_fill_entry(struct filesystem *fs, uint64_t number, const struct meta_inode *row,
                            struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){.ino = number, .attr_timeout = view_keeps(number, row)};
    view_fill_stat(fs, number, row, &entry->attr);
}

void view_getattr(fuse_req_t request, uint64_t ino)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    struct stat status;
    errint error = view_row(fs, ino, &row);
    if (error) {
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
        return;
    }
    view_fill_stat(fs, ino, &row, &status);
    fuse_reply_attr(request, &status, view_keeps(ino, &row));
}

/* -- looking up -------------------------------------------------------------------------------------------
 */

static uint64_t view_number_in_torn(const struct meta_inode *row)
{
    if (!S_ISDIR(row->mode) && !S_ISREG(row->mode))
        return 0;
    return view_number(S_ISDIR(row->mode) ? VIEW_TORN : VIEW_FILE, row->ino);
}

static errint view_find_in_torn(struct filesystem *fs, uint64_t directory, const char *name, uint64_t *number,
                                struct meta_inode *row)
{
    errint error = directory ? meta_lookup(fs->meta, directory, name, strlen(name), row) : -ENOENT;
    *number = error ? 0 : view_number_in_torn(row);
    return error || *number ? error : -ENOENT;
}

static errint view_find_in_control(struct filesystem *fs, const char *name, uint64_t *number,
                                   struct meta_inode *row)
{
    uint64_t which = 0;
    while (view_text_name(which) && strcmp(name, view_text_name(which)) != 0)
        which++;
    if (view_text_name(which))
        *number = view_number(VIEW_STATUS, which);
    else if (strcmp(name, VIEW_EVENTS_NAME) == 0)
        *number = view_number(VIEW_EVENTS, 0);
    else if (strcmp(name, VIEW_MODELS_NAME) == 0)
        *number = view_number(VIEW_MODELS, META_ROOT_INO);
    else if (strcmp(name, VIEW_LATEST_NAME) == 0)
        *number = view_link_find(fs, VIEW_LATEST, META_ROOT_INO);
    else if (strcmp(name, VIEW_BEST_NAME) == 0)
        *number = view_link_find(fs, VIEW_BEST, META_ROOT_INO);
    else if (strcmp(name, VIEW_TORN_NAME) == 0)
        *number = view_number_of_torn(fs);
    else if (strcmp(name, VIEW_TRASH_NAME) == 0)
        *number = view_number(VIEW_TRASH, META_ROOT_INO);
    else
        return -ENOENT;
    return view_row(fs, *number, row);
}

static errint view_find_in_links(struct filesystem *fs, uint64_t directory, const char *name,
                                 uint64_t *number, struct meta_inode *row)
{
    errint error = meta_lookup(fs->meta, view_target(directory), name, strlen(name), row);
    if (error)
        return error == -ENOTDIR ? -ENOENT : error;
    *number = view_link_find(fs, view_kind(directory), row->ino);
    return *number ? view_row(fs, *number, row) : -ENOENT;
}

static uint64_t view_number_of_row(const struct meta_inode *row)
{
    return view_number(S_ISDIR(row->mode) ? VIEW_MODELS : VIEW_FILE, row->ino);
}

static errint view_find_in_models(struct filesystem *fs, uint64_t directory, const char *name,
                                  uint64_t *number, struct meta_inode *row)
{
    size_t length = strlen(name);
    errint error = meta_lookup(fs->meta, directory, name, length, row);
    if (error && error != -ENOENT)
        return error;
    if (error || !S_ISDIR(row->mode))
        error = models_find(fs, directory, name, length, row);
    if (!error)
        *number = view_number_of_row(row);
    return error || *number ? error : -ENOENT;
}

void view_lookup(fuse_req_t request, uint64_t parent, const char *name)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    uint64_t number = view_number(VIEW_CONTROL, 0);
    errint error = -ENOENT;
    if (!view_has(parent))
        error = view_row(fs, number, &row);
    else if (strlen(name) > META_NAME_MAX)
        error = -ENAMETOOLONG;
    else if (view_kind(parent) == VIEW_CONTROL)
        error = view_find_in_control(fs, name, &number, &row);
    else if (view_kind(parent) == VIEW_MODELS)
        error = view_find_in_models(fs, view_target(parent), name, &number, &row);
    else if (view_kind(parent) == VIEW_LATEST || view_kind(parent) == VIEW_BEST)
        error = view_find_in_links(fs, parent, name, &number, &row);
    else if (view_kind(parent) == VIEW_TORN)
        error = view_find_in_torn(fs, view_target(parent), name, &number, &row);
    else if (view_is_trash(parent))
        error = view_trash_find(request, parent, name, &number, &row);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    struct fuse_entry_param entry;
    view_fill_entry(fs, number, &row, &entry);
    fuse_reply_entry(request, &entry);
}

/* -- listing ----------------------------------------------------------------------------------------------
 */

/* False: the listing is full, or failed. */
static bool view_list_one(struct filesystem *fs, const char *name, uint64_t cookie, struct listing *listing)
{
    uint64_t number;
    struct meta_inode row;
    listing->error = view_find_in_control(fs, name, &number, &row);
    return !listing->error && listing_add(listing, name, strlen(name), cookie, number, &row);
}

static errint view_list_control(struct filesystem *fs, uint64_t after, struct listing *listing)
{
    static const struct {
        const char *name;
        uint64_t cookie;
    } entries[] = {{VIEW_MODELS_NAME, VIEW_COOKIE_MODELS}, {VIEW_LATEST_NAME, VIEW_COOKIE_LATEST},
                   {VIEW_BEST_NAME, VIEW_COOKIE_BEST},     {VIEW_TORN_NAME, VIEW_COOKIE_TORN},
                   {VIEW_EVENTS_NAME, VIEW_COOKIE_EVENTS}, {VIEW_TRASH_NAME, VIEW_COOKIE_TRASH}};
    bool room = listing_add_dots(listing, after, view_number(VIEW_CONTROL, 0), META_ROOT_INO);
    for (size_t i = 0; i < sizeof entries / sizeof *entries && room; i++) {
        if (entries[i].cookie > after)
            room = view_list_one(fs, entries[i].name, entries[i].cookie, listing);
    }
    for (uint64_t which = 0; view_text_name(which) && room; which++) {
        if (VIEW_COOKIE_TEXTS + which > after)
            room = view_list_one(fs, view_text_name(which), VIEW_COOKIE_TEXTS + which, listing);
    }
    return 0;
}

static bool view_list_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    uint64_t number = view_number_of_row(inode);
    return !number || listing_add(context, name, length, cookie, number, inode);
}

static errint view_list_models(struct filesystem *fs, uint64_t directory, uint64_t after,
                               struct listing *listing)
{
    uint64_t above = view_number(VIEW_CONTROL, 0);
    errint error = 0;
    if (directory != META_ROOT_INO) {
        error = meta_parent(fs->meta, directory, &above);
        above = view_number(VIEW_MODELS, above);
    }
    if (error || !listing_add_dots(listing, after, view_number(VIEW_MODELS, directory), above))
        return error;
    return models_list(fs, directory, after, view_list_entry, listing);
}

struct view_links_listing {
    struct filesystem *fs;
    enum view_kind directory;
    struct listing *listing;
};

static bool view_list_link(void *context, const char *name, size_t length, uint64_t ino,
                           enum view_link_kind kind)
{
    (void)kind;
    const struct view_links_listing *links = context;
    struct meta_inode row;
    uint64_t number = view_link_find(links->fs, links->directory, ino);
    if (!number || view_row(links->fs, number, &row) < 0)
        return true;
    return listing_add(links->listing, name, length, META_COOKIE_FIRST + ino, number, &row);
}

static errint view_list_links(struct filesystem *fs, uint64_t number, uint64_t after, struct listing *listing)
{
    uint64_t above = view_number(VIEW_CONTROL, 0), directory = view_target(number);
    struct view_links_listing links = {fs, view_kind(number), listing};
    errint error = 0;
    if (directory != META_ROOT_INO) {
        error = meta_parent(fs->meta, directory, &above);
        above = view_number(view_kind(number), above);
    }
    if (error || !listing_add_dots(listing, after, number, above))
        return error;
    after = after > META_COOKIE_FIRST ? after - META_COOKIE_FIRST : 0;
    return view_links_list(fs, view_link_mark(view_kind(number)), directory, after, view_list_link, &links);
}

static bool view_list_torn_entry(void *context, const char *name, size_t length, uint64_t cookie,
                                 const struct meta_inode *inode)
{
    uint64_t number = view_number_in_torn(inode);
    return !number || listing_add(context, name, length, cookie, number, inode);
}

static errint view_list_torn(struct filesystem *fs, uint64_t directory, uint64_t after,
                             struct listing *listing)
{
    uint64_t above = view_number(VIEW_CONTROL, 0), parent = META_HIDDEN_PARENT;
    errint error = directory ? meta_parent(fs->meta, directory, &parent) : 0;
    if (parent != META_HIDDEN_PARENT)
        above = view_number(VIEW_TORN, parent);
    if (error || !listing_add_dots(listing, after, view_number(VIEW_TORN, directory), above) || !directory)
        return error;
    return meta_list(fs->meta, directory, after, view_list_torn_entry, listing);
}

void view_list(fuse_req_t request, uint64_t directory, uint64_t after, struct listing *listing)
{
    struct filesystem *fs = fs_of(request);
    errint error = -ENOTDIR;
    if (view_kind(directory) == VIEW_CONTROL)
        error = view_list_control(fs, after, listing);
    else if (view_kind(directory) == VIEW_MODELS)
        error = view_list_models(fs, view_target(directory), after, listing);
    else if (view_is_trash(directory))
        error = view_trash_list(request, directory, after, listing);
    else if (view_kind(directory) == VIEW_TORN)
        error = view_list_torn(fs, view_target(directory), after, listing);
    else if (view_is_directory(view_kind(directory)))
        error = view_list_links(fs, directory, after, listing);
    if (error == -ENOENT) {
        /* What it stands for was removed. */
        listing->count = 0;
        error = 0;
    }
    listing_reply(request, listing, error, view_fill_entry);
}

void view_opendir(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi)
{
    struct meta_inode row;
    errint error = view_row(fs_of(request), ino, &row);
    fi->fh = 0; /* nothing is kept for it */
    if (error)
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
    else
        fuse_reply_open(request, fi);
}

void view_readlink(fuse_req_t request, uint64_t ino)
{
    cleanup_free char *target = NULL;
    errint error = -EINVAL;
    if (view_is_link(view_kind(ino)))
        error = view_link_target(fs_of(request), ino, &target);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_readlink(request, target);
}

/* -- opening ----------------------------------------------------------------------------------------------
 */

/* The pages that the kernel keeps of a view's file are of this inode number alone. */
static void view_fill_cache(const struct node *node, struct fuse_file_info *fi)
{
    fi->keep_cache = fi->keep_cache && node->assembled;
}

static errint view_open_node(struct filesystem *fs, struct node *node, struct fuse_file_info *fi)
{
    node_lock(node);
    /* What is known of the file's own pages says nothing of these, nor these of it. */
    bool stale = node->stale_pages;
    node->stale_pages = false;
    errint error = handle_open(fs, node, fi->flags, fi);
    node->stale_pages = stale;
    view_fill_cache(node, fi);
    node_unlock(node);
    return error;
}

static void view_open_file(fuse_req_t request, uint64_t target, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    struct node *node = node_get(fs, target);
    errint error = node ? 0 : -ENOMEM;
    if (node && handle_reopen(fs, fi))
        view_fill_cache(node, fi);
    else if (node)
        error = view_open_node(fs, node, fi);
    node_put(fs, node);
    if (error)
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
    else if (fuse_reply_open(request, fi) < 0)
        handle_close(fs, fi->fh);
}

void view_open(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi)
{
    errint error = fault_hit("fs.open");
    if (!error && ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)))
        error = -EROFS;
    if (error)
        fuse_reply_err(request, -error);
    else if (view_kind(ino) == VIEW_STATUS)
        view_status_open(request, ino);
    else if (view_kind(ino) == VIEW_EVENTS)
        view_events_open(request, ino, fi);
    else
        view_open_file(request, view_target(ino), fi);
}
