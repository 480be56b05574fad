/* SPDX-License-Identifier: Apache-2.0 */
/* The inodes of links to checkpoints. */
#include "fs/view_link.h"

#include <errno.h>
#include <string.h>

#include "fs/filesystem.h"
#include "fs/view_links.h"
#include "store/hash.h"

enum checkpoint_mark view_link_mark(enum view_kind kind)
{
    return kind == VIEW_BEST || kind == VIEW_BEST_LINK ? CHECKPOINT_BEST : CHECKPOINT_LATEST;
}

/*
 * The kernel keeps the target of a link's inode for good (FUSE_CAP_CACHE_SYMLINKS). So a link with another
 * target is another inode: its number has a hash of it above the run's.
 */
enum { VIEW_LINK_RUN_BITS = 40, VIEW_LINK_HASH_BITS = VIEW_KIND_SHIFT - VIEW_LINK_RUN_BITS };

static uint64_t view_link_run(uint64_t number)
{
    return number & ((UINT64_C(1) << VIEW_LINK_RUN_BITS) - 1);
}

/* 0: the run has no such link. */
static uint64_t view_link_number(struct filesystem *fs, enum view_kind kind, uint64_t run)
{
    cleanup_free char *target = NULL;
    if (run >> VIEW_LINK_RUN_BITS || view_links_target(fs, view_link_mark(kind), run, &target) < 0)
        return 0;
    uint64_t hash = hash_of(fs->store, target, strlen(target)).low;
    hash &= (UINT64_C(1) << VIEW_LINK_HASH_BITS) - 1;
    return view_number(kind, hash << VIEW_LINK_RUN_BITS | run);
}

errint view_link_target(struct filesystem *fs, uint64_t number, char **out)
{
    uint64_t run = view_link_run(number);
    if (view_link_number(fs, view_kind(number), run) != number)
        return -ENOENT;
    return view_links_target(fs, view_link_mark(view_kind(number)), run, out);
}

errint view_link_row(struct filesystem *fs, uint64_t number, struct meta_inode *row)
{
    cleanup_free char *target = NULL;
    errint error = view_link_target(fs, number, &target);
    if (!error)
        error = meta_get(fs->meta, view_link_run(number), row);
    if (error)
        return error;
    row->mode = S_IFLNK | 0777;
    row->size = (int64_t)strlen(target);
    return 0;
}

uint64_t view_link_find(struct filesystem *fs, enum view_kind directory, uint64_t ino)
{
    switch (view_links_look(fs, view_link_mark(directory), ino)) {
    case VIEW_LINK_DIRECTORY: return view_number(directory, ino);
    case VIEW_LINK:
        return view_link_number(fs, directory == VIEW_BEST ? VIEW_BEST_LINK : VIEW_LATEST_LINK, ino);
    case VIEW_LINK_NONE: break;
    }
    return 0;
}
