/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of processes that wrote. */
#include "meta/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/grow.h"
#include "meta/internal.h"

errint writer_forget(struct meta *meta, uint64_t run)
{
    return db_run(meta->db, "DELETE FROM writer WHERE run = $1", DB_INTEGER(run));
}

static errint writers_put(struct change *change, uint64_t run, const struct meta_writer *writers,
                          size_t count, size_t limit)
{
    struct meta_inode row;
    errint error = inode_load_directory(change->meta, run, &row);
    if (error || row.nlink == 0) {
        change->nothing = true;
        return error == -ENOENT ? 0 : error;
    }
    for (size_t i = 0; i < count && !error; i++)
        error = db_run(change->meta->db,
                       "INSERT INTO writer (run, pid, started, boot) VALUES ($1, $2, $3, $4)"
                       " ON CONFLICT DO NOTHING",
                       DB_INTEGER(run), DB_INTEGER(writers[i].pid), DB_INTEGER(writers[i].started),
                       DB_BLOB(writers[i].boot, strlen(writers[i].boot)));
    if (!error)
        error = db_run(change->meta->db,
                       "DELETE FROM writer WHERE run = $1 AND id NOT IN"
                       " (SELECT id FROM writer WHERE run = $1 ORDER BY id DESC LIMIT $2)",
                       DB_INTEGER(run), DB_INTEGER(limit));
    return error;
}

errint meta_writers_put(struct meta *meta, uint64_t run, const struct meta_writer *writers, size_t count,
                        size_t limit)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = writers_put(&change, run, writers, count, limit);
    return change.error;
}

static errint writer_read(struct db_rows *rows, struct meta_writer *out)
{
    size_t length;
    const char *boot = db_bytes(rows, 2, &length);
    if (length >= sizeof out->boot)
        return -EUCLEAN;
    *out = (struct meta_writer){.pid = db_integer(rows, 0), .started = (uint64_t)db_integer(rows, 1)};
    memcpy(out->boot, boot, length);
    return 0;
}

errint meta_writers(struct meta *meta, uint64_t run, struct meta_writer **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    cleanup_free struct meta_writer *at = NULL;
    size_t capacity = 0;
    *count = 0;
    *out = NULL;
    errint error = db_select(
        meta->db, &rows, "SELECT pid, started, boot FROM writer WHERE run = $1 ORDER BY id", DB_INTEGER(run));
    int found = 0;
    while (!error && (found = db_next(&rows)) > 0) {
        if (!grow_reserve(at, capacity, *count + 1))
            return -ENOMEM;
        error = writer_read(&rows, &at[*count]);
        *count += !error;
    }
    if (!error && found == 0)
        *out = steal_pointer(at);
    return error ? error : found;
}
