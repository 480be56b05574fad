/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up what was torn. */
#include "fs/torn_expire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "base/log.h"
#include "fs/filesystem.h"
#include "fs/keep_remove.h"
#include "fs/policy.h"
#include "meta/hidden.h"

enum { TORN_DEPTH_MAX = 512, TORN_ENTRIES_MAX = 10000 };

struct torn_entry {
    uint64_t ino;
    uint64_t place; /* the directory that it was in, or the nearest above it that is left */
    int64_t since;
};

struct torn_entries {
    struct torn_entry *at;
    size_t count, capacity;
};

static void torn_entries_release(struct torn_entries *entries)
{
    free(entries->at);
}

#define cleanup_torn_entries __attribute__((cleanup(torn_entries_release)))

static errint torn_entries_append(struct torn_entries *entries, const struct torn_entry *entry)
{
    if (entries->count == TORN_ENTRIES_MAX)
        return 0; /* their turn comes when others are gone */
    if (!grow_reserve(entries->at, entries->capacity, entries->count + 1))
        return -ENOMEM;
    entries->at[entries->count++] = *entry;
    return 0;
}

/* -- the tree ---------------------------------------------------------------------------------------------
 */

struct torn_child {
    struct torn_child *next;
    uint64_t ino;
    char name[META_NAME_MAX + 1];
};

/* The directories in one, and whether it has nothing else. */
struct torn_level {
    struct torn_child *first;
    bool has_files;
    errint error;
};

static void torn_level_release(struct torn_level *level)
{
    while (level->first) {
        struct torn_child *child = level->first;
        level->first = child->next;
        free(child);
    }
}

#define cleanup_torn_level __attribute__((cleanup(torn_level_release)))

static bool torn_take_child(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)cookie;
    struct torn_level *level = context;
    level->has_files = !S_ISDIR(inode->mode);
    if (level->has_files)
        return false;
    struct torn_child *child = calloc(1, sizeof *child);
    if (!child) {
        level->error = -ENOMEM;
        return false;
    }
    child->ino = inode->ino;
    memcpy(child->name, name, length);
    child->next = level->first;
    level->first = child;
    return true;
}

/* The directory of that name, where there is one; else the same again. */
static uint64_t torn_find_place(struct filesystem *fs, uint64_t place, const char *name)
{
    struct meta_inode row;
    bool there = meta_lookup(fs->meta, place, name, strlen(name), &row) == 0 && S_ISDIR(row.mode);
    return there ? row.ino : place;
}

/* The tree mirrors the paths: what has files, or nothing, is no directory on the way, but was torn. */
static errint torn_collect(struct filesystem *fs, uint64_t directory, uint64_t place, unsigned depth,
                           struct torn_entries *out)
{
    cleanup_torn_level struct torn_level level = {0};
    errint error =
        depth < TORN_DEPTH_MAX ? meta_list(fs->meta, directory, 0, torn_take_child, &level) : -ELOOP;
    if (!error)
        error = level.error;
    if (!error && depth > 0 && (level.has_files || !level.first)) {
        struct meta_inode row;
        error = meta_get(fs->meta, directory, &row);
        /* Its status changed last when it was moved there, if nobody has touched it since. */
        return error ? error : torn_entries_append(out, &(struct torn_entry){directory, place, row.ctime});
    }
    for (const struct torn_child *child = level.first; child && !error; child = child->next)
        error = torn_collect(fs, child->ino, torn_find_place(fs, place, child->name), depth + 1, out);
    return error;
}

static int torn_compare(const void *a, const void *b)
{
    const struct torn_entry *left = a, *right = b;
    return (left->since > right->since) - (left->since < right->since);
}

/* The oldest first. */
static errint torn_find_all(struct filesystem *fs, struct torn_entries *out)
{
    uint64_t hidden;
    errint error = meta_hidden_find(fs->meta, META_HIDDEN_TORN, &hidden);
    if (!error)
        error = torn_collect(fs, hidden, META_ROOT_INO, 0, out);
    if (error && error != -ENOENT)
        log_warning("what was torn cannot be looked at now: %s", strerror(-error));
    if (!error && out->count > 0)
        qsort(out->at, out->count, sizeof *out->at, torn_compare);
    return error;
}

/* -- giving up --------------------------------------------------------------------------------------------
 */

/* False: not now. */
static bool torn_give_up(struct filesystem *fs, const struct torn_entry *entry, const char *reason)
{
    errint error = keep_remove_for_good(fs, entry->ino, entry->place, reason);
    if (error && error != -EBUSY && error != -ENOENT)
        log_warning("inode %llu: it was torn, and cannot be removed now: %s", (unsigned long long)entry->ino,
                    strerror(-error));
    return !error;
}

size_t torn_expire(struct filesystem *fs, int64_t now, int64_t *due)
{
    cleanup_torn_entries struct torn_entries entries = {0};
    size_t given = 0;
    if (torn_find_all(fs, &entries) < 0)
        return 0;
    for (size_t i = 0; i < entries.count; i++) {
        const struct torn_entry *entry = &entries.at[i];
        bool keeps;
        int64_t age;
        if (policy_trash(fs, entry->place, &keeps, &age) < 0)
            continue;
        int64_t end = entry->since + age;
        if (now >= end)
            given += torn_give_up(fs, entry, "it was torn, and its time is up");
        else if (end < *due)
            *due = end;
    }
    return given;
}

bool torn_give_up_first(struct filesystem *fs)
{
    cleanup_torn_entries struct torn_entries entries = {0};
    if (torn_find_all(fs, &entries) < 0)
        return false;
    for (size_t i = 0; i < entries.count; i++) {
        if (torn_give_up(fs, &entries.at[i], "it was torn, and the space is needed"))
            return true;
    }
    return false;
}

bool torn_has_any(struct filesystem *fs)
{
    cleanup_torn_entries struct torn_entries entries = {0};
    return torn_find_all(fs, &entries) == 0 && entries.count > 0;
}
