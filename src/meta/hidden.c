/* SPDX-License-Identifier: Apache-2.0 */
/* Directories that no path leads to. */
#include "meta/hidden.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta/internal.h"

errint hidden_open(struct change *change, const char *kind, int64_t now, uint64_t *ino)
{
    struct meta *meta = change->meta;
    errint error = name_find(meta, META_HIDDEN_PARENT, kind, strlen(kind), ino);
    if (error != -ENOENT)
        return error;
    const struct meta_new new = {.mode = S_IFDIR | 0700, .uid = geteuid(), .gid = getegid(), .now = now};
    struct meta_inode made = {0};
    error = name_create(change, &new, &made);
    if (!error)
        error = name_insert(meta, META_HIDDEN_PARENT, kind, strlen(kind), made.ino);
    *ino = made.ino;
    return error;
}

errint meta_hidden_find(struct meta *meta, const char *kind, uint64_t *ino)
{
    META_LOCKED(meta);
    return name_find(meta, META_HIDDEN_PARENT, kind, strlen(kind), ino);
}

errint meta_hidden_make(struct meta *meta, const char *kind, int64_t now, uint64_t *ino)
{
    errint error = meta_hidden_find(meta, kind, ino);
    if (error != -ENOENT)
        return error;
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = hidden_open(&change, kind, now, ino);
    return change.error;
}
