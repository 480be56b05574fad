/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up what is torn. */
#include "fs/torn_room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ids.h"
#include "ckpt/detect.h"
#include "fs/checkpoints_internal.h"
#include "fs/filesystem.h"
#include "fs/keep_remove.h"
#include "meta/hidden.h"

/* The torn checkpoint that was made first, of those that were made after another. */
struct torn_room_oldest {
    struct filesystem *fs;
    uint64_t after, ino;    /* numbers of inodes grow; 0: none */
    struct ids directories; /* that are to be looked through */
    bool has_files;
    errint error;
};

static void torn_room_release_oldest(struct torn_room_oldest *oldest)
{
    ids_release(&oldest->directories);
}

/* checkpoint-30, and checkpoint-30.2 that was torn later. */
static bool torn_room_has_step(const char *name)
{
    char text[META_NAME_MAX + 1];
    snprintf(text, sizeof text, "%s", name);
    text[strcspn(text, ".")] = '\0';
    return detect_step_of_name(text) >= 0;
}

static bool torn_room_see_file(void *context, const char *name, size_t length, uint64_t cookie,
                               const struct meta_inode *inode)
{
    (void)name, (void)length, (void)cookie;
    struct torn_room_oldest *oldest = context;
    oldest->has_files = !S_ISDIR(inode->mode);
    return !oldest->has_files;
}

/* Directories that only mirror the paths have no files. */
static bool torn_room_see_directory(void *context, const char *name, size_t length, uint64_t cookie,
                                    const struct meta_inode *inode)
{
    (void)length, (void)cookie;
    struct torn_room_oldest *oldest = context;
    if (!S_ISDIR(inode->mode))
        return true;
    if (!torn_room_has_step(name))
        oldest->error = ids_append(&oldest->directories, inode->ino);
    else if (inode->ino > oldest->after && (!oldest->ino || inode->ino < oldest->ino))
        oldest->ino = inode->ino;
    return !oldest->error;
}

static errint torn_room_find_oldest(struct torn_room_oldest *oldest, bool (*stops)(struct filesystem *fs))
{
    struct filesystem *fs = oldest->fs;
    uint64_t directory;
    errint error = meta_hidden_find(fs->meta, META_HIDDEN_TORN, &directory);
    if (!error)
        error = ids_append(&oldest->directories, directory);
    while (!error && oldest->directories.count > 0) {
        directory = oldest->directories.at[--oldest->directories.count];
        oldest->has_files = false;
        error = stops(fs) ? -ECANCELED : meta_list(fs->meta, directory, 0, torn_room_see_file, oldest);
        if (!error && oldest->has_files && directory > oldest->after &&
            (!oldest->ino || directory < oldest->ino))
            oldest->ino = directory;
        if (!error && !oldest->has_files)
            error = meta_list(fs->meta, directory, 0, torn_room_see_directory, oldest);
        if (!error)
            error = oldest->error;
    }
    return error;
}

/* As it is seen on the mount. */
static errint torn_room_path(struct filesystem *fs, uint64_t ino, char **out)
{
    static const char hidden[] = "/" META_HIDDEN_TEXT;
    cleanup_free char *path = NULL;
    errint error = meta_path(fs->meta, ino, &path);
    const char *below = error ? NULL : path;
    if (below && strncmp(below, hidden, sizeof hidden - 1) == 0)
        below += sizeof hidden - 1;
    if (!error && asprintf(out, "/.ckptfs%s", below) < 0)
        error = -ENOMEM;
    if (error)
        *out = NULL;
    return error;
}

static errint torn_room_remove(struct filesystem *fs, uint64_t ino)
{
    cleanup_free char *path = NULL;
    errint error = torn_room_path(fs, ino, &path);
    return error ? error : keep_remove_hidden(fs, ino, path, "it is torn, and the space is needed");
}

bool torn_room_has_any(struct filesystem *fs)
{
    return fs->checkpoints && atomic_load(&fs->checkpoints->torn);
}

void torn_room_note(struct filesystem *fs)
{
    atomic_store(&fs->checkpoints->torn, true);
}

bool torn_room_make(struct filesystem *fs, bool (*stops)(struct filesystem *fs))
{
    uint64_t after = 0;
    errint error = 0;
    bool removed = false;
    if (!torn_room_has_any(fs))
        return false;
    atomic_store(&fs->checkpoints->torn, false);
    /* One that somebody has open is passed over. */
    do {
        __attribute__((cleanup(torn_room_release_oldest))) struct torn_room_oldest oldest = {.fs = fs,
                                                                                             .after = after};
        error = torn_room_find_oldest(&oldest, stops);
        if (error || oldest.ino)
            torn_room_note(fs);
        after = oldest.ino;
        removed = !error && after && torn_room_remove(fs, after) == 0;
    } while (!error && after && !removed);
    return removed;
}
