/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing directories. Every name has a cookie of its own, which is its offset: a listing can go on from any
 * of them, however the directory changes meanwhile.
 */
#include "fs/ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/handle.h"

/* What one answer may hold, collected while the namespace is locked; attributes are completed afterwards. */
struct ops_listing {
    struct ops_listed *entries;
    size_t count, capacity;
    size_t bytes, room; /* of the answer, estimated from above */
    uint64_t end;       /* the first cookie that is not listed; 0: none */
    bool plus;
    errint error;
};

struct ops_listed {
    uint64_t cookie;
    struct meta_inode inode;
    char name[META_NAME_MAX + 1];
};

enum { OPS_LISTING_MAX = 1024, OPS_COOKIE_DOT = 1, OPS_COOKIE_DOTDOT = 2 };

static bool ops_list_entry(void *context, const char *name, size_t length, uint64_t cookie,
                           const struct meta_inode *inode)
{
    struct ops_listing *listing = context;
    if (listing->end && cookie >= listing->end)
        return false;
    /* struct fuse_dirent is 24 bytes, struct fuse_entry_out 128; names are padded to 8. */
    size_t bytes = 24 + ((length + 7) & ~(size_t)7) + (listing->plus ? 128 : 0);
    if (listing->bytes + bytes > listing->room || listing->count == OPS_LISTING_MAX)
        return false;
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity ? listing->capacity * 2 : 32;
        struct ops_listed *entries = reallocarray(listing->entries, capacity, sizeof *entries);
        if (!entries) {
            listing->error = -ENOMEM;
            return false;
        }
        listing->entries = entries;
        listing->capacity = capacity;
    }
    struct ops_listed *entry = &listing->entries[listing->count++];
    entry->cookie = cookie;
    entry->inode = *inode;
    memcpy(entry->name, name, length);
    entry->name[length] = '\0';
    listing->bytes += bytes;
    return true;
}

/* "." and "..", which are no rows. */
static errint ops_list_dots(struct filesystem *fs, uint64_t directory, uint64_t after,
                            struct ops_listing *listing)
{
    struct meta_inode self = {.ino = directory, .mode = S_IFDIR};
    if (after < OPS_COOKIE_DOT)
        ops_list_entry(listing, ".", 1, OPS_COOKIE_DOT, &self);
    if (after < OPS_COOKIE_DOTDOT) {
        errint error = meta_parent(fs->meta, directory, &self.ino);
        /* A removed directory that is still open has no entries at all. */
        if (error)
            return error;
        ops_list_entry(listing, "..", 2, OPS_COOKIE_DOTDOT, &self);
    }
    return listing->error;
}

static size_t ops_add_entry(fuse_req_t request, char *buffer, size_t room, bool plus,
                            const struct ops_listed *listed)
{
    off_t offset = (off_t)listed->cookie;
    if (!plus) {
        const struct stat status = {.st_ino = listed->inode.ino, .st_mode = listed->inode.mode};
        return fuse_add_direntry(request, buffer, room, listed->name, &status, offset);
    }
    struct fuse_entry_param entry;
    if (listed->cookie < META_COOKIE_FIRST)
        /* ino 0: the kernel takes no reference on dots. */
        entry = (struct fuse_entry_param){.attr = {.st_ino = listed->inode.ino, .st_mode = S_IFDIR}};
    else
        ops_fill_entry(fs_of(request), &listed->inode, &entry);
    return fuse_add_direntry_plus(request, buffer, room, listed->name, &entry, offset);
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
    struct ops_listing listing = {.room = size, .plus = plus, .end = ops_listing_end(fs, fh, after)};
    cleanup_free char *buffer = malloc(size);
    errint error = buffer ? ops_list_dots(fs, directory, after, &listing) : -ENOMEM;
    if (!error)
        error = meta_list(fs->meta, directory, after, ops_list_entry, &listing);
    if (!error)
        error = listing.error;
    if (error && error != -ENOENT) {
        fuse_reply_err(request, -error);
        free(listing.entries);
        return;
    }
    size_t used = 0;
    for (size_t i = 0; i < listing.count && !error; i++) {
        size_t need = ops_add_entry(request, buffer + used, size - used, plus, &listing.entries[i]);
        if (need > size - used)
            break;
        used += need;
    }
    fuse_reply_buf(request, buffer, used);
    free(listing.entries);
}

void ops_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ops_list(request, ino, size, (uint64_t)offset, fi->fh, false);
}

void ops_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ops_list(request, ino, size, (uint64_t)offset, fi->fh, true);
}

void ops_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    if (handle_reopen(fs, fi)) {
        fuse_reply_open(request, fi);
        return;
    }
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

void ops_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_close(fs_of(request), fi->fh);
    fuse_reply_err(request, 0);
}
