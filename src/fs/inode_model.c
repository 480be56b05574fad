/* SPDX-License-Identifier: Apache-2.0 */
/* A folder that holds one file, whatever it is called. */
#include "fs/inode_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ckpt/weights.h"
#include "fs/content.h"
#include "fs/filesystem.h"

struct inode_model {
    struct filesystem *fs;
    bool (*stops)(struct filesystem *fs);
    struct node *node;
    int64_t size;
    char *buffer;
};

static errint inode_model_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct inode_model *file = context;
    return content_read_all(file->fs, file->node, file->buffer, buffer, length, offset, file->stops);
}

static errint inode_model_list(void *context, const char *path,
                               bool (*visit)(void *visit_context, const struct folder_entry *entry),
                               void *visit_context)
{
    (void)context, (void)path, (void)visit, (void)visit_context;
    return 0;
}

static errint inode_model_open(void *context, const char *path, struct format_source *out)
{
    struct inode_model *file = context;
    (void)path;
    *out = (struct format_source){.context = file, .size = file->size, .read = inode_model_read};
    return 0;
}

static void inode_model_close(void *context, struct format_source *source)
{
    (void)context;
    source->context = NULL;
}

static errint inode_model_parse(struct inode_model *file, struct model *out)
{
    const struct folder folder = {
        .context = file, .list = inode_model_list, .open = inode_model_open, .close = inode_model_close};
    errint error = weights_read(&folder, "file", out, NULL, NULL);
    return error ? error : model_check(out);
}

errint inode_model_load(struct filesystem *fs, uint64_t ino, bool (*stops)(struct filesystem *fs),
                        struct model *out)
{
    struct inode_model file = {.fs = fs, .stops = stops};
    struct meta_inode row;
    model_begin(out);
    errint error = meta_get(fs->meta, ino, &row);
    if (!error && !S_ISREG(row.mode))
        error = -ENOENT;
    if (error)
        return error;
    file.size = row.size;
    file.buffer = aligned_alloc(CONTENT_ALIGNMENT, FS_MAX_WRITE + 2 * CONTENT_ALIGNMENT);
    file.node = file.buffer ? node_get(fs, ino) : NULL;
    if (file.node) {
        node_lock(file.node);
        error = node_load(fs, file.node);
        node_unlock(file.node);
    } else {
        error = -ENOMEM;
    }
    if (!error)
        error = inode_model_parse(&file, out);
    if (file.node)
        node_put(fs, file.node);
    free(file.buffer);
    return error;
}
