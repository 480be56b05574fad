/* SPDX-License-Identifier: Apache-2.0 */
/* The directory `trash`: removed checkpoints, under the paths that they had. */
#include <errno.h>
#include <string.h>

#include "fs/view.h"
#include "meta/trash.h"

static uint64_t view_number_of_part(const struct meta_inode *row)
{
    return view_number(S_ISDIR(row->mode) ? VIEW_PART : VIEW_FILE, row->ino);
}

errint view_trash_find(fuse_req_t request, uint64_t parent, const char *name, uint64_t *number,
                       struct meta_inode *row)
{
    struct filesystem *fs = fs_of(request);
    uint64_t target = view_target(parent);
    size_t length = strlen(name);
    bool is_entry;
    errint error;
    if (view_kind(parent) == VIEW_TRASH) {
        error = meta_trash_lookup(fs->meta, target, fuse_req_ctx(request)->uid, name, length, row, &is_entry);
        if (!error)
            *number = view_number(is_entry ? VIEW_ENTRY : VIEW_TRASH, row->ino);
    } else {
        error = meta_lookup(fs->meta, target, name, length, row);
        if (!error)
            *number = view_number_of_part(row);
    }
    return error || *number ? error : -ENOENT;
}

static bool view_list_removed(void *context, const char *name, size_t length, uint64_t cookie,
                              const struct meta_inode *inode, bool is_entry)
{
    uint64_t number = view_number(is_entry ? VIEW_ENTRY : VIEW_TRASH, inode->ino);
    return !number || listing_add(context, name, length, cookie, number, inode);
}

static bool view_list_part(void *context, const char *name, size_t length, uint64_t cookie,
                           const struct meta_inode *inode)
{
    uint64_t number = view_number_of_part(inode);
    return !number || listing_add(context, name, length, cookie, number, inode);
}

errint view_trash_list(fuse_req_t request, uint64_t directory, uint64_t after, struct listing *listing)
{
    struct filesystem *fs = fs_of(request);
    uint64_t target = view_target(directory);
    if (!listing_add_dots(listing, after, directory, view_number(VIEW_CONTROL, 0)))
        return 0;
    if (view_kind(directory) != VIEW_TRASH)
        return meta_list(fs->meta, target, after, view_list_part, listing);
    return meta_trash_list(fs->meta, target, fuse_req_ctx(request)->uid, after, view_list_removed, listing);
}
