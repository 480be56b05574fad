/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged ranges of objects, and what a verification looks up. */
#include "meta/damage.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/grow.h"
#include "meta/internal.h"

/* The rows' columns are an object, an offset and a length. `join`: neighbours become one. */
static errint damage_collect(struct db_rows *rows, bool join, struct meta_range **out, size_t *count)
{
    cleanup_free struct meta_range *ranges = NULL;
    size_t range_count = 0, capacity = 0;
    int found;
    *out = NULL;
    *count = 0;
    while ((found = db_next(rows)) > 0) {
        const struct meta_range range = {(uint64_t)db_integer(rows, 0), db_integer(rows, 1),
                                         db_integer(rows, 2)};
        struct meta_range *last = range_count ? &ranges[range_count - 1] : NULL;
        if (join && last && last->object == range.object && last->offset + last->length == range.offset) {
            last->length += range.length;
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

/* -- what is damaged --------------------------------------------------------------------------------------
 */

errint object_forget_damage(struct meta *meta, uint64_t object)
{
    return db_run(meta->db, "DELETE FROM damage WHERE object = $1", DB_INTEGER(object));
}

int object_is_damaged(struct meta *meta, uint64_t object)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT 1 FROM damage WHERE object = $1 LIMIT 1", DB_INTEGER(object));
    return error ? error : db_next(&rows);
}

int meta_object_damaged(struct meta *meta, uint64_t object)
{
    META_LOCKED(meta);
    return object_is_damaged(meta, object);
}

static errint damage_read_within(struct meta *meta, const struct meta_range *within, struct meta_range **out,
                                 size_t *count)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT object, object_offset, length FROM damage WHERE object = $1"
                             " AND object_offset >= $2 AND object_offset < $3 ORDER BY object_offset",
                             DB_INTEGER(within->object), DB_INTEGER(within->offset),
                             DB_INTEGER(within->offset + within->length));
    return error ? error : damage_collect(&rows, false, out, count);
}

static errint damage_check_root(struct meta *meta, uint64_t object, const uint8_t *expected)
{
    uint8_t root[META_ROOT_BYTES];
    errint error = object_root(meta, object, root);
    if (error)
        return error == -ENOENT ? -EBUSY : error;
    return memcmp(root, expected, sizeof root) == 0 ? 0 : -EBUSY;
}

static errint damage_put(struct meta *meta, const struct meta_range *within, const struct meta_range *found,
                         size_t count)
{
    errint error = db_run(meta->db,
                          "DELETE FROM damage WHERE object = $1 AND object_offset >= $2"
                          " AND object_offset < $3",
                          DB_INTEGER(within->object), DB_INTEGER(within->offset),
                          DB_INTEGER(within->offset + within->length));
    for (size_t i = 0; !error && i < count; i++)
        error = db_run(meta->db, "INSERT INTO damage (object, object_offset, length) VALUES ($1, $2, $3)",
                       DB_INTEGER(within->object), DB_INTEGER(found[i].offset), DB_INTEGER(found[i].length));
    /* They may have been computed from the wrong bytes. */
    return error ? error : checksum_drop_users(meta, within->object);
}

static bool damage_is_same(const struct meta_range *known, size_t known_count, const struct meta_range *found,
                           size_t count)
{
    bool same = known_count == count;
    for (size_t i = 0; same && i < count; i++)
        same = known[i].offset == found[i].offset && known[i].length == found[i].length;
    return same;
}

static errint damage_replace(struct change *change, const struct meta_range *within, const uint8_t *root,
                             const struct meta_range *found, size_t count)
{
    cleanup_free struct meta_range *known = NULL;
    size_t known_count;
    errint error = damage_check_root(change->meta, within->object, root);
    if (!error)
        error = damage_read_within(change->meta, within, &known, &known_count);
    if (error)
        return error;
    change->nothing = damage_is_same(known, known_count, found, count);
    return change->nothing ? 0 : damage_put(change->meta, within, found, count);
}

errint meta_damage_replace(struct meta *meta, const struct meta_range *within,
                           const uint8_t root[META_ROOT_BYTES], const struct meta_range *found, size_t count,
                           bool *changed)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = damage_replace(&change, within, root, found, count);
    *changed = !change.error && !change.nothing;
    return change.error;
}

errint meta_damage_list(struct meta *meta, struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT object, object_offset, length FROM damage"
                             " ORDER BY object, object_offset");
    return error ? error : damage_collect(&rows, true, out, count);
}

/* -- look-ups ---------------------------------------------------------------------------------------------
 */

struct damage_uses {
    struct meta_use *at;
    size_t count, capacity;
};

static void damage_uses_release(struct damage_uses *uses)
{
    free(uses->at);
}

#define cleanup_damage_uses __attribute__((cleanup(damage_uses_release)))

/* The rows' columns are a file, an offset in it, a length and an offset in the object. */
static errint damage_collect_uses(struct db_rows *rows, const struct meta_range *range,
                                  struct damage_uses *uses)
{
    int found;
    while ((found = db_next(rows)) > 0) {
        struct meta_use use = {(uint64_t)db_integer(rows, 0), db_integer(rows, 1), db_integer(rows, 2),
                               db_integer(rows, 3)};
        int64_t before = range->offset > use.object_offset ? range->offset - use.object_offset : 0;
        int64_t behind = use.object_offset + use.length - (range->offset + range->length);
        use.offset += before;
        use.object_offset += before;
        use.length -= before + (behind > 0 ? behind : 0);
        if (use.length <= 0)
            continue;
        if (!grow_reserve(uses->at, uses->capacity, uses->count + 1))
            return -ENOMEM;
        uses->at[uses->count++] = use;
    }
    return found;
}

errint meta_find_uses(struct meta *meta, const struct meta_range *range, struct meta_use **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_damage_uses struct damage_uses uses = {0};
    *out = NULL;
    *count = 0;
    cleanup_rows struct db_rows rows, written = {0};
    errint error = db_select(meta->db, &rows,
                             "SELECT ino, file_offset, length, object_offset FROM extent WHERE object = $1"
                             " AND object_offset < $2 ORDER BY ino, file_offset",
                             DB_INTEGER(range->object), DB_INTEGER(range->offset + range->length));
    if (!error)
        error = damage_collect_uses(&rows, range, &uses);
    if (!error)
        error =
            db_select(meta->db, &written, "SELECT owner, 0, size, 0 FROM object WHERE id = $1 AND owner <> 0",
                      DB_INTEGER(range->object));
    if (!error)
        error = damage_collect_uses(&written, range, &uses);
    if (error)
        return error;
    *count = uses.count;
    *out = steal_pointer(uses.at);
    return 0;
}

errint meta_find_to_verify(struct meta *meta, uint64_t ino, uint64_t after, size_t limit,
                           struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error;
    if (ino)
        error = db_select(meta->db, &rows,
                          "SELECT id, 0, size FROM object WHERE id IN (SELECT object FROM extent"
                          " WHERE ino = $1 UNION SELECT object FROM inode WHERE ino = $2 AND kind = 2)"
                          " AND id > $3 AND (size > 0 OR owner <> 0) ORDER BY id LIMIT $4",
                          DB_INTEGER(ino), DB_INTEGER(ino), DB_INTEGER(after), DB_INTEGER(limit));
    else
        error = db_select(meta->db, &rows,
                          "SELECT id, 0, size FROM object WHERE id > $1 AND (size > 0 OR owner <> 0)"
                          " ORDER BY id LIMIT $2",
                          DB_INTEGER(after), DB_INTEGER(limit));
    return error ? error : damage_collect(&rows, false, out, count);
}

errint meta_find_copies(struct meta *meta, const struct meta_segment *segment,
                        const struct meta_range *except, struct meta_range **out, size_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows,
                  "SELECT object, object_offset, length FROM segment WHERE low = $1 AND high = $2"
                  " AND length = $3 AND (object <> $4 OR object_offset <> $5) ORDER BY object DESC",
                  DB_INTEGER(segment->low), DB_INTEGER(segment->high), DB_INTEGER(segment->length),
                  DB_INTEGER(except->object), DB_INTEGER(except->offset));
    return error ? error : damage_collect(&rows, false, out, count);
}
