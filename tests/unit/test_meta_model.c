/* SPDX-License-Identifier: Apache-2.0 */
/* A namespace in memory. */
#include "test_meta_model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct model_inode *model_get(struct model *model, uint64_t ino)
{
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (model->inodes[i].used && model->inodes[i].row.ino == ino)
            return &model->inodes[i];
    }
    return NULL;
}

struct model_inode *model_new(struct model *model)
{
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (!model->inodes[i].used) {
            model->inodes[i] = (struct model_inode){.used = true};
            return &model->inodes[i];
        }
    }
    return NULL;
}

struct model_name *model_find(struct model *model, uint64_t parent, const char *name)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        struct model_name *at = &model->names[i];
        if (at->used && at->parent == parent && strcmp(at->name, name) == 0)
            return at;
    }
    return NULL;
}

struct model_name *model_add_name(struct model *model, uint64_t parent, const char *name, uint64_t ino)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        struct model_name *at = &model->names[i];
        if (at->used)
            continue;
        *at = (struct model_name){.used = true, .parent = parent, .ino = ino};
        strncpy(at->name, name, sizeof at->name - 1);
        return at;
    }
    return NULL;
}

bool model_has_entries(const struct model *model, uint64_t directory)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        if (model->names[i].used && model->names[i].parent == directory)
            return true;
    }
    return false;
}

uint64_t model_parent(const struct model *model, uint64_t directory)
{
    if (directory == META_ROOT_INO)
        return META_ROOT_INO;
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        if (model->names[i].used && model->names[i].ino == directory)
            return model->names[i].parent;
    }
    return 0;
}

bool model_is_below(const struct model *model, uint64_t directory, uint64_t ancestor)
{
    while (directory && directory != ancestor && directory != META_ROOT_INO)
        directory = model_parent(model, directory);
    return directory == ancestor;
}

bool model_is_shadow(const struct model *model, uint64_t ino)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        const struct model_name *at = &model->names[i];
        if (at->used && at->shadowed && at->shadow == ino)
            return true;
    }
    return false;
}

void model_release(struct model *model, struct model_name *name, struct ids *list)
{
    if (name->shadowed && ids_append(list ? list : &model->released, name->shadow) < 0)
        abort();
    name->shadowed = false;
}

bool model_is_stand_in(const struct model *model, uint64_t ino)
{
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (model->inodes[i].used && model->inodes[i].stand_in == ino)
            return ino != 0;
    }
    return false;
}

void model_release_stand_in(struct model *model, struct model_inode *inode, struct ids *list)
{
    if (inode->stand_in && ids_append(list ? list : &model->released, inode->stand_in) < 0)
        abort();
    inode->stand_in = 0;
}

void model_reap(struct model *model, struct model_inode *inode)
{
    if (model_is_shadow(model, inode->row.ino) || model_is_stand_in(model, inode->row.ino))
        return;
    model_release_stand_in(model, inode, NULL);
    inode->used = false;
}

void model_unlinked(struct model *model, struct model_inode *inode, bool reap)
{
    inode->row.nlink = S_ISDIR(inode->row.mode) ? 0 : inode->row.nlink - 1;
    if (inode->row.nlink == 0 && reap)
        model_reap(model, inode);
}

static bool model_file_refers(const struct model_inode *inode, uint64_t object)
{
    if (!inode->used)
        return false;
    if (inode->row.kind == META_OBJECT)
        return inode->row.object == object;
    for (int64_t i = 0; inode->row.kind == META_EXTENTS && i < inode->row.size && i < MODEL_SIZE; i++) {
        if (inode->cells[i].object == object)
            return true;
    }
    return false;
}

bool model_refers(const struct model *model, uint64_t object, uint64_t except)
{
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (model->inodes[i].row.ino != except && model_file_refers(&model->inodes[i], object))
            return true;
    }
    return false;
}

static void model_add_object(struct ids *ids, uint64_t object)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->at[i] == object)
            return;
    }
    if (object && ids_append(ids, object) < 0)
        abort();
}

void model_objects(const struct model *model, struct ids *out)
{
    out->count = 0;
    for (size_t i = 0; i < MODEL_INODES; i++) {
        const struct model_inode *inode = &model->inodes[i];
        if (!inode->used)
            continue;
        if (inode->row.kind == META_OBJECT)
            model_add_object(out, inode->row.object);
        for (int64_t j = 0; inode->row.kind == META_EXTENTS && j < inode->row.size; j++)
            model_add_object(out, inode->cells[j].object);
    }
}

void model_clear(struct model_inode *inode)
{
    inode->row.kind = META_NONE;
    inode->row.object = 0;
    inode->row.size = 0;
    inode->stored = 0;
    inode->spare = false;
    memset(inode->cells, 0, sizeof inode->cells);
    memset(inode->bytes, 0, sizeof inode->bytes);
}
