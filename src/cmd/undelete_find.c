/* SPDX-License-Identifier: Apache-2.0 */
/* From a path to entries of the trash. */
#include "cmd/undelete_find.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/grow.h"
#include "base/log.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "fs/mount_table.h"

/* -- paths ------------------------------------------------------------------------------------------------
 */

static bool undelete_has_dots(const char *path)
{
    for (const char *at = path; at; at = strchr(at, '/')) {
        at += strspn(at, "/");
        size_t length = strcspn(at, "/");
        if ((length == 1 || length == 2) && strncmp(at, "..", length) == 0)
            return true;
    }
    return false;
}

char *undelete_resolve(const char *path)
{
    char *joined = NULL;
    cleanup_free char *here = path[0] == '/' ? strdup("") : getcwd(NULL, 0);
    cleanup_free char *absolute = NULL;
    if (!here || asprintf(&absolute, "%s/%s", here, path) < 0)
        return NULL;
    for (size_t length = strlen(absolute); length > 1 && absolute[length - 1] == '/'; length--)
        absolute[length - 1] = '\0';
    for (size_t length = strlen(absolute);;) {
        cleanup_free char *front = strndup(absolute, length ? length : 1);
        cleanup_free char *real = front ? realpath(front, NULL) : NULL;
        const char *rest = absolute + length;
        if (real && !undelete_has_dots(rest))
            return asprintf(&joined, "%s%s", strcmp(real, "/") == 0 && *rest ? "" : real, rest) < 0 ? NULL
                                                                                                    : joined;
        if (real || length == 0)
            return NULL;
        while (length > 0 && absolute[--length] != '/')
            continue;
    }
}

/* The mount of ours that holds the path: its mountpoint is the longest that the path begins with. */
static const struct mount_entry *undelete_find_mount(const struct mount_table *table, const char *path)
{
    const struct mount_entry *best = NULL;
    size_t best_length = 0;
    for (size_t i = 0; i < table->count; i++) {
        const char *mountpoint = table->entries[i].mountpoint;
        size_t length = strcmp(mountpoint, "/") == 0 ? 0 : strlen(mountpoint);
        if (length >= best_length && strncmp(mountpoint, path, length) == 0 &&
            (path[length] == '/' || path[length] == '\0')) {
            best = &table->entries[i];
            best_length = length;
        }
    }
    return best && mount_entry_is_ours(best) ? best : NULL;
}

static int undelete_split(const char *path, struct undelete_place *out)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_free char *absolute = undelete_resolve(path);
    if (!absolute || mount_table_read(&table) != 0)
        return directory_explain(path, absolute ? ENOMEM : ENOENT);
    const struct mount_entry *mount = undelete_find_mount(&table, absolute);
    if (!mount)
        return directory_explain(path, ENOTTY);
    const char *relative = absolute + strlen(mount->mountpoint);
    size_t view = strlen(UNDELETE_VIEW);
    if (strncmp(relative, UNDELETE_VIEW, view) == 0 && (relative[view] == '/' || !relative[view]))
        relative += view;
    out->mountpoint = strdup(mount->mountpoint);
    out->relative = strdup(relative);
    return out->mountpoint && out->relative ? EXIT_FINE : directory_explain(path, ENOMEM);
}

/* -- entries ----------------------------------------------------------------------------------------------
 */

static int undelete_read(int fd, struct undelete_place *out)
{
    size_t capacity = 0;
    for (uint64_t after = 0;;) {
        if (!grow_reserve(out->entries, capacity, out->count + 1))
            return ENOMEM;
        struct control_trash *entry = &out->entries[out->count];
        *entry = (struct control_trash){.id = after};
        int error = directory_ask(fd, CKPTFS_IOCTL_TRASH_NEXT, entry);
        if (error)
            return error == ENOENT ? 0 : error;
        if (entry->id <= after || !memchr(entry->path, '\0', sizeof entry->path) ||
            !memchr(entry->reason, '\0', sizeof entry->reason))
            return EPROTO;
        after = entry->id;
        out->count++;
    }
}

static int undelete_compare(const void *a, const void *b)
{
    const struct control_trash *left = a, *right = b;
    int order = (left->removed > right->removed) - (left->removed < right->removed);
    return order ? order : (left->id > right->id) - (left->id < right->id);
}

int undelete_place_find(const char *path, struct undelete_place *out)
{
    cleanup_fd int fd = -1;
    int code = undelete_split(path, out);
    if (!code)
        code = directory_open(out->mountpoint, &fd);
    int error = code ? 0 : undelete_read(fd, out);
    if (error)
        code = directory_explain(path, error);
    if (!code && out->count > 0)
        qsort(out->entries, out->count, sizeof *out->entries, undelete_compare);
    return code;
}

void undelete_place_release(struct undelete_place *place)
{
    free(place->mountpoint);
    free(place->relative);
    free(place->entries);
}

/* Whether the path is the entry's with its number behind it. */
static bool undelete_is_numbered(const struct undelete_place *place, const struct control_trash *entry)
{
    char number[24];
    int digits = snprintf(number, sizeof number, "~%" PRIu64, entry->id);
    size_t length = strlen(entry->path);
    return strncmp(place->relative, entry->path, length) == 0 &&
           strlen(place->relative) == length + (size_t)digits &&
           strcmp(place->relative + length, number) == 0;
}

const struct control_trash *undelete_find_numbered(const struct undelete_place *place)
{
    for (size_t i = 0; i < place->count; i++) {
        if (undelete_is_numbered(place, &place->entries[i]))
            return &place->entries[i];
    }
    return NULL;
}

const struct control_trash *undelete_find_entry(const struct undelete_place *place)
{
    const struct control_trash *found = undelete_find_numbered(place);
    for (size_t i = place->count; i > 0 && !found; i--) {
        if (strcmp(place->entries[i - 1].path, place->relative) == 0)
            found = &place->entries[i - 1];
    }
    return found;
}

bool undelete_is_below(const struct undelete_place *place, const struct control_trash *entry)
{
    size_t length = strcmp(place->relative, "/") == 0 ? 0 : strlen(place->relative);
    return strncmp(entry->path, place->relative, length) == 0 &&
           (entry->path[length] == '/' || entry->path[length] == '\0');
}

char *undelete_path_of(const struct undelete_place *place, const struct control_trash *entry)
{
    char *path;
    const char *mountpoint = strcmp(place->mountpoint, "/") == 0 ? "" : place->mountpoint;
    return asprintf(&path, "%s%s", mountpoint, entry->path) < 0 ? NULL : path;
}

const char *undelete_time_text(int64_t time, bool local, char out[UNDELETE_TIME_MAX])
{
    struct timespec at = clock_to_timespec(time);
    struct tm parts;
    const char *format = local ? "%Y-%m-%d %H:%M" : "%Y-%m-%dT%H:%M:%SZ";
    if (!(local ? localtime_r(&at.tv_sec, &parts) : gmtime_r(&at.tv_sec, &parts)) ||
        !strftime(out, UNDELETE_TIME_MAX, format, &parts))
        out[0] = '\0';
    return out;
}
