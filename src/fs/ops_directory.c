/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing directories. Every name has a cookie of its own, which is its offset: a listing can go on from any
 * of them, however the directory changes meanwhile.
 */
#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>

#include "fs/handle.h"
#include "fs/listing.h"
#include "fs/report.h"
#include "fs/torn.h"
#include "fs/view.h"

static bool ops_list_entry(void *context, const char *name, size_t length, uint64_t cookie,
                           const struct meta_inode *inode)
{
    return listing_add(context, name, length, cookie, inode->ino, inode);
}

static void ops_list_fill(struct filesystem *fs, uint64_t number, const struct meta_inode *row,
                          struct fuse_entry_param *entry)
{
    (void)number;
    ops_fill_entry(fs, row, entry);
}

/*
 * A listing shows what is there when it begins, as far as it stays: who renames each file that it is told of
 * gives it a new cookie, and would be told of it for ever.
 */
static uint64_t ops_listing_end(struct filesystem *fs, uint64_t fh, uint64_t after)
{
    struct state_handle *handle = state_handle_find(fs->state, fh);
    if (!handle)
        return 0;
    if (after == 0)
        handle->object = meta_cookie_next(fs->meta);
    return handle->object;
}

static void ops_list(fuse_req_t request, uint64_t directory, size_t size, uint64_t after, uint64_t fh,
                     bool plus)
{
    struct filesystem *fs = fs_of(request);
    struct listing listing = {.room = size, .plus = plus, .end = ops_listing_end(fs, fh, after)};
    if (view_has(directory)) {
        view_list(request, directory, after, &listing);
        return;
    }
    uint64_t parent;
    errint error = meta_parent(fs->meta, directory, &parent);
    if (!error && listing_add_dots(&listing, after, directory, parent))
        error = meta_list(fs->meta, directory, after, ops_list_entry, &listing);
    /* A removed directory that is still open has no entries at all. */
    if (error == -ENOENT) {
        listing.count = 0;
        error = 0;
    }
    listing_reply(request, &listing, error, ops_list_fill);
}

void ops_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ops_list(request, ino, size, (uint64_t)offset, fi->fh, false);
}

void ops_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ops_list(request, ino, size, (uint64_t)offset, fi->fh, true);
}

static void ops_open_directory(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    errint error = meta_get(fs->meta, ino, &row);
    struct node *node = error ? NULL : node_get(fs, ino);
    if (!error && !node)
        error = -ENOMEM;
    if (!error) {
        node_lock(node);
        error = node->gone ? -ENOENT : handle_open_directory(fs, node, fi);
        node_unlock(node);
    }
    node_put(fs, node);
    if (error)
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
    else if (fuse_reply_open(request, fi) < 0)
        handle_close(fs, fi->fh);
}

/* A run is looked at before it is listed, when one of its checkpoints may be torn. */
static void ops_opendir_after_look(struct report *report)
{
    struct fuse_file_info fi = {.flags = O_RDONLY | O_DIRECTORY};
    torn_take_away(report->fs, report->ino, (pid_t)report->argument, report_stops, report);
    if (atomic_load(&report->fs->stopping)) {
        fuse_reply_none(report->request); /* the successor is asked again */
        return;
    }
    /* The handle is known by its request, which this thread did not read. */
    const struct protocol_header header = {.unique = report->unique};
    fs_current_request = &header;
    ops_open_directory(report->request, report->ino, &fi);
    fs_current_request = NULL;
}

void ops_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    if (view_has(ino))
        view_opendir(request, ino, fi);
    else if (handle_reopen(fs, fi))
        fuse_reply_open(request, fi);
    else if (torn_may_be_in(fs, ino))
        report_later(request, &(struct report){.ino = ino,
                                               .argument = (uint64_t)fuse_req_ctx(request)->pid,
                                               .answer = ops_opendir_after_look});
    else
        ops_open_directory(request, ino, fi);
}

void ops_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_close(fs_of(request), fi->fh);
    fuse_reply_err(request, 0);
}
