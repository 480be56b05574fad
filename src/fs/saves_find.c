/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoint a file is written into. */
#include <errno.h>
#include <string.h>

#include "ckpt/detect.h"
#include "fs/namespace_folder.h"
#include "fs/saves.h"

enum { SAVES_DEPTH = 32 };

/* safetensors writes under such a name, in the directory of the file that it will be. */
#define SAVES_TEMPORARY ".tmp"

/* The directory and the name of an entry; -ENOENT: it has none. */
static errint saves_name(struct filesystem *fs, uint64_t ino, struct meta_name *name)
{
    size_t count = 0;
    errint error = meta_find_names(fs->meta, ino, NULL, name, 1, &count);
    return error || count > 0 ? error : -ENOENT;
}

/* Where no name tells: what is in the directory. */
static errint saves_look_inside(struct filesystem *fs, uint64_t directory, const struct meta_name *file,
                                bool *own_only)
{
    cleanup_namespace_folder struct namespace_folder names = {0};
    cleanup_detect struct detect detect = {0};
    struct meta_name own = {0};
    struct meta_inode row;
    struct folder folder;
    errint error = saves_name(fs, directory, &own);
    if (!error || error == -ENOENT)
        error = namespace_folder_open(fs, directory, outlook_stops, &names, &folder);
    names.peeks = true;
    if (!error)
        error = detect_checkpoints(&folder, own.bytes, &detect);
    if (error)
        return error;
    for (size_t i = 0; i < detect.count; i++) {
        if (*detect.at[i].path && strcmp(detect.at[i].path, file->bytes) != 0)
            continue;
        *own_only = detect.at[i].own_level || detect.at[i].file;
        return 0;
    }
    bool begun = strncmp(file->bytes, SAVES_TEMPORARY, strlen(SAVES_TEMPORARY)) == 0 &&
                 meta_lookup(fs->meta, directory, "config.json", strlen("config.json"), &row) == 0;
    *own_only = true;
    return begun ? 0 : -ENOENT;
}

errint saves_find_checkpoint(struct filesystem *fs, uint64_t file, uint64_t *directory, bool *own_only)
{
    struct meta_name first, name;
    errint error = saves_name(fs, file, &first);
    if (error)
        return error;
    uint64_t found = 0, at = first.parent;
    /* DeepSpeed's tags lie in the Trainer's checkpoints: the outermost of neighbours is the one. */
    for (unsigned depth = 0; at != META_ROOT_INO && depth < SAVES_DEPTH; depth++) {
        if (saves_name(fs, at, &name) != 0)
            return -ENOENT;
        if (detect_step_of_name(name.bytes) >= 0)
            found = at;
        else if (found)
            break;
        at = name.parent;
    }
    *directory = found ? found : first.parent;
    *own_only = false;
    return found ? 0 : saves_look_inside(fs, first.parent, &first, own_only);
}
