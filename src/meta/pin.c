/* SPDX-License-Identifier: Apache-2.0 */
/* What no policy removes. */
#include "meta/pin.h"

#include <errno.h>

#include "meta/internal.h"

static errint pin_set(struct change *change, uint64_t ino, bool pinned)
{
    struct meta_inode row;
    errint error = inode_load(change->meta, ino, &row);
    if (!error && row.nlink == 0)
        error = -ENOENT;
    if (error)
        return error;
    if (!pinned)
        return pin_forget(change->meta, ino);
    return db_run(change->meta->db, "INSERT INTO pin (ino) VALUES ($1) ON CONFLICT (ino) DO NOTHING",
                  DB_INTEGER(ino));
}

errint pin_forget(struct meta *meta, uint64_t ino)
{
    return db_run(meta->db, "DELETE FROM pin WHERE ino = $1", DB_INTEGER(ino));
}

errint meta_pin_set(struct meta *meta, uint64_t ino, bool pinned)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = pin_set(&change, ino, pinned);
    return change.error;
}

int meta_pin_has(struct meta *meta, uint64_t ino)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM pin WHERE ino = $1", DB_INTEGER(ino));
    return error ? error : db_next(&rows);
}
