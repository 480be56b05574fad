/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a checkpoint away. */
#include "fs/keep_remove.h"

#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "fs/assembler.h"
#include "fs/checkpoints.h"
#include "fs/discard.h"
#include "fs/events.h"
#include "fs/expire.h"
#include "fs/filesystem.h"
#include "fs/keep.h"
#include "fs/policy.h"
#include "fs/trash.h"
#include "fs/writeback.h"
#include "meta/hidden.h"

/* Names of a directory, read under one lock. */
enum { KEEP_PAGE = 256 };

static bool keep_never_stops(void *context)
{
    (void)context;
    return false;
}

/* -- out of sight -----------------------------------------------------------------------------------------
 */

static errint keep_check(struct filesystem *fs, uint64_t ino)
{
    struct keep_marks marks;
    if (ino <= META_ROOT_INO)
        return -EINVAL;
    const struct keep_asked asked = {.ino = ino, .stops = keep_never_stops};
    errint error = keep_find_marks(fs, &asked, &marks);
    return error ? error : keep_is_used(&marks) ? -EBUSY : 0;
}

static size_t keep_print_name(char out[META_NAME_MAX + 1], uint64_t ino)
{
    return (size_t)snprintf(out, META_NAME_MAX + 1, "%llu", (unsigned long long)ino);
}

/* The directory that it lay in keeps its time, unless somebody else has changed it; the kernel forgets the
 * name. */
static void keep_settle(struct filesystem *fs, const struct meta_name *name,
                        const struct meta_inode *directory, int64_t removed)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, name->parent, &row);
    if (!error && row.mtime == removed)
        error = meta_set(fs->meta, name->parent, META_SET_MTIME, directory, 0, NULL);
    if (error)
        log_warning("inode %llu: its time is that of a removal: %s", (unsigned long long)name->parent,
                    strerror(-error));
    expire_name(fs, name);
    assembler_touch_directory(fs, name->parent);
    checkpoints_touch_directory(fs, name->parent);
}

static errint keep_hide(struct filesystem *fs, uint64_t ino, const struct meta_name *name)
{
    char hidden_name[META_NAME_MAX + 1];
    size_t length = keep_print_name(hidden_name, ino);
    struct meta_inode directory;
    uint64_t hidden;
    cleanup_ids struct ids freed = {0};
    errint error = meta_get(fs->meta, name->parent, &directory);
    if (!error)
        error = meta_hidden_make(fs->meta, META_HIDDEN_REMOVED, clock_file_time(), &hidden);
    struct node *node = error ? NULL : node_get(fs, ino);
    if (!node)
        return error ? error : -ENOMEM;
    const struct meta_rename rename = {.parent = name->parent,
                                       .name = name->bytes,
                                       .length = name->length,
                                       .new_parent = hidden,
                                       .new_name = hidden_name,
                                       .new_length = length,
                                       .flags = RENAME_NOREPLACE,
                                       .expected = ino,
                                       .now = clock_file_time()};
    node_lock(node);
    error = meta_rename(fs->meta, &rename, 0, &freed);
    node_unlock(node);
    node_put(fs, node);
    if (!error)
        keep_settle(fs, name, &directory, rename.now);
    discard_objects(fs, &freed);
    return error;
}

/* -- apart ------------------------------------------------------------------------------------------------
 */

struct keep_entry {
    char name[META_NAME_MAX + 1];
    size_t length;
    uint64_t ino;
    bool directory;
};

struct keep_page {
    struct keep_entry *at;
    size_t count;
};

static bool keep_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)cookie;
    struct keep_page *page = context;
    if (inode->state & META_ASSEMBLED)
        return true; /* goes with its directory */
    struct keep_entry *entry = &page->at[page->count++];
    memcpy(entry->name, name, length);
    entry->length = length;
    entry->ino = inode->ino;
    entry->directory = S_ISDIR(inode->mode);
    return page->count < KEEP_PAGE;
}

static errint keep_drop_name(struct filesystem *fs, uint64_t parent, const struct keep_entry *entry)
{
    cleanup_ids struct ids freed = {0};
    int64_t now = clock_file_time();
    struct node *node = node_get(fs, entry->ino);
    if (!node)
        return -ENOMEM;
    node_lock(node);
    errint error =
        entry->directory
            ? meta_rmdir(fs->meta, parent, entry->name, entry->length, entry->ino, false, now, 0)
            : meta_unlink(fs->meta, parent, entry->name, entry->length, entry->ino, false, now, 0, &freed);
    node_unlock(node);
    /* Who has it open has it to the end. */
    if (!error)
        node_reap(fs, node);
    node_put(fs, node);
    discard_objects(fs, &freed);
    return error;
}

/* A page of a directory: files go, and one of its directories is told; else whether it was empty. */
static errint keep_drop_page(struct filesystem *fs, uint64_t directory, struct keep_page *page,
                             uint64_t *below)
{
    page->count = 0;
    *below = 0;
    errint error = meta_list(fs->meta, directory, 0, keep_take_entry, page);
    for (size_t i = 0; i < page->count && !error; i++) {
        if (page->at[i].directory)
            *below = page->at[i].ino;
        else
            error = keep_drop_name(fs, directory, &page->at[i]);
    }
    return error;
}

static errint keep_drop_directory(struct filesystem *fs, uint64_t directory)
{
    struct meta_name name;
    size_t count = 0;
    errint error = meta_find_names(fs->meta, directory, NULL, &name, 1, &count);
    if (error || count == 0)
        return error ? error : -ENOENT;
    struct keep_entry entry = {.length = name.length, .ino = directory, .directory = true};
    memcpy(entry.name, name.bytes, name.length);
    return keep_drop_name(fs, name.parent, &entry);
}

/* Removes all that lies in a directory, however deep: the way down is a list. */
static errint keep_empty(struct filesystem *fs, uint64_t directory)
{
    cleanup_ids struct ids way = {0};
    struct keep_page page = {.at = calloc(KEEP_PAGE, sizeof *page.at)};
    errint error = page.at ? ids_append(&way, directory) : -ENOMEM;
    while (!error && way.count > 0) {
        uint64_t below, at = way.at[way.count - 1];
        error = keep_drop_page(fs, at, &page, &below);
        if (error || page.count > 0) {
            if (!error && below)
                error = ids_append(&way, below);
            continue;
        }
        way.count--;
        if (way.count > 0)
            error = keep_drop_directory(fs, at);
    }
    free(page.at);
    return error;
}

/* One at a time: what is there may be found by two. */
static pthread_mutex_t keep_rest_lock = PTHREAD_MUTEX_INITIALIZER;

errint keep_remove_rest(struct filesystem *fs)
{
    uint64_t hidden;
    pthread_mutex_lock(&keep_rest_lock);
    errint error = meta_hidden_find(fs->meta, META_HIDDEN_REMOVED, &hidden);
    if (!error)
        error = keep_empty(fs, hidden);
    pthread_mutex_unlock(&keep_rest_lock);
    return error == -ENOENT ? 0 : error;
}

errint keep_remove_hidden(struct filesystem *fs, uint64_t ino)
{
    pthread_mutex_lock(&keep_rest_lock);
    errint error = keep_empty(fs, ino);
    if (!error)
        error = keep_drop_directory(fs, ino);
    pthread_mutex_unlock(&keep_rest_lock);
    writeback_kick(fs);
    return error == -ENOENT ? 0 : error;
}

/* What was hidden, of that type. */
static errint keep_take_apart(struct filesystem *fs, uint64_t ino)
{
    struct meta_inode row;
    uint64_t hidden;
    errint error = fault_hit("fs.keep.apart");
    if (!error)
        error = meta_get(fs->meta, ino, &row);
    if (!error && S_ISDIR(row.mode)) {
        error = keep_empty(fs, ino);
        return error ? error : keep_drop_directory(fs, ino);
    }
    if (!error)
        error = meta_hidden_find(fs->meta, META_HIDDEN_REMOVED, &hidden);
    struct keep_entry entry = {.ino = ino};
    entry.length = keep_print_name(entry.name, ino);
    return error ? error : keep_drop_name(fs, hidden, &entry);
}

/* Whether it went where it can be had back for a while; else it is to be removed. */
static bool keep_to_trash(struct filesystem *fs, uint64_t ino, const struct meta_name *name,
                          const char *reason)
{
    struct meta_inode row, directory;
    bool keeps;
    if (meta_get(fs->meta, ino, &row) < 0 || !S_ISDIR(row.mode) || policy_trash(fs, ino, &keeps, NULL) < 0 ||
        !keeps || meta_get(fs->meta, name->parent, &directory) < 0)
        return false;
    int64_t now = clock_file_time();
    errint error = trash_take_directory(fs, ino, reason);
    if (error)
        log_warning("inode %llu: it cannot go to the trash, and is removed for good: %s",
                    (unsigned long long)ino, strerror(-error));
    else
        keep_settle(fs, name, &directory, now);
    return !error;
}

/* Where it lies. */
struct keep_place {
    struct meta_name name;
    char *path;
};

/* Two that apply the policies of a run at once have found the same ones: what the first has taken to the
 * trash is not the second's to remove. */
static pthread_mutex_t keep_taking_lock = PTHREAD_MUTEX_INITIALIZER;

static bool keep_is_hidden(const char *path)
{
    static const char hidden[] = "/" META_HIDDEN_TEXT;
    return strncmp(path, hidden, sizeof hidden - 1) == 0;
}

static errint keep_find_place(struct filesystem *fs, uint64_t ino, struct keep_place *out)
{
    size_t count = 0;
    errint error = keep_check(fs, ino);
    if (!error)
        error = meta_find_names(fs->meta, ino, NULL, &out->name, 1, &count);
    if (!error && count == 0)
        error = -ENOENT;
    return error ? error : meta_path(fs->meta, ino, &out->path);
}

/* It is out of sight. `place`: whose owner may know. */
static void keep_finish(struct filesystem *fs, uint64_t ino, uint64_t place, const char *path,
                        const char *reason, bool trashed)
{
    log_info("%s: removed: %s", path, reason);
    events_emit(
        fs,
        &(struct event){
            .kind = EVENT_REMOVED, .ino = place, .path = path, .step = -1, .bytes = -1, .reason = reason});
    errint error = trashed ? 0 : keep_take_apart(fs, ino);
    writeback_kick(fs);
    if (error)
        log_warning("%s: its space is given back at the next start: %s", path, strerror(-error));
}

/* Takes it out of sight. */
static errint keep_take(struct filesystem *fs, uint64_t ino, struct keep_place *place, const char *reason,
                        bool *trashed)
{
    pthread_mutex_lock(&keep_taking_lock);
    errint error = keep_find_place(fs, ino, place);
    if (!error && keep_is_hidden(place->path))
        error = -ENOENT;
    *trashed = !error && keep_to_trash(fs, ino, &place->name, reason);
    if (!error && !*trashed)
        error = keep_hide(fs, ino, &place->name);
    pthread_mutex_unlock(&keep_taking_lock);
    return error;
}

errint keep_remove(struct filesystem *fs, uint64_t ino, const char *reason)
{
    struct keep_place place = {0};
    bool trashed;
    errint error = keep_take(fs, ino, &place, reason, &trashed);
    cleanup_free char *path = place.path;
    if (!error)
        keep_finish(fs, ino, 0, path, reason, trashed);
    return error;
}

/* Directories of the view that have nothing left in them. */
static void keep_prune(struct filesystem *fs, uint64_t directory)
{
    uint64_t above;
    while (meta_parent(fs->meta, directory, &above) == 0 && above != META_HIDDEN_PARENT &&
           keep_drop_directory(fs, directory) == 0)
        directory = above;
}

errint keep_remove_for_good(struct filesystem *fs, uint64_t ino, uint64_t run, const char *reason)
{
    struct keep_place place = {0};
    cleanup_free char *shown = NULL;
    errint error = keep_find_place(fs, ino, &place);
    cleanup_free char *path = place.path;
    if (error)
        return error;
    bool within = keep_is_hidden(path);
    if (asprintf(&shown, "%s%s", within ? "/" FS_CONTROL_NAME : "",
                 within ? path + strlen("/" META_HIDDEN_TEXT) : path) < 0)
        return -ENOMEM;
    error = keep_hide(fs, ino, &place.name);
    if (error)
        return error;
    keep_finish(fs, ino, run, shown, reason, false);
    keep_prune(fs, place.name.parent);
    return 0;
}
