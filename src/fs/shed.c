/* SPDX-License-Identifier: Apache-2.0 */
/* Shedding an optimizer's state. */
#include "fs/shed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/size_text.h"
#include "ckpt/optimizer_parts.h"
#include "fs/checkpoints.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/namespace_folder.h"
#include "meta/shed.h"

/* A file with what it is to give up. */
struct shed_file {
    struct meta_inode row;
    struct meta_shed_range *ranges; /* of shed_files.ranges */
    size_t count;                   /* 0: all of it */
};

/* What is found of a checkpoint. */
struct shed_files {
    struct shed_file *at;
    size_t count;
    struct meta_shed_range *ranges;
    int64_t bytes;
};

static void shed_files_release(struct shed_files *found)
{
    free(found->at);
    free(found->ranges);
}

#define cleanup_shed_files __attribute__((cleanup(shed_files_release)))

static struct meta_shed shed_of_file(const struct shed_file *file)
{
    return (struct meta_shed){.file = &file->row, .ranges = file->ranges, .count = file->count};
}

static bool shed_stops(struct filesystem *fs)
{
    return atomic_load(&fs->stopping);
}

/* The parts of one file, the first `count` of `parts`. *found grows if it has something to give. */
static errint shed_take_file(struct filesystem *fs, uint64_t checkpoint, const struct optimizer_part *parts,
                             size_t count, struct shed_files *found)
{
    struct shed_file *file = &found->at[found->count];
    struct meta_shed_range *ranges = file->ranges;
    int64_t bytes = 0;
    *file = (struct shed_file){.ranges = ranges};
    for (size_t i = 0; i < count && !parts[i].whole; i++)
        ranges[file->count++] = (struct meta_shed_range){parts[i].offset, parts[i].length};
    errint error = namespace_find(fs, checkpoint, parts->path, strlen(parts->path), &file->row);
    const struct meta_shed shed = shed_of_file(file);
    if (!error)
        error = meta_shed_measure(fs->meta, &shed, &bytes);
    if (error || bytes == 0)
        return error == -ENOENT ? 0 : error;
    found->bytes += bytes;
    found->count++;
    found->at[found->count].ranges = ranges + file->count;
    return 0;
}

static errint shed_take_files(struct filesystem *fs, uint64_t checkpoint, const struct optimizer_parts *parts,
                              struct shed_files *found)
{
    errint error = 0;
    found->at = calloc(parts->count + 1, sizeof *found->at);
    found->ranges = calloc(parts->count + 1, sizeof *found->ranges);
    if (!found->at || !found->ranges)
        return -ENOMEM;
    found->at->ranges = found->ranges;
    for (size_t i = 0, next; i < parts->count && !error; i = next) {
        for (next = i + 1; next < parts->count && strcmp(parts->at[next].path, parts->at[i].path) == 0;)
            next++;
        error = shed_take_file(fs, checkpoint, &parts->at[i], next - i, found);
    }
    return error;
}

static errint shed_find(struct filesystem *fs, uint64_t checkpoint, struct shed_files *found)
{
    cleanup_namespace_folder struct namespace_folder names = {0};
    cleanup_optimizer_parts struct optimizer_parts parts = {0};
    struct folder folder;
    *found = (struct shed_files){0};
    errint error = namespace_folder_open(fs, checkpoint, shed_stops, &names, &folder);
    names.looks = true;
    if (!error)
        error = optimizer_parts_find(&folder, &parts);
    return error ? error : shed_take_files(fs, checkpoint, &parts, found);
}

int64_t shed_bytes(struct filesystem *fs, uint64_t checkpoint)
{
    cleanup_shed_files struct shed_files found;
    return shed_find(fs, checkpoint, &found) == 0 ? found.bytes : 0;
}

/* Nobody sees the file, nor is it being re-pointed, while its node is locked and idle. */
static errint shed_locked(struct filesystem *fs, struct node *node, const struct meta_shed *shed,
                          struct ids *freed)
{
    struct meta_inode row;
    errint error = node_load(fs, node);
    if (!error &&
        (node->handles > 0 || node->kind != META_EXTENTS || node->overlay || content_is_mapped(node)))
        error = -EBUSY;
    if (!error)
        error = meta_shed(fs->meta, shed, freed);
    if (!error)
        error = meta_get(fs->meta, node->ino, &row);
    if (!error)
        error = node_adopt_row(fs, node, &row);
    return error;
}

static errint shed_file(struct filesystem *fs, const struct shed_file *file)
{
    const struct meta_shed shed = shed_of_file(file);
    cleanup_ids struct ids freed = {0};
    struct node *node = node_get(fs, file->row.ino);
    if (!node)
        return -ENOMEM;
    node_lock(node);
    errint error = shed_locked(fs, node, &shed, &freed);
    node_unlock(node);
    node_put(fs, node);
    discard_objects(fs, &freed);
    discard_kick(fs);
    /* Pages that were read before are the bytes that are no more. */
    if (!error)
        fuse_lowlevel_notify_inval_inode(fs->session, file->row.ino, 0, 0);
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
    return keep_is_used(&marks) ? -EBUSY : 0;
}

errint shed_checkpoint(struct filesystem *fs, uint64_t checkpoint, const char *reason)
{
    cleanup_shed_files struct shed_files found;
    cleanup_free char *path = NULL;
    char text[SIZE_TEXT_MAX];
    size_t shed = 0;
    errint error = shed_find(fs, checkpoint, &found);
    if (!error)
        error = found.count == 0 ? -ENODATA : shed_check(fs, checkpoint);
    if (!error)
        error = meta_path(fs->meta, checkpoint, &path);
    for (; shed < found.count && !error; shed++) {
        error = fault_hit("fs.shed");
        if (!error)
            error = shed_file(fs, &found.at[shed]);
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
