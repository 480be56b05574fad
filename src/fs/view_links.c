/* SPDX-License-Identifier: Apache-2.0 */
/* Links to the latest and the best checkpoints. */
#include "fs/view_links.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"
#include "fs/filesystem.h"
#include "meta/hidden.h"

/* A path has no more directories than that. */
enum { LINKS_DEPTH_MAX = 10000 };

/* The directory that lies in `above` and leads to the run, or is it; 0: it does not lie there. */
static uint64_t links_step(struct filesystem *fs, uint64_t above, uint64_t run)
{
    for (int depth = 0; depth < LINKS_DEPTH_MAX && run != META_ROOT_INO && run != META_HIDDEN_PARENT;
         depth++) {
        uint64_t parent;
        if (meta_parent(fs->meta, run, &parent) < 0)
            return 0;
        if (parent == above)
            return run;
        run = parent;
    }
    return 0;
}

enum view_link_kind view_links_look(struct filesystem *fs, enum checkpoint_mark mark, uint64_t ino)
{
    cleanup_ids struct ids runs = {0};
    if (checkpoints_marked(fs, ino, mark))
        return VIEW_LINK;
    if (ino == META_ROOT_INO)
        return VIEW_LINK_DIRECTORY;
    if (checkpoints_runs(fs, &runs) < 0)
        return VIEW_LINK_NONE;
    for (size_t i = 0; i < runs.count; i++) {
        if (checkpoints_marked(fs, runs.at[i], mark) && links_step(fs, ino, runs.at[i]))
            return VIEW_LINK_DIRECTORY;
    }
    return VIEW_LINK_NONE;
}

/* -- the target -------------------------------------------------------------------------------------------
 */

static size_t links_components(const char *path)
{
    size_t count = 0;
    for (; *path; path++)
        count += path[0] == '/' && path[1] != '\0';
    return count;
}

errint view_links_target(struct filesystem *fs, enum checkpoint_mark mark, uint64_t run, char **out)
{
    cleanup_free char *from = NULL;
    cleanup_free char *to = NULL;
    uint64_t checkpoint = checkpoints_marked(fs, run, mark);
    errint error = checkpoint ? meta_path(fs->meta, run, &from) : -ENOENT;
    if (!error)
        error = meta_path(fs->meta, checkpoint, &to);
    if (error)
        return error;
    /* From .ckptfs/latest/A, where the link RUN lies, the root is as far up as A/RUN is long, and one more.
     */
    size_t up = links_components(from) + 1;
    char *target = malloc(3 * up + strlen(to) + 1);
    if (!target)
        return -ENOMEM;
    char *end = target;
    for (size_t i = 0; i < up; i++)
        end = stpcpy(end, "../");
    strcpy(end, to[0] == '/' ? to + 1 : to);
    *out = target;
    return 0;
}

/* -- the tree ---------------------------------------------------------------------------------------------
 */

static int links_compare(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* What lies in the directory and leads to a run, each once. */
static errint links_collect(struct filesystem *fs, enum checkpoint_mark mark, uint64_t directory,
                            struct ids *out)
{
    cleanup_ids struct ids runs = {0};
    errint error = checkpoints_runs(fs, &runs);
    for (size_t i = 0; i < runs.count && !error; i++) {
        uint64_t step = checkpoints_marked(fs, runs.at[i], mark) ? links_step(fs, directory, runs.at[i]) : 0;
        if (step && !ids_contain(out, step))
            error = ids_append(out, step);
    }
    if (!error && out->count > 0)
        qsort(out->at, out->count, sizeof *out->at, links_compare);
    return error;
}

errint view_links_list(struct filesystem *fs, enum checkpoint_mark mark, uint64_t directory, uint64_t after,
                       bool (*entry)(void *context, const char *name, size_t length, uint64_t ino,
                                     enum view_link_kind kind),
                       void *context)
{
    cleanup_ids struct ids steps = {0};
    errint error = links_collect(fs, mark, directory, &steps);
    for (size_t i = 0; i < steps.count && !error; i++) {
        struct meta_name name;
        size_t count = 0;
        if (steps.at[i] <= after)
            continue;
        error = meta_find_names(fs->meta, steps.at[i], NULL, &name, 1, &count);
        enum view_link_kind kind = view_links_look(fs, mark, steps.at[i]);
        if (!error && count == 1 && kind != VIEW_LINK_NONE &&
            !entry(context, name.bytes, name.length, steps.at[i], kind))
            break;
        error = error == -ENOENT ? 0 : error;
    }
    return error;
}
