/* SPDX-License-Identifier: Apache-2.0 */
/* All that lies in a directory. */
#include "ckpt/tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/grow.h"

enum { TREE_MEMORY = 64 << 20, TREE_PATH_MAX = 4096 };

struct tree_reader {
    struct tree *tree;
    const char *directory;
    errint error;
};

static bool tree_take(void *context, const struct folder_entry *entry)
{
    struct tree_reader *reader = context;
    struct tree *tree = reader->tree;
    size_t directory = strlen(reader->directory), name = strlen(entry->name);
    size_t length = directory + (directory > 0) + name;
    if (tree->count == TREE_ENTRIES_MAX || length >= TREE_PATH_MAX) {
        tree->cut = true;
        return false;
    }
    char *path = arena_take(&tree->arena, length + 1);
    if (!path || !grow_reserve(tree->at, tree->capacity, tree->count + 1)) {
        reader->error = -ENOMEM;
        return false;
    }
    snprintf(path, length + 1, "%s%s%s", reader->directory, directory > 0 ? "/" : "", entry->name);
    tree->at[tree->count++] = (struct tree_entry){.path = path,
                                                  .name = path + length - name,
                                                  .directory = entry->directory,
                                                  .size = entry->size,
                                                  .time = entry->time};
    if (entry->directory)
        return true;
    tree->files++;
    if (__builtin_add_overflow(tree->bytes, entry->size, &tree->bytes))
        tree->bytes = INT64_MAX;
    if (entry->time > tree->newest)
        tree->newest = entry->time;
    return true;
}

static errint tree_read_directory(const struct folder *folder, const char *directory, struct tree *tree)
{
    struct tree_reader reader = {.tree = tree, .directory = directory};
    errint error = folder_list(folder, directory, tree_take, &reader);
    /* It was removed meanwhile, or the path is too long to be looked at. */
    if (*directory && (error == -ENOENT || error == -EINVAL || error == -ENOTDIR))
        error = 0;
    return error ? error : reader.error;
}

static unsigned tree_depth(const char *path)
{
    unsigned depth = 1;
    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

static int tree_compare(const void *one, const void *other)
{
    return strcmp(((const struct tree_entry *)one)->path, ((const struct tree_entry *)other)->path);
}

errint tree_read(const struct folder *folder, unsigned levels, struct tree *out)
{
    *out = (struct tree){.arena = {.limit = TREE_MEMORY}};
    errint error = tree_read_directory(folder, "", out);
    /* The list grows while it is gone through: each directory is read once. */
    for (size_t i = 0; i < out->count && !error; i++) {
        if (!out->at[i].directory)
            continue;
        if (tree_depth(out->at[i].path) <= levels)
            error = tree_read_directory(folder, out->at[i].path, out);
        else
            out->cut |= levels >= TREE_DEPTH_MAX;
    }
    if (out->count > 0)
        qsort(out->at, out->count, sizeof *out->at, tree_compare);
    return error;
}

void tree_release(struct tree *tree)
{
    free(tree->at);
    arena_release(&tree->arena);
    *tree = (struct tree){0};
}

const struct tree_entry *tree_find(const struct tree *tree, const char *path)
{
    const struct tree_entry wanted = {.path = path};
    if (tree->count == 0)
        return NULL;
    return bsearch(&wanted, tree->at, tree->count, sizeof wanted, tree_compare);
}

const struct tree_entry *tree_find_file(const struct tree *tree, const char *directory, size_t length,
                                        const char *name)
{
    char path[TREE_PATH_MAX];
    int written =
        snprintf(path, sizeof path, "%.*s%s%s", (int)length, directory, length > 0 ? "/" : "", name);
    if (written < 0 || written >= (int)sizeof path)
        return NULL;
    const struct tree_entry *entry = tree_find(tree, path);
    return entry && !entry->directory ? entry : NULL;
}
