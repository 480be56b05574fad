/* SPDX-License-Identifier: Apache-2.0 */
/* Finding where an event belongs. */
#include "fs/event_whereabouts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/filesystem.h"

/* As long as names of it lead to directories: the last of these. */
static void event_whereabouts_walk(struct filesystem *fs, const char *path, struct meta_inode *out)
{
    while (*(path += strspn(path, "/"))) {
        size_t length = strcspn(path, "/");
        struct meta_inode row;
        if (meta_lookup(fs->meta, out->ino, path, length, &row) < 0 || !S_ISDIR(row.mode))
            return;
        *out = row;
        path += length;
    }
}

static bool event_whereabouts_is_there(struct filesystem *fs, uint64_t ino, struct meta_inode *row)
{
    return ino && meta_get(fs->meta, ino, row) == 0 && S_ISDIR(row->mode) && row->nlink > 0;
}

static char *event_whereabouts_above(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strndup(path, slash ? (size_t)(slash - path) : 0);
}

void event_whereabouts_find(struct filesystem *fs, const struct event *event, struct event_whereabouts *out)
{
    struct meta_inode row = {.ino = META_ROOT_INO};
    bool there = event_whereabouts_is_there(fs, event->ino, &row);
    *out = (struct event_whereabouts){0};
    out->path = event->path ? strdup(event->path) : NULL;
    if (!event->path && (!there || meta_path(fs->meta, event->ino, &out->path) < 0))
        out->path = NULL;
    if (event->run)
        out->run = strdup(event->run);
    else if (out->path)
        out->run = event_whereabouts_above(out->path);
    /* One that was put away has no policies above it there: those of where it was hold. */
    struct meta_inode place = {.ino = META_ROOT_INO};
    if (there && !event->path)
        place = row;
    else
        event_whereabouts_walk(fs, out->path ? out->path : out->run ? out->run : "", &place);
    out->directory = place.ino;
    const struct meta_inode *owned = there ? &row : &place;
    out->uid = owned->ino == META_ROOT_INO ? UINT32_MAX : owned->uid;
}

void event_whereabouts_release(struct event_whereabouts *where)
{
    free(where->path);
    free(where->run);
}
