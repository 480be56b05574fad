/* SPDX-License-Identifier: Apache-2.0 */
/* The index of segments, the roots of hashed objects, and the marks of objects that lost extents. */
#include "meta/sharing.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/grow.h"
#include "meta/internal.h"

enum { SHARING_ROWS = 512 }; /* read under one lock */

/* -- roots and segments -----------------------------------------------------------------------------------
 */

errint object_unsum(struct meta *meta, uint64_t object)
{
    errint error = db_run(meta->db, "DELETE FROM summed WHERE object = $1", DB_INTEGER(object));
    return error ? error : db_run(meta->db, "DELETE FROM segment WHERE object = $1", DB_INTEGER(object));
}

errint object_unsum_all(struct meta *meta, uint64_t ino)
{
    errint error =
        db_run(meta->db, "DELETE FROM segment WHERE object IN (SELECT object FROM extent WHERE ino = $1)",
               DB_INTEGER(ino));
    if (error)
        return error;
    return db_run(meta->db, "DELETE FROM summed WHERE object IN (SELECT object FROM extent WHERE ino = $1)",
                  DB_INTEGER(ino));
}

errint object_check_sealed(struct meta *meta, uint64_t object)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT owner FROM object WHERE id = $1", DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    return db_integer(&rows, 0) == 0 ? 0 : -EBUSY;
}

/* Hashes of damaged bytes would make them right. */
static errint sharing_check_whole(struct meta *meta, uint64_t object)
{
    int damaged = object_is_damaged(meta, object);
    return damaged > 0 ? -EBUSY : damaged;
}

/*
 * So many rows at a time, so that other changes of the namespace never wait long; without the pause, those
 * who wait for the lock might not get it in between either.
 */
enum { SHARING_BATCH = 512, SHARING_PAUSE_NS = 100000 };

struct sharing_summed {
    uint64_t object;
    const uint8_t *root;
    uint32_t uid;
    const struct meta_segment *segments;
    size_t count;
};

static errint sharing_put_segment(struct meta *meta, const struct sharing_summed *summed,
                                  const struct meta_segment *segment)
{
    return db_run(meta->db,
                  "INSERT INTO segment (object, object_offset, length, low, high, uid)"
                  " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (object, object_offset, length) DO NOTHING",
                  DB_INTEGER(summed->object), DB_INTEGER(segment->object_offset), DB_INTEGER(segment->length),
                  DB_INTEGER(segment->low), DB_INTEGER(segment->high), DB_INTEGER(summed->uid));
}

/* One batch of segments, from `first` on. They count for nothing before the root is there. */
static errint sharing_put_batch(struct change *change, const struct sharing_summed *summed, size_t first)
{
    struct meta *meta = change->meta;
    size_t last = summed->count - first > SHARING_BATCH ? first + SHARING_BATCH : summed->count;
    errint error = object_check_sealed(meta, summed->object);
    if (!error)
        error = sharing_check_whole(meta, summed->object);
    if (!error && first == 0)
        error = object_unsum(meta, summed->object);
    for (size_t i = first; !error && i < last; i++)
        error = sharing_put_segment(meta, summed, &summed->segments[i]);
    if (!error && last == summed->count)
        error = db_run(meta->db, "INSERT INTO summed (object, root, shared) VALUES ($1, $2, 0)",
                       DB_INTEGER(summed->object), DB_BLOB(summed->root, META_ROOT_BYTES));
    return error;
}

errint meta_object_summed(struct meta *meta, uint64_t object, const uint8_t root[META_ROOT_BYTES],
                          uint32_t uid, const struct meta_segment *segments, size_t count)
{
    const struct sharing_summed summed = {object, root, uid, segments, count};
    errint error = 0;
    size_t first = 0;
    do {
        struct change change = {.meta = meta};
        while (change_next(&change))
            change.error = sharing_put_batch(&change, &summed, first);
        error = change.error;
        first += SHARING_BATCH;
        if (first < count)
            nanosleep(&(struct timespec){.tv_nsec = SHARING_PAUSE_NS}, NULL);
    } while (!error && first < count);
    return error;
}

errint object_root(struct meta *meta, uint64_t object, uint8_t root[META_ROOT_BYTES])
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT root FROM summed WHERE object = $1", DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    size_t length;
    const void *bytes = db_bytes(&rows, 0, &length);
    if (length != META_ROOT_BYTES)
        return -EUCLEAN;
    memcpy(root, bytes, META_ROOT_BYTES);
    return 0;
}

errint meta_object_root(struct meta *meta, uint64_t object, uint8_t root[META_ROOT_BYTES])
{
    META_LOCKED(meta);
    return object_root(meta, object, root);
}

errint meta_object_unsummed(struct meta *meta, uint64_t object)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = object_unsum(meta, object);
    return change.error;
}

errint meta_object_shared_out(struct meta *meta, uint64_t object)
{
    struct change change = {.meta = meta};
    while (change_next(&change)) {
        change.error = db_run(meta->db, "UPDATE summed SET shared = 1 WHERE object = $1", DB_INTEGER(object));
        change.nothing = !change.error && db_changed(meta->db) == 0;
    }
    return change.error;
}

int meta_object_is_shared_out(struct meta *meta, uint64_t object)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT 1 FROM summed WHERE object = $1 AND shared = 1",
                             DB_INTEGER(object));
    return error ? error : db_next(&rows);
}

errint meta_object_uid(struct meta *meta, uint64_t object, uint32_t *uid)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT uid FROM segment WHERE object = $1 LIMIT 1", DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *uid = (uint32_t)db_integer(&rows, 0);
    return 0;
}

/* -- look-ups ---------------------------------------------------------------------------------------------
 */

int object_collect_page(struct db_rows *rows, int limit, uint64_t *after, struct ids *out)
{
    int found, count = 0;
    errint error = 0;
    for (; !error && (found = db_next(rows)) > 0; count++) {
        *after = (uint64_t)db_integer(rows, 0);
        if (db_integer(rows, 1))
            error = ids_append(out, *after);
    }
    return error ? error : found < 0 ? found : count == limit;
}

int meta_find_unshared_after(struct meta *meta, uint64_t *after, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT o.id, o.owner = 0 AND o.size > 0 AND coalesce(s.shared, 0) = 0"
                             " FROM object o LEFT JOIN summed s ON s.object = o.id"
                             " WHERE o.id > $1 ORDER BY o.id LIMIT $2",
                             DB_INTEGER(*after), DB_INTEGER(SHARING_ROWS));
    return error ? error : object_collect_page(&rows, SHARING_ROWS, after, out);
}

errint meta_find_unsummed(struct meta *meta, uint64_t ino, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT DISTINCT e.object FROM extent e JOIN object o ON o.id = e.object"
                             " WHERE e.ino = $1 AND o.owner = 0"
                             " AND NOT EXISTS (SELECT 1 FROM summed s WHERE s.object = e.object)",
                             DB_INTEGER(ino));
    return error ? error : rows_collect_ids(&rows, out);
}

errint meta_find_segment(struct meta *meta, const struct meta_segment *segment, uint32_t uid, uint64_t except,
                         struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    *out = NULL;
    *count = 0;
    cleanup_free struct meta_range *ranges = NULL;
    size_t found_count = 0, capacity = 0;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT g.object, g.object_offset FROM segment g"
                             " JOIN summed s ON s.object = g.object"
                             " WHERE g.low = $1 AND g.high = $2 AND g.length = $3"
                             " AND (g.uid = $4 OR $5) AND g.object <> $6 AND s.shared = 1"
                             " ORDER BY g.object DESC, g.object_offset LIMIT $7",
                             DB_INTEGER(segment->low), DB_INTEGER(segment->high), DB_INTEGER(segment->length),
                             DB_INTEGER(uid), DB_INTEGER(uid == META_ANYONE), DB_INTEGER(except),
                             DB_INTEGER(SHARING_ROWS));
    if (error)
        return error;
    int found;
    while ((found = db_next(&rows)) > 0) {
        const struct meta_range range = {(uint64_t)db_integer(&rows, 0), db_integer(&rows, 1),
                                         segment->length};
        if (!grow_reserve(ranges, capacity, found_count + 1))
            return -ENOMEM;
        ranges[found_count++] = range;
    }
    if (found < 0)
        return found;
    *out = steal_pointer(ranges);
    *count = found_count;
    return 0;
}

errint meta_find_users_of(struct meta *meta, uint64_t object, uint32_t uid, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT DISTINCT e.ino FROM extent e JOIN inode i ON i.ino = e.ino"
                             " WHERE e.object = $1 AND (i.uid = $2 OR $3)"
                             " AND (i.nlink > 0 OR (i.state & 4) <> 0)",
                             DB_INTEGER(object), DB_INTEGER(uid), DB_INTEGER(uid == META_ANYONE));
    return error ? error : rows_collect_ids(&rows, out);
}

int meta_object_has_others(struct meta *meta, uint64_t object, uint32_t uid)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT 1 FROM extent e JOIN inode i ON i.ino = e.ino"
                             " WHERE e.object = $1 AND i.uid <> $2 LIMIT 1",
                             DB_INTEGER(object), DB_INTEGER(uid));
    return error ? error : db_next(&rows);
}

errint meta_find_whole(struct meta *meta, uint64_t object, uint64_t *out)
{
    META_LOCKED(meta);
    *out = 0;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT i.ino FROM extent e JOIN object o ON o.id = e.object"
                             " JOIN inode i ON i.ino = e.ino"
                             " WHERE e.object = $1 AND e.object_offset = 0 AND e.file_offset = 0"
                             " AND e.length = o.size AND i.size = o.size ORDER BY i.ino DESC LIMIT 1",
                             DB_INTEGER(object));
    int found = error ? error : db_next(&rows);
    if (found > 0)
        *out = (uint64_t)db_integer(&rows, 0);
    return found < 0 ? found : 0;
}

errint meta_find_predecessor(struct meta *meta, uint64_t ino, uint32_t uid, uint64_t *out)
{
    META_LOCKED(meta);
    *out = 0;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT other.ino FROM name own JOIN name place ON place.ino = own.parent"
                             " JOIN name sibling ON sibling.parent = place.parent"
                             " JOIN name other ON other.parent = sibling.ino AND other.name = own.name"
                             " JOIN inode i ON i.ino = other.ino"
                             " WHERE own.ino = $1 AND other.ino <> $1 AND (i.uid = $2 OR $3) AND i.kind = 3"
                             " ORDER BY i.btime DESC LIMIT 1",
                             DB_INTEGER(ino), DB_INTEGER(uid), DB_INTEGER(uid == META_ANYONE));
    int found = error ? error : db_next(&rows);
    if (found > 0)
        *out = (uint64_t)db_integer(&rows, 0);
    return found < 0 ? found : 0;
}

/* -- what is alive ----------------------------------------------------------------------------------------
 */

errint meta_object_make(struct meta *meta, uint64_t object, int64_t size)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error = object_note(meta, object, size);
    return change.error;
}

errint object_mark_shrunk(struct meta *meta, uint64_t object)
{
    return db_run(meta->db, "INSERT INTO shrunk (object) VALUES ($1) ON CONFLICT (object) DO NOTHING",
                  DB_INTEGER(object));
}

errint object_live_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count)
{
    *out = NULL;
    *count = 0;
    cleanup_free struct meta_range *ranges = NULL;
    size_t range_count = 0, capacity = 0;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT object_offset, length FROM extent WHERE object = $1"
                             " ORDER BY object_offset",
                             DB_INTEGER(object));
    if (error)
        return error;
    int found;
    while ((found = db_next(&rows)) > 0) {
        const struct meta_range range = {object, db_integer(&rows, 0), db_integer(&rows, 1)};
        struct meta_range *last = range_count ? &ranges[range_count - 1] : NULL;
        if (last && last->offset + last->length >= range.offset) {
            int64_t end = range.offset + range.length;
            if (end > last->offset + last->length)
                last->length = end - last->offset;
            continue;
        }
        if (!grow_reserve(ranges, capacity, range_count + 1))
            return -ENOMEM;
        ranges[range_count++] = range;
    }
    if (found < 0)
        return found;
    *out = steal_pointer(ranges);
    *count = range_count;
    return 0;
}

errint meta_live_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    return object_live_ranges(meta, object, out, count);
}

errint meta_sealed_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    errint error = object_check_sealed(meta, object);
    return error ? error : object_live_ranges(meta, object, out, count);
}

errint meta_find_shrunk(struct meta *meta, uint64_t after, size_t limit, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT h.object FROM shrunk h JOIN summed s ON s.object = h.object"
                             " JOIN object o ON o.id = h.object"
                             " WHERE h.object > $1 AND o.owner = 0 ORDER BY h.object LIMIT $2",
                             DB_INTEGER(after), DB_INTEGER(limit));
    return error ? error : rows_collect_ids(&rows, out);
}

struct sharing_done {
    uint64_t object;
    const struct meta_range *live;
    size_t live_count;
    const struct meta_range *dead;
    size_t dead_count;
};

/* 0 when the object's live ranges are still those. */
static errint sharing_check_live(struct meta *meta, const struct sharing_done *done)
{
    cleanup_free struct meta_range *live = NULL;
    size_t count;
    errint error = object_live_ranges(meta, done->object, &live, &count);
    if (error)
        return error;
    bool same = count == done->live_count;
    for (size_t i = 0; same && i < count; i++)
        same = live[i].offset == done->live[i].offset && live[i].length == done->live[i].length;
    return same ? 0 : -EBUSY;
}

static errint sharing_forget_dead(struct meta *meta, const struct sharing_done *done)
{
    errint error = sharing_check_live(meta, done);
    if (!error)
        error = db_run(meta->db, "DELETE FROM shrunk WHERE object = $1", DB_INTEGER(done->object));
    for (size_t i = 0; !error && i < done->dead_count; i++) {
        const struct meta_range *dead = &done->dead[i];
        error = db_run(meta->db,
                       "DELETE FROM segment WHERE object = $1 AND object_offset >= $2"
                       " AND object_offset + length <= $3",
                       DB_INTEGER(done->object), DB_INTEGER(dead->offset),
                       DB_INTEGER(dead->offset + dead->length));
    }
    return error;
}

errint meta_shrunk_done(struct meta *meta, uint64_t object, const struct meta_range *live, size_t live_count,
                        const struct meta_range *dead, size_t dead_count)
{
    const struct sharing_done done = {object, live, live_count, dead, dead_count};
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = sharing_forget_dead(meta, &done);
    return change.error;
}
