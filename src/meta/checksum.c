/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of files, and what they stand on. */
#include "meta/checksum.h"

#include <errno.h>
#include <string.h>

#include "meta/internal.h"
#include "meta/sharing.h"

/* -- the basis --------------------------------------------------------------------------------------------
 */

/* One extent, as it goes into the basis. */
struct checksum_extent {
    int64_t offset, length;
    uint64_t object;
    int64_t object_offset;
    uint8_t root[META_ROOT_BYTES];
};

/* The columns: the extent's, the root of its object or NULL, whether the object is damaged. */
static errint checksum_read_extent(const struct db_rows *rows, struct checksum_extent *out)
{
    size_t length;
    const void *root = db_bytes(rows, 4, &length);
    if (!root || length != META_ROOT_BYTES || db_integer(rows, 5))
        return -ENODATA;
    *out = (struct checksum_extent){
        .offset = db_integer(rows, 0),
        .length = db_integer(rows, 1),
        .object = (uint64_t)db_integer(rows, 2),
        .object_offset = db_integer(rows, 3),
    };
    memcpy(out->root, root, sizeof out->root);
    return 0;
}

errint meta_checksum_basis(struct meta *meta, uint64_t ino,
                           void (*see)(void *context, const void *bytes, size_t length), void *context)
{
    META_LOCKED(meta);
    struct meta_inode inode;
    errint error = inode_load_file(meta, ino, &inode);
    if (!error && inode.kind != META_EXTENTS)
        error = -ENODATA;
    if (error)
        return error;
    see(context, &inode.size, sizeof inode.size);
    cleanup_rows struct db_rows rows;
    error = db_select(meta->db, &rows,
                      "SELECT e.file_offset, e.length, e.object, e.object_offset, s.root,"
                      " EXISTS (SELECT 1 FROM damage d WHERE d.object = e.object)"
                      " FROM extent e LEFT JOIN summed s ON s.object = e.object WHERE e.ino = $1"
                      " ORDER BY e.file_offset",
                      DB_INTEGER(ino));
    int found = 0;
    while (!error && (found = db_next(&rows)) > 0) {
        struct checksum_extent extent;
        error = checksum_read_extent(&rows, &extent);
        if (!error)
            see(context, &extent, sizeof extent);
    }
    return error ? error : found;
}

/* -- the sums ---------------------------------------------------------------------------------------------
 */

errint meta_checksum_get(struct meta *meta, uint64_t ino, const uint8_t basis[META_SUM_BYTES],
                         uint8_t sum[META_SUM_BYTES])
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT sum FROM checksum WHERE ino = $1 AND basis = $2",
                             DB_INTEGER(ino), DB_BLOB(basis, META_SUM_BYTES));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENODATA;
    size_t length;
    const void *bytes = db_bytes(&rows, 0, &length);
    if (length != META_SUM_BYTES)
        return -EUCLEAN;
    memcpy(sum, bytes, META_SUM_BYTES);
    return 0;
}

errint meta_checksum_put(struct meta *meta, uint64_t ino, const uint8_t basis[META_SUM_BYTES],
                         const uint8_t sum[META_SUM_BYTES])
{
    struct change change = {.meta = meta};
    while (change_next(&change)) {
        change.error = db_run(meta->db,
                              "INSERT INTO checksum (ino, basis, sum) SELECT $1, $2, $3"
                              " WHERE EXISTS (SELECT 1 FROM inode i WHERE i.ino = $1) ON CONFLICT (ino)"
                              " DO UPDATE SET basis = excluded.basis, sum = excluded.sum",
                              DB_INTEGER(ino), DB_BLOB(basis, META_SUM_BYTES), DB_BLOB(sum, META_SUM_BYTES));
        change.nothing = !change.error && db_changed(meta->db) == 0;
    }
    return change.error;
}

errint checksum_drop(struct meta *meta, uint64_t ino)
{
    return db_run(meta->db, "DELETE FROM checksum WHERE ino = $1", DB_INTEGER(ino));
}

errint checksum_drop_users(struct meta *meta, uint64_t object)
{
    return db_run(meta->db, "DELETE FROM checksum WHERE ino IN (SELECT ino FROM extent WHERE object = $1)",
                  DB_INTEGER(object));
}
