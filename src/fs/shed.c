/* SPDX-License-Identifier: Apache-2.0 */
/* Shedding an optimizer's state. */
#include "fs/shed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/size_text.h"
#include "ckpt/optimizer_files.h"
#include "fs/checkpoints.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "meta/shed.h"

/* Optimizers of one checkpoint that have a directory each. */
enum { SHED_DIRECTORIES = 16 };

/* What is found of a checkpoint. */
struct shed_files {
    const char *directory; /* that is read now, in the checkpoint; "": its own */
    struct ids files;
    struct ids directories;
    char names[SHED_DIRECTORIES][META_NAME_MAX + 1]; /* of these */
    int64_t bytes;
    errint error;
};

static bool shed_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)cookie;
    struct shed_files *found = context;
    char path[2 * META_NAME_MAX + 2];
    bool own = !*found->directory;
    snprintf(path, sizeof path, "%s%s%.*s", found->directory, own ? "" : "/", (int)length, name);
    if (own && S_ISDIR(inode->mode) && optimizer_directory_is(path) &&
        found->directories.count < SHED_DIRECTORIES) {
        strcpy(found->names[found->directories.count], path);
        found->error = ids_append(&found->directories, inode->ino);
    } else if (S_ISREG(inode->mode) && inode->kind == META_EXTENTS && !(inode->state & META_SHED) &&
               optimizer_file_is(path)) {
        found->bytes += inode->size;
        found->error = ids_append(&found->files, inode->ino);
    }
    return !found->error;
}

static void shed_files_release(struct shed_files *found)
{
    ids_release(&found->files);
    ids_release(&found->directories);
}

#define cleanup_shed_files __attribute__((cleanup(shed_files_release)))

static errint shed_find(struct filesystem *fs, uint64_t checkpoint, struct shed_files *found)
{
    *found = (struct shed_files){.directory = ""};
    errint error = meta_list(fs->meta, checkpoint, 0, shed_take_entry, found);
    for (size_t i = 0; i < found->directories.count && !error && !found->error; i++) {
        found->directory = found->names[i];
        error = meta_list(fs->meta, found->directories.at[i], 0, shed_take_entry, found);
    }
    return error ? error : found->error;
}

int64_t shed_bytes(struct filesystem *fs, uint64_t checkpoint)
{
    cleanup_shed_files struct shed_files found;
    return shed_find(fs, checkpoint, &found) == 0 ? found.bytes : 0;
}

/* Nobody sees the file, nor is it being re-pointed, while its node is locked and idle. */
static errint shed_locked(struct filesystem *fs, struct node *node, struct ids *freed)
{
    struct meta_inode row;
    errint error = node_load(fs, node);
    if (!error &&
        (node->handles > 0 || node->kind != META_EXTENTS || node->overlay || content_is_mapped(node)))
        error = -EBUSY;
    if (!error)
        error = meta_shed(fs->meta, node->ino, freed);
    if (!error)
        error = meta_get(fs->meta, node->ino, &row);
    if (!error)
        error = node_adopt_row(fs, node, &row);
    return error;
}

static errint shed_file(struct filesystem *fs, uint64_t ino)
{
    cleanup_ids struct ids freed = {0};
    struct node *node = node_get(fs, ino);
    if (!node)
        return -ENOMEM;
    node_lock(node);
    errint error = shed_locked(fs, node, &freed);
    node_unlock(node);
    node_put(fs, node);
    discard_objects(fs, &freed);
    discard_kick(fs);
    /* Pages that were read before are the bytes that are no more. */
    if (!error)
        fuse_lowlevel_notify_inval_inode(fs->session, ino, 0, 0);
    return error;
}

static bool shed_never_stops(void *context)
{
    (void)context;
    return false;
}

static errint shed_check(struct filesystem *fs, uint64_t checkpoint)
{
    const struct keep_asked asked = {.ino = checkpoint, .stops = shed_never_stops};
    struct keep_marks marks;
    errint error = keep_find_marks(fs, &asked, &marks);
    if (error)
        return error;
    return marks.open || marks.pinned || marks.loaded || marks.unsettled || marks.exported ? -EBUSY : 0;
}

errint shed_checkpoint(struct filesystem *fs, uint64_t checkpoint, const char *reason)
{
    cleanup_shed_files struct shed_files found;
    cleanup_free char *path = NULL;
    char text[SIZE_TEXT_MAX];
    size_t shed = 0;
    errint error = shed_find(fs, checkpoint, &found);
    if (!error)
        error = found.files.count == 0 ? -ENODATA : shed_check(fs, checkpoint);
    if (!error)
        error = meta_path(fs->meta, checkpoint, &path);
    for (; shed < found.files.count && !error; shed++) {
        error = fault_hit("fs.shed");
        if (!error)
            error = shed_file(fs, found.files.at[shed]);
    }
    /* Of some files only it is shed as well. */
    if (shed > 0)
        checkpoints_touch_directory(fs, checkpoint);
    if (error)
        return error;
    log_info("%s: its optimizer's state, %s, was given up: %s", path, size_text((double)found.bytes, text),
             reason);
    events_emit(fs, &(struct event){.kind = EVENT_SHED,
                                    .ino = checkpoint,
                                    .path = path,
                                    .step = -1,
                                    .bytes = found.bytes,
                                    .reason = reason});
    return 0;
}
