/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting and sending directories' entries. */
#include "fs/listing.h"

#include <errno.h>
#include <stdlib.h>

#include "base/grow.h"

enum { LISTING_MAX = 1024 };

bool listing_add(struct listing *listing, const char *name, size_t length, uint64_t cookie, uint64_t number,
                 const struct meta_inode *inode)
{
    /* struct fuse_dirent is 24 bytes, struct fuse_entry_out 128; names are padded to 8. */
    size_t bytes = 24 + ((length + 7) & ~(size_t)7) + (listing->plus ? 128 : 0);
    listing->full |= listing->bytes + bytes > listing->room || listing->count == LISTING_MAX ||
                     (listing->end && cookie >= listing->end);
    if (listing->full || listing->error)
        return false;
    if (!grow_reserve(listing->entries, listing->capacity, listing->count + 1)) {
        listing->error = -ENOMEM;
        return false;
    }
    struct listing_entry *entry = &listing->entries[listing->count++];
    entry->cookie = cookie;
    entry->number = number;
    entry->inode = *inode;
    meta_copy_name(entry->name, name, length);
    listing->bytes += bytes;
    return true;
}

bool listing_add_dots(struct listing *listing, uint64_t after, uint64_t self, uint64_t parent)
{
    const struct meta_inode directory = {.mode = S_IFDIR};
    if (after < LISTING_COOKIE_DOT && !listing_add(listing, ".", 1, LISTING_COOKIE_DOT, self, &directory))
        return false;
    return after >= LISTING_COOKIE_DOTDOT ||
           listing_add(listing, "..", 2, LISTING_COOKIE_DOTDOT, parent, &directory);
}

static size_t listing_put(fuse_req_t request, char *buffer, size_t room, bool plus,
                          const struct listing_entry *listed, listing_fill *fill)
{
    off_t offset = (off_t)listed->cookie;
    if (!plus) {
        const struct stat status = {.st_ino = listed->number, .st_mode = listed->inode.mode};
        return fuse_add_direntry(request, buffer, room, listed->name, &status, offset);
    }
    struct fuse_entry_param entry;
    if (listed->cookie < META_COOKIE_FIRST)
        /* ino 0: the kernel takes no reference on dots. */
        entry = (struct fuse_entry_param){.attr = {.st_ino = listed->number, .st_mode = S_IFDIR}};
    else
        fill(fs_of(request), listed->number, &listed->inode, &entry);
    return fuse_add_direntry_plus(request, buffer, room, listed->name, &entry, offset);
}

void listing_reply(fuse_req_t request, struct listing *listing, errint error, listing_fill *fill)
{
    cleanup_free char *buffer = malloc(listing->room);
    error = error ? error : listing->error;
    if (!error && !buffer)
        error = -ENOMEM;
    size_t used = 0;
    for (size_t i = 0; i < listing->count && !error; i++) {
        size_t need = listing_put(request, buffer + used, listing->room - used, listing->plus,
                                  &listing->entries[i], fill);
        if (need > listing->room - used)
            break;
        used += need;
    }
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_buf(request, buffer, used);
    free(listing->entries);
}
