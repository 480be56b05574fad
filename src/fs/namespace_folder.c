/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of the namespace as folders. */
#include "fs/namespace_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "ckpt/tied.h"
#include "fs/checkpoints.h"
#include "fs/content.h"
#include "fs/inputs.h"
#include "fs/models.h"
#include "fs/rewrite.h"

/* Directories of more entries are no checkpoints. */
enum { NAMESPACE_ENTRIES_MAX = 1 << 16 };

/* -- names ------------------------------------------------------------------------------------------------
 */

errint namespace_find(struct filesystem *fs, uint64_t directory, const char *path, size_t length,
                      struct meta_inode *out)
{
    errint error = length == 0 ? meta_get(fs->meta, directory, out) : 0;
    while (length > 0 && !error) {
        const char *slash = memchr(path, '/', length);
        size_t part = slash ? (size_t)(slash - path) : length;
        error = meta_lookup(fs->meta, directory, path, part, out);
        if (!error && slash && !S_ISDIR(out->mode))
            error = -ENOENT;
        directory = out->ino;
        path += part + (slash ? 1 : 0);
        length -= part + (slash ? 1 : 0);
    }
    return error == -ENOTDIR ? -ENOENT : error;
}

struct namespace_entry {
    char name[META_NAME_MAX + 1];
    bool directory;
    uint64_t ino;
    int64_t size, time, made;
};

struct namespace_list {
    struct namespace_entry *at;
    size_t count, capacity;
    errint error;
};

/* The receiver of a listing may ask for more of the namespace: so all is collected first. */
static bool namespace_collect(void *context, const char *name, size_t length, uint64_t cookie,
                              const struct meta_inode *inode)
{
    (void)cookie;
    struct namespace_list *list = context;
    if (inode->state & META_ASSEMBLED)
        return true; /* nobody saved it */
    if (!S_ISDIR(inode->mode) && !S_ISREG(inode->mode))
        return true;
    if (list->count == NAMESPACE_ENTRIES_MAX) {
        list->error = -EFBIG;
        return false;
    }
    if (!grow_reserve(list->at, list->capacity, list->count + 1)) {
        list->error = -ENOMEM;
        return false;
    }
    struct namespace_entry *entry = &list->at[list->count++];
    memcpy(entry->name, name, length);
    entry->name[length] = '\0';
    entry->directory = S_ISDIR(inode->mode);
    entry->size = entry->directory ? 0 : inode->size;
    entry->time = inode->mtime;
    entry->ino = inode->ino;
    entry->made = inode->btime;
    return true;
}

/* -EBUSY while somebody can write the file, or, unless `unsafe`, its bytes are not safe. */
static errint namespace_check(struct filesystem *fs, struct node *node, bool unsafe, struct meta_inode *row)
{
    node_lock(node);
    errint error = node_load(fs, node);
    if (!error)
        error = meta_get(fs->meta, node->ino, row);
    bool ready = !error && node->writers == 0 && node->kind != META_OBJECT && !node->overlay &&
                 (unsafe || !(row->state & META_DIRTY));
    node_unlock(node);
    if (!error && (row->state & META_TORN))
        return -EIO;
    return error || ready ? error : -EBUSY;
}

/* The checkpoint that a directory belongs to. */
struct namespace_checkpoint {
    struct meta_checkpoint row;
    uint64_t kept; /* rewrite_kept */
};

/* 1: the file is being added to the checkpoint, 0; or -ENOMEM. */
static int namespace_is_added(const struct namespace_folder *folder,
                              const struct namespace_checkpoint *checkpoint,
                              const struct namespace_entry *entry)
{
    const struct checkpoints_file file = {entry->name, entry->ino, entry->made};
    struct meta_inode row;
    if (entry->directory || !checkpoints_is_addition(&checkpoint->row, checkpoint->kept, &file))
        return 0;
    struct node *node = node_get(folder->fs, entry->ino);
    bool added = node && namespace_check(folder->fs, node, false, &row) == -EBUSY;
    errint error = !node ? -ENOMEM : 0;
    node_put(folder->fs, node);
    if (added && !ids_contain(folder->added_to, checkpoint->row.directory))
        error = ids_append(folder->added_to, checkpoint->row.directory);
    return error ? error : added;
}

static void namespace_find_checkpoint(struct filesystem *fs, uint64_t directory,
                                      struct namespace_checkpoint *out)
{
    uint64_t root = checkpoints_root(fs, directory);
    if (root && checkpoints_get(fs, root, &out->row) == 0)
        out->kept = rewrite_kept(fs, root);
}

static errint namespace_list(void *context, const char *path,
                             bool (*visit)(void *visit_context, const struct folder_entry *entry),
                             void *visit_context)
{
    const struct namespace_folder *folder = context;
    struct namespace_checkpoint checkpoint = {0};
    struct meta_inode row;
    struct namespace_list list = {0};
    errint error = namespace_find(folder->fs, folder->directory, path, strlen(path), &row);
    if (!error && folder->added_to)
        namespace_find_checkpoint(folder->fs, row.ino, &checkpoint);
    if (!error)
        error = meta_list(folder->fs->meta, row.ino, 0, namespace_collect, &list);
    if (!error)
        error = list.error;
    for (size_t i = 0; !error && i < list.count; i++) {
        int added = folder->added_to ? namespace_is_added(folder, &checkpoint, &list.at[i]) : 0;
        error = added < 0 ? added : 0;
        if (added)
            continue;
        const struct folder_entry entry = {list.at[i].name, list.at[i].directory, list.at[i].size,
                                           list.at[i].time};
        if (!visit(visit_context, &entry))
            break;
    }
    free(list.at);
    return error;
}

/* -- files ------------------------------------------------------------------------------------------------
 */

struct namespace_file {
    struct namespace_folder *folder;
    struct node *node;
};

static errint namespace_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct namespace_file *file = context;
    const struct namespace_folder *folder = file->folder;
    return content_read_all(folder->fs, file->node, folder->buffer, buffer, length, offset, folder->stops);
}

static errint namespace_note(struct namespace_folder *folder, const char *path, const struct meta_inode *row)
{
    if (namespace_folder_find(folder, path))
        return 0;
    if (!grow_reserve(folder->inputs, folder->input_capacity, folder->input_count + 1))
        return -ENOMEM;
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    folder->inputs[folder->input_count++] = (struct namespace_input){copy, *row};
    return 0;
}

/* The file of that path; `lent`: it is another directory's. */
static errint namespace_find_file(struct namespace_folder *folder, const char *path, struct meta_inode *row,
                                  bool *lent)
{
    struct filesystem *fs = folder->fs;
    errint error = namespace_find(fs, folder->directory, path, strlen(path), row);
    if (!error && (row->state & META_LENT))
        error = -ENOENT; /* nobody saved it */
    *lent = error == -ENOENT && folder->lends && strcmp(path, TIED_CONFIG_NAME) == 0;
    folder->lacks |= *lent;
    if (*lent)
        error = models_find_lent(fs, folder->directory, path, row);
    return error || S_ISREG(row->mode) ? error : S_ISDIR(row->mode) ? -EISDIR : -ENOENT;
}

static errint namespace_open(void *context, const char *path, struct format_source *out)
{
    struct namespace_folder *folder = context;
    struct filesystem *fs = folder->fs;
    struct meta_inode row;
    bool lent;
    errint error = namespace_find_file(folder, path, &row, &lent);
    bool notes = !folder->looks && !folder->peeks && !lent;
    /* Before it is looked at: whoever changes it from now on is noticed. */
    if (!error && notes && !folder->compares)
        error = inputs_watch(fs, row.ino);
    struct namespace_file *file = error ? NULL : malloc(sizeof *file);
    struct node *node = file ? node_get(fs, row.ino) : NULL;
    if (!error && !node)
        error = -ENOMEM;
    if (!error)
        error = namespace_check(fs, node, folder->peeks, &row);
    if (!error && notes)
        error = namespace_note(folder, path, &row);
    folder->busy |= error == -EBUSY;
    if (error == -EBUSY && folder->peeks)
        error = -ENOENT;
    if (error) {
        node_put(fs, node);
        free(file);
        return error;
    }
    *file = (struct namespace_file){folder, node};
    *out = (struct format_source){.context = file, .size = row.size, .read = namespace_read};
    return 0;
}

static void namespace_close(void *context, struct format_source *source)
{
    struct namespace_folder *folder = context;
    struct namespace_file *file = source->context;
    node_put(folder->fs, file->node);
    free(file);
    source->context = NULL;
}

static bool namespace_is_shed(void *context, const char *path)
{
    const struct namespace_folder *folder = context;
    struct meta_inode row;
    return namespace_find(folder->fs, folder->directory, path, strlen(path), &row) == 0 &&
           (row.state & META_SHED);
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

errint namespace_folder_open(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs),
                             struct namespace_folder *folder, struct folder *out)
{
    *folder = (struct namespace_folder){.fs = fs, .directory = directory, .stops = stops};
    *out = (struct folder){.context = folder,
                           .list = namespace_list,
                           .open = namespace_open,
                           .close = namespace_close,
                           .is_shed = namespace_is_shed};
    folder->buffer = aligned_alloc(CONTENT_ALIGNMENT, FS_MAX_WRITE + 2 * CONTENT_ALIGNMENT);
    return folder->buffer ? 0 : -ENOMEM;
}

void namespace_folder_release(struct namespace_folder *folder)
{
    for (size_t i = 0; i < folder->input_count; i++)
        free(folder->inputs[i].path);
    free(folder->inputs);
    free(folder->buffer);
}

const struct namespace_input *namespace_folder_find(const struct namespace_folder *folder, const char *path)
{
    for (size_t i = 0; i < folder->input_count; i++) {
        if (strcmp(folder->inputs[i].path, path) == 0)
            return &folder->inputs[i];
    }
    return NULL;
}
