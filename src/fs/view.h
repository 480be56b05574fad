/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is ours on the mount: `.ckptfs` in the root, which no listing shows and every look-up finds. Below it
 * are the files `status`, `status.json`, `metrics` and `events`; `models`, which mirrors the tree: each
 * directory with the owner and mode of the one that it stands for, and where that is a checkpoint, what a
 * loader of models wants (fs/models.h); `latest` and `best`, with links to checkpoints (fs/view_links.h); and
 * `torn`, with what was not finished (fs/torn.h). All of it is only read: whoever would change it gets EROFS.
 * But what lies below `torn` can be removed, and moved out of it, by whom its permissions allow it.
 *
 * Nothing of it is a row of the namespace. Its inodes' numbers say what each is and which inode it stands
 * for, so that every daemon can answer for a number that the kernel remembers; the namespace never gives out
 * numbers that high.
 *
 * A file in a view is another inode for the kernel than the file that it shows, and the same node here: both
 * are served in one mode, by one object.
 */
#ifndef CKPTFS_FS_VIEW_H
#define CKPTFS_FS_VIEW_H

#include "fs/listing.h"

enum view_kind {
    VIEW_CONTROL = 0, /* the directory .ckptfs */
    VIEW_STATUS = 1,  /* a file of it whose text is made at the open; the number says which */
    VIEW_MODELS = 2,  /* a directory below models, or models itself: the root's */
    VIEW_FILE = 3,    /* a regular file; in the trash, also another that is no directory */
    VIEW_LATEST = 4,  /* a directory below latest (view_links.h), or latest itself: the root's */
    VIEW_LATEST_LINK = 5,
    VIEW_BEST = 6, /* the same of best */
    VIEW_BEST_LINK = 7,
    VIEW_TORN = 8,   /* a directory below torn, or torn itself; target 0: nothing was ever torn */
    VIEW_EVENTS = 9, /* the file events (fs/view_events.h) */
    VIEW_TRASH = 12, /* trash, or a directory below it that leads to what was removed */
    VIEW_ENTRY = 13, /* a checkpoint that was removed */
    VIEW_PART = 14,  /* a directory in one */
};

#define VIEW_BIT         (UINT64_C(1) << 62)
#define VIEW_KIND_SHIFT  56
#define VIEW_TARGET_MASK ((UINT64_C(1) << VIEW_KIND_SHIFT) - 1)

static inline bool view_has(uint64_t ino)
{
    return ino >> 62 == 1;
}

static inline enum view_kind view_kind(uint64_t ino)
{
    return (enum view_kind)(ino >> VIEW_KIND_SHIFT & 63);
}

/* The inode that one of a view stands for; 0: none. Others stand for themselves. */
static inline uint64_t view_target(uint64_t ino)
{
    if (!view_has(ino))
        return ino;
    enum view_kind kind = view_kind(ino);
    bool alone = kind == VIEW_STATUS || kind == VIEW_LATEST_LINK || kind == VIEW_BEST_LINK;
    return alone ? 0 : ino & VIEW_TARGET_MASK;
}

/* The number of what stands for an inode; 0 for an inode number that is none. */
static inline uint64_t view_number(enum view_kind kind, uint64_t target)
{
    return target > VIEW_TARGET_MASK ? 0 : VIEW_BIT | (uint64_t)kind << VIEW_KIND_SHIFT | target;
}

/* The inode of the namespace whose names a directory of the view shows and gives away (`torn`); others, and a
 * directory that is none of a view: itself. */
static inline uint64_t view_source(uint64_t parent)
{
    return view_has(parent) && view_kind(parent) == VIEW_TORN ? view_target(parent) : parent;
}

/* Which text a number of VIEW_STATUS is. */
static inline uint64_t view_text_of(uint64_t ino)
{
    return ino & VIEW_TARGET_MASK;
}

/* The root's entry that all of it lies under. */
bool view_is_name(uint64_t parent, const char *name);

/* These answer their requests. `parent` and `ino` are views', or the root of the mount for .ckptfs. */
void view_lookup(fuse_req_t request, uint64_t parent, const char *name);
void view_getattr(fuse_req_t request, uint64_t ino);
void view_readlink(fuse_req_t request, uint64_t ino);
void view_open(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi);
void view_opendir(fuse_req_t request, uint64_t ino, struct fuse_file_info *fi);
void view_list(fuse_req_t request, uint64_t directory, uint64_t after, struct listing *listing);

/* view_trash.c: what is in a directory of the kinds of the trash. */
errint view_trash_find(fuse_req_t request, uint64_t parent, const char *name, uint64_t *number,
                       struct meta_inode *row);
errint view_trash_list(fuse_req_t request, uint64_t directory, uint64_t after, struct listing *listing);

/* view_status.c: the files of VIEW_STATUS. What was opened stays as it was then; a take-over makes it anew.
 * Answered later, but for what is read of a text that is there. */
const char *view_text_name(uint64_t which); /* NULL: there are no more */
void view_status_open(fuse_req_t request, uint64_t ino);
void view_status_read(fuse_req_t request, uint64_t ino, size_t size, off_t offset, uint64_t fh);
void view_status_close(uint64_t fh);

#endif
