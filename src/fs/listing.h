/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one answer to READDIR or READDIRPLUS holds: collected while the namespace is locked, completed with
 * attributes and sent afterwards.
 */
#ifndef CKPTFS_FS_LISTING_H
#define CKPTFS_FS_LISTING_H

#include "fs/filesystem.h"

enum { LISTING_COOKIE_DOT = 1, LISTING_COOKIE_DOTDOT = 2 };

struct listing_entry {
    uint64_t cookie;
    uint64_t number;         /* that the kernel gets to know it by */
    struct meta_inode inode; /* what it is */
    char name[META_NAME_MAX + 1];
};

/* Starts with `room`, `plus` and `end` set and all else 0. */
struct listing {
    size_t room; /* of the answer, in bytes */
    bool plus;
    uint64_t end; /* the first cookie that is not listed; 0: none */
    struct listing_entry *entries;
    size_t count, capacity;
    size_t bytes; /* of the answer, estimated from above */
    bool full;
    errint error;
};

/* Completes the entry that a listing with attributes answers for a row. */
typedef void listing_fill(struct filesystem *fs, uint64_t number, const struct meta_inode *row,
                          struct fuse_entry_param *entry);

/* Adds an entry. False: it is full, at its end, or failed (`error`). Calls nothing that locks. */
bool listing_add(struct listing *listing, const char *name, size_t length, uint64_t cookie, uint64_t number,
                 const struct meta_inode *inode);
/* Adds "." and "..", as far as they come after the cookie `after`. */
bool listing_add_dots(struct listing *listing, uint64_t after, uint64_t self, uint64_t parent);
/* Answers with what was added, or with the error (the listing's own, if `error` is 0), and releases it. */
void listing_reply(fuse_req_t request, struct listing *listing, errint error, listing_fill *fill);

#endif
