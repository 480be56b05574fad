/* SPDX-License-Identifier: Apache-2.0 */
/* A directory of a folder as a folder: the path goes in front. */
#include "ckpt/folder_below.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FOLDER_BELOW_PATH_MAX = 4096 };

static errint folder_below_join(const struct folder_below *below, const char *path,
                                char joined[FOLDER_BELOW_PATH_MAX])
{
    int length = snprintf(joined, FOLDER_BELOW_PATH_MAX, "%s%s%s", below->path,
                          *below->path && *path ? "/" : "", path);
    return length < 0 || length >= FOLDER_BELOW_PATH_MAX ? -ENAMETOOLONG : 0;
}

struct folder_below_filter {
    const char *only;
    bool (*visit)(void *visit_context, const struct folder_entry *entry);
    void *visit_context;
};

static bool folder_below_visit(void *context, const struct folder_entry *entry)
{
    const struct folder_below_filter *filter = context;
    return strcmp(entry->name, filter->only) != 0 || filter->visit(filter->visit_context, entry);
}

static errint folder_below_list(void *context, const char *path,
                                bool (*visit)(void *visit_context, const struct folder_entry *entry),
                                void *visit_context)
{
    const struct folder_below *below = context;
    char joined[FOLDER_BELOW_PATH_MAX];
    struct folder_below_filter filter = {below->only, visit, visit_context};
    errint error = folder_below_join(below, path, joined);
    if (error || !below->only)
        return error ? error : folder_list(below->folder, joined, visit, visit_context);
    return *path ? -ENOENT : folder_list(below->folder, joined, folder_below_visit, &filter);
}

static errint folder_below_open(void *context, const char *path, struct format_source *out)
{
    const struct folder_below *below = context;
    char joined[FOLDER_BELOW_PATH_MAX];
    if (below->only && strcmp(path, below->only) != 0)
        return -ENOENT;
    errint error = folder_below_join(below, path, joined);
    return error ? error : folder_open(below->folder, joined, out);
}

static void folder_below_close(void *context, struct format_source *source)
{
    const struct folder_below *below = context;
    folder_close(below->folder, source);
}

static bool folder_below_is_shed(void *context, const char *path)
{
    const struct folder_below *below = context;
    char joined[FOLDER_BELOW_PATH_MAX];
    return (!below->only || strcmp(path, below->only) == 0) && folder_below_join(below, path, joined) == 0 &&
           folder_is_shed(below->folder, joined);
}

void folder_below(const struct folder_below *below, struct folder *out)
{
    *out = (struct folder){.context = (void *)below,
                           .list = folder_below_list,
                           .open = folder_below_open,
                           .close = folder_below_close,
                           .is_shed = folder_below_is_shed};
}
