/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the trash share. All of it with the lock held, what changes within a transaction. */
#ifndef CKPTFS_META_TRASH_INTERNAL_H
#define CKPTFS_META_TRASH_INTERNAL_H

#include "meta/internal.h"
#include "meta/trash.h"

/* A way through directories is no longer than that; a damaged table may lead in a circle. */
enum { TRASH_LEVELS_MAX = 1 << 12 };

#define TRASH_COLUMNS                                                                                        \
    "t.ino, t.directory, t.kind, t.parent, t.name, t.removed, t.remover, t.reason,"                          \
    " coalesce((SELECT o.uid FROM inode o WHERE o.ino = t.ino), 0)"

/* -EUCLEAN: a text is longer than can be. */
errint trash_from_row(const struct db_rows *rows, struct meta_trash *out);
/* The row of an inode; -ENOENT. */
errint trash_load(struct meta *meta, uint64_t ino, struct meta_trash *out);
/* The entry that gets what is removed from a checkpoint; -ENOENT. */
errint trash_find_open(struct meta *meta, uint64_t checkpoint, uint64_t *ino);
/* One name of a directory; -ENOENT. */
errint trash_name_of(struct meta *meta, uint64_t directory, struct meta_name *out);
/* Inodes that a statement with one parameter selects; `text` as db_select has it. */
errint trash_collect(struct meta *meta, const char *text, uint64_t parameter, struct ids *out);

struct trash_pair {
    uint64_t from, to;
    bool times; /* `to` gets the times of `from`, and so below */
};
/* All that is in a directory goes into another. -EEXIST: both have a name, and not for directories. */
errint trash_merge(struct change *change, const struct trash_pair *pair, int64_t now);
/* As meta_trash_take; the row has what that is told of the removal, and its kind. */
errint trash_take(struct change *change, uint64_t directory, struct meta_trash *row);
/* As meta_trash_close. */
errint trash_close(struct meta *meta, uint64_t directory);

/* A hidden directory: the name that it has in there (its number), and links of that, come and go with it. */
errint trash_put_in(struct change *change, uint64_t ino, int64_t now);
errint trash_take_out(struct change *change, uint64_t ino);
/* Whether the way up from a directory ends at the root: 1, 0 or an error. */
int trash_is_reached(struct meta *meta, uint64_t directory);
/* The row of an entry goes, and with it those above that led to nothing else. */
errint trash_forget(struct change *change, const struct meta_trash *row, int64_t now);
/* An empty directory without a name is removed, with what was set for it. */
errint trash_drop_directory(struct change *change, uint64_t ino, int64_t now);

#endif
