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
    int64_t bytes;
};

/* What is found of a checkpoint. */
struct shed_files {
    struct shed_file *at;
    size_t count;
    struct meta_shed_range *ranges;
    int64_t bytes;
    struct namespace_folder names; /* which files tell so, as they were */
};

static void shed_files_release(struct shed_files *found)
{
    namespace_folder_release(&found->names);
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

/* The file as it was when it was read; one of which the name says all is not read. */
static errint shed_find_row(struct filesystem *fs, uint64_t checkpoint, const struct optimizer_part *part,
                            const struct shed_files *found, struct meta_inode *row)
{
    const struct namespace_input *input = namespace_folder_find(&found->names, part->path);
    if (part->whole)
        return namespace_find(fs, checkpoint, part->path, strlen(part->path), row);
    if (input)
        *row = input->row;
    return input ? 0 : -ENOENT;
}

/* The parts of one file, the first `count` of `parts`. *found grows if it has something to give. */
static errint shed_take_file(struct filesystem *fs, uint64_t checkpoint, const struct optimizer_part *parts,
                             size_t count, struct shed_files *found)
{
    struct shed_file *file = &found->at[found->count];
    struct meta_shed_range *ranges = file->ranges;
    *file = (struct shed_file){.ranges = ranges};
    for (size_t i = 0; i < count && !parts[i].whole; i++)
        ranges[file->count++] = (struct meta_shed_range){parts[i].offset, parts[i].length};
    errint error = shed_find_row(fs, checkpoint, parts, found, &file->row);
    const struct meta_shed shed = shed_of_file(file);
    if (!error)
        error = meta_shed_measure(fs->meta, &shed, &file->bytes);
    if (error || file->bytes == 0)
        return error == -ENOENT ? 0 : error;
    found->bytes += file->bytes;
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
    cleanup_optimizer_parts struct optimizer_parts parts = {0};
    struct folder folder;
    *found = (struct shed_files){0};
    errint error = namespace_folder_open(fs, checkpoint, shed_stops, &found->names, &folder);
    found->names.compares = true;
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
    errint error = node_load(fs, node);
    if (!error &&
        (node->handles > 0 || node->kind != META_EXTENTS || node->overlay || content_is_mapped(node)))
        error = -EBUSY;
    if (!error)
        error = meta_shed(fs->meta, shed, freed);
    /* Whoever needs it next loads it as it is now: none may go on with the object that it was, of which there
     * will be holes. */
    if (!error) {
        node_drop_content(fs, node);
        node->loaded = false;
    }
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

/* Whether the files that told what may go are still what they were: .metadata says it of others. */
static errint shed_check_files(struct filesystem *fs, uint64_t checkpoint, const struct shed_files *found)
{
    errint error = 0;
    for (size_t i = 0; i < found->names.input_count && !error; i++) {
        const struct namespace_input *input = &found->names.inputs[i];
        struct meta_inode row;
        error = namespace_find(fs, checkpoint, input->path, strlen(input->path), &row);
        if (!error && (row.ino != input->row.ino || row.size != input->row.size ||
                       row.mtime != input->row.mtime || row.ctime != input->row.ctime))
            error = -EBUSY;
    }
    return error == -ENOENT ? -EBUSY : error;
}

/* `shed`: of so many of the files. */
static void shed_tell(struct filesystem *fs, uint64_t checkpoint, const char *path,
                      const struct shed_files *found, size_t shed, const char *reason)
{
    char text[SIZE_TEXT_MAX];
    int64_t bytes = 0;
    for (size_t i = 0; i < shed; i++)
        bytes += found->at[i].bytes;
    log_info("%s: its optimizer's state, %s, was given up: %s", path, size_text((double)bytes, text), reason);
    events_emit(fs, &(struct event){.kind = EVENT_SHED,
                                    .ino = checkpoint,
                                    .path = path,
                                    .step = -1,
                                    .bytes = bytes,
                                    .reason = reason});
}

errint shed_checkpoint(struct filesystem *fs, uint64_t checkpoint, const char *reason)
{
    cleanup_shed_files struct shed_files found;
    cleanup_free char *path = NULL;
    size_t shed = 0;
    errint error = shed_find(fs, checkpoint, &found);
    if (!error)
        error = found.count == 0 ? -ENODATA : shed_check(fs, checkpoint);
    if (!error)
        error = shed_check_files(fs, checkpoint, &found);
    if (!error)
        error = meta_path(fs->meta, checkpoint, &path);
    while (!error && shed < found.count) {
        error = fault_hit("fs.shed");
        if (!error)
            error = shed_file(fs, &found.at[shed]);
        shed += !error;
        /* Of some files only it is shed as well. */
        if (!error && shed == 1)
            checkpoints_note_shed(fs, checkpoint);
    }
    if (shed == 0)
        return error;
    shed_tell(fs, checkpoint, path, &found, shed, reason);
    if (error)
        log_warning("%s: of its optimizer's state a part stays: %s", path, strerror(-error));
    return 0;
}
