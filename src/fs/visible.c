/* SPDX-License-Identifier: Apache-2.0 */
/* Permissions on the way to a directory. */
#include "fs/visible.h"

#include "fs/ops.h"

enum { VISIBLE_DEPTH = 4096, VISIBLE_SEARCH = 1, VISIBLE_LIST = 5 /* as in a mode's three bits */ };

static bool visible_allows(fuse_req_t request, const struct meta_inode *row, unsigned wanted)
{
    unsigned shift = 0;
    if (row->uid == fuse_req_ctx(request)->uid)
        shift = 6;
    else if (ops_caller_has_group(request, row->gid))
        shift = 3;
    return (row->mode >> shift & wanted) == wanted;
}

bool visible_sees_all(uid_t uid)
{
    return uid == 0 || uid == geteuid();
}

bool visible_to_caller(fuse_req_t request, uint64_t ino)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    struct meta_name name;
    size_t count = 0;
    if (visible_sees_all(fuse_req_ctx(request)->uid))
        return true;
    if (meta_get(fs->meta, ino, &row) != 0)
        return false;
    if (!S_ISDIR(row.mode)) {
        if (meta_find_names(fs->meta, ino, NULL, &name, 1, &count) != 0 || count == 0)
            return false;
        ino = name.parent;
    }
    unsigned wanted = VISIBLE_LIST;
    for (unsigned depth = 0; depth < VISIBLE_DEPTH; depth++) {
        uint64_t above;
        if (meta_get(fs->meta, ino, &row) != 0 || !visible_allows(request, &row, wanted))
            return false;
        if (ino == META_ROOT_INO)
            return true;
        if (meta_parent(fs->meta, ino, &above) != 0)
            return false;
        ino = above;
        wanted = VISIBLE_SEARCH;
    }
    return false;
}
