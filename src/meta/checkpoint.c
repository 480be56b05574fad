/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of checkpoints. */
#include "meta/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/grow.h"
#include "meta/internal.h"

errint checkpoint_forget(struct meta *meta, uint64_t directory)
{
    return db_run(meta->db, "DELETE FROM checkpoint WHERE directory = $1", DB_INTEGER(directory));
}

static errint checkpoint_put(struct meta *meta, const struct meta_checkpoint *row)
{
    struct meta_inode inode;
    errint error = inode_load(meta, row->directory, &inode);
    if (error || !S_ISDIR(inode.mode) || inode.nlink == 0)
        return error == -ENOENT ? 0 : error;
    return db_run(meta->db,
                  "INSERT INTO checkpoint (directory, run, state, marks, step, completed, bytes)"
                  " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (directory) DO UPDATE SET"
                  " run = excluded.run, state = excluded.state, marks = excluded.marks,"
                  " step = excluded.step, completed = excluded.completed, bytes = excluded.bytes",
                  DB_INTEGER(row->directory), DB_INTEGER(row->run), DB_INTEGER(row->state),
                  DB_INTEGER(row->marks), DB_INTEGER(row->step), DB_INTEGER(row->completed),
                  DB_INTEGER(row->bytes));
}

static errint checkpoint_change(struct change *change, const struct meta_checkpoint_change *changes,
                                size_t count)
{
    errint error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = changes[i].forget ? checkpoint_forget(change->meta, changes[i].row->directory)
                                  : checkpoint_put(change->meta, changes[i].row);
    return error;
}

errint meta_checkpoint_change(struct meta *meta, const struct meta_checkpoint_change *changes, size_t count)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = checkpoint_change(&change, changes, count);
    return change.error;
}

static struct meta_checkpoint checkpoint_of_row(struct db_rows *rows)
{
    return (struct meta_checkpoint){
        .directory = (uint64_t)db_integer(rows, 0),
        .run = (uint64_t)db_integer(rows, 1),
        .state = (unsigned)db_integer(rows, 2),
        .marks = (unsigned)db_integer(rows, 3),
        .step = db_integer(rows, 4),
        .completed = db_integer(rows, 5),
        .bytes = db_integer(rows, 6),
    };
}

errint meta_checkpoints(struct meta *meta, struct meta_checkpoint **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    cleanup_free struct meta_checkpoint *at = NULL;
    size_t capacity = 0;
    *count = 0;
    errint error = db_select(meta->db, &rows,
                             "SELECT directory, run, state, marks, step, completed, bytes FROM checkpoint"
                             " ORDER BY directory");
    int found = error;
    while (!error && (found = db_next(&rows)) > 0) {
        if (!grow_reserve(at, capacity, *count + 1))
            return -ENOMEM;
        at[(*count)++] = checkpoint_of_row(&rows);
    }
    *out = found < 0 ? NULL : steal_pointer(at);
    return found;
}
