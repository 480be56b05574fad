/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of shards and the checkpoints above them. */
#include "fs/assemble_part.h"

#include <errno.h>
#include <string.h>

#include "ckpt/framework.h"
#include "fs/namespace_folder.h"
#include "meta/assembled.h"

/* Whether the checkpoint takes shards from that directory in it. */
static bool part_takes_from(const struct model *model, const char *name, size_t length)
{
    for (size_t i = 0; i < model->file_count; i++) {
        const char *path = model->files[i].path;
        if (strncmp(path, name, length) == 0 && path[length] == '/')
            return true;
    }
    return false;
}

int assemble_is_part(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs))
{
    cleanup_namespace_folder struct namespace_folder folder = {0};
    struct folder reader;
    struct meta_name name;
    size_t count;
    if (directory == META_ROOT_INO)
        return 0;
    errint error = meta_find_names(fs->meta, directory, NULL, &name, 1, &count);
    if (error || count == 0)
        return error;
    error = namespace_folder_open(fs, name.parent, stops, &folder, &reader);
    if (error)
        return error;
    cleanup_model struct model model;
    error = framework_load(&reader, NULL, &model);
    if (!error && part_takes_from(&model, name.bytes, name.length))
        return 1;
    return folder.busy ? -EBUSY : error == -ENOMEM || error == -EIO || error == -ECANCELED ? error : 0;
}

void assemble_withdraw_parts(struct filesystem *fs, uint64_t directory, const struct model *model)
{
    const char *last = "";
    size_t last_length = 0;
    for (size_t i = 0; i < model->file_count; i++) {
        const char *path = model->files[i].path, *slash = strchr(path, '/');
        struct meta_inode row;
        if (!slash || ((size_t)(slash - path) == last_length && memcmp(path, last, last_length) == 0))
            continue;
        last = path;
        last_length = (size_t)(slash - path);
        if (namespace_find(fs, directory, path, last_length, &row) == 0)
            meta_assembled_withdraw(fs->meta, row.ino, NULL);
    }
}
