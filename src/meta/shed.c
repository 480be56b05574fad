/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up bytes of files that stay. */
#include "meta/shed.h"

#include <errno.h>

#include "meta/internal.h"

static errint shed_file(struct change *change, uint64_t ino)
{
    cleanup_ids struct ids touched = {0};
    struct meta_inode before;
    errint error = inode_load_file(change->meta, ino, &before);
    if (error)
        return error;
    if (before.kind == META_OBJECT || (before.state & (META_DIRTY | META_TORN)))
        return -EBUSY;
    if (before.kind != META_EXTENTS || (before.state & (META_SHED | META_ASSEMBLED)))
        return -ENODATA;
    error = extents_cut(change->meta, ino, 0, INT64_MAX, &touched);
    if (!error)
        error = object_release_all(change, &touched);
    if (error)
        return error;
    struct meta_inode after = before;
    after.state |= META_SHED;
    return inode_update(change->meta, &before, &after);
}

errint meta_shed(struct meta *meta, uint64_t ino, struct ids *freed)
{
    struct change change = {.meta = meta, .ino = ino, .freed = freed, .spends = true};
    while (change_next(&change))
        change.error = shed_file(&change, ino);
    return change.error;
}
