/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that hold data and that nothing leads to. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta/check_internal.h"

/* Files of objects, with where they are in the request's list. */
static const struct meta_object_file *check_find_file(const struct check *check, uint64_t object)
{
    size_t from = 0, to = check->request->file_count;
    const struct meta_object_file *files = check->request->files;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (files[middle].object == object)
            return &files[middle];
        if (files[middle].object < object)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static errint check_adopt(struct check *check, const struct meta_object_file *file)
{
    struct meta *meta = check->meta;
    struct meta_inode inode = {.mode = S_IFREG | 0600,
                               .nlink = 1,
                               .uid = geteuid(),
                               .gid = getegid(),
                               .size = file->size,
                               .atime = file->mtime,
                               .mtime = file->mtime,
                               .ctime = check->request->now,
                               .btime = file->mtime,
                               .kind = META_EXTENTS,
                               .synced_size = file->size};
    const struct meta_extent extent = {.length = file->size, .object = file->object};
    char name[32];
    snprintf(name, sizeof name, "object-%016llx", (unsigned long long)file->object);
    errint error = change_take_number(meta, META_COUNTER_INO, &inode.ino);
    if (!error)
        error = inode_insert(meta, &inode);
    if (!error)
        error = object_note(meta, file->object, file->size);
    if (!error)
        error = extents_put(meta, inode.ino, &extent);
    if (!error)
        error = check_attach(check, inode.ino, name);
    check->result->adopted += !error;
    return error;
}

static errint check_adopt_all(struct check *check, const struct ids *objects, const char *code,
                              const char *text)
{
    errint error = 0;
    for (size_t i = 0; !error && i < objects->count; i++) {
        const struct meta_object_file *file = check_find_file(check, objects->at[i]);
        if (!file || file->size == 0)
            continue;
        struct check_about about = {.object = file->object, .numbers = {file->size}};
        error = check_tell(check, META_FINDING_MENDED, code, text, &about);
        if (!error)
            error = check_adopt(check, file);
    }
    return error;
}

static errint check_collect(struct check *check, const char *text, struct ids *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(check->meta->db, &rows, text);
    return error ? error : rows_collect_ids(&rows, out);
}

/* An object whose writer is gone. Where extents are on it, it only has no writer any more. */
static errint check_owners(struct check *check)
{
#define OWNER_IS_GONE                                                                                        \
    "owner <> 0 AND NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = object.owner AND i.kind = 2"             \
    " AND i.object = object.id)"
    cleanup_ids struct ids all = {0}, unused = {0};
    errint error = check_collect(check, "SELECT id FROM object WHERE " OWNER_IS_GONE, &all);
    if (!error)
        error = check_collect(check,
                              "SELECT id FROM object WHERE " OWNER_IS_GONE
                              " AND NOT EXISTS (SELECT 1 FROM extent e WHERE e.object = object.id)",
                              &unused);
    for (size_t i = 0; !error && i < all.count; i++)
        error = check_tell(check, META_FINDING_MENDED, "object-owner",
                           "its row names a file that is not on it; it has no writer any more",
                           &(struct check_about){.object = all.at[i]});
    if (!error && all.count > 0)
        error = db_run(check->meta->db, "UPDATE object SET owner = 0 WHERE " OWNER_IS_GONE);
    return error ? error
                 : check_adopt_all(
                       check, &unused, "object-lost",
                       "holds $1 bytes that no file leads to: it becomes a file in /" META_LOST_AND_FOUND);
}

/* -- after a rebuild --------------------------------------------------------------------------------------
 */

/* A file that is the one object, whole, and was written on after the backup. */
struct check_grown {
    uint64_t ino, object;
    int64_t before, size;
};

static int check_next_grown(struct check *check, struct check_grown *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(check->meta->db, &rows,
                             "SELECT e.ino, o.id, o.size, f.size FROM object o JOIN check_file f"
                             " ON f.id = o.id AND f.size > o.size JOIN extent e ON e.object = o.id"
                             " JOIN inode i ON i.ino = e.ino WHERE o.owner = 0 AND o.id > $1 AND i.kind = 3"
                             " AND i.size = o.size AND e.file_offset = 0 AND e.object_offset = 0"
                             " AND e.length = o.size"
                             " AND (SELECT count(*) FROM extent a WHERE a.object = o.id) = 1"
                             " ORDER BY o.id LIMIT 1",
                             DB_INTEGER(out->object));
    int found = error ? error : db_next(&rows);
    if (found > 0)
        *out = (struct check_grown){.ino = (uint64_t)db_integer(&rows, 0),
                                    .object = (uint64_t)db_integer(&rows, 1),
                                    .before = db_integer(&rows, 2),
                                    .size = db_integer(&rows, 3)};
    return found;
}

static errint check_follow_growth(struct check *check, const struct check_grown *grown)
{
    struct meta *meta = check->meta;
    struct meta_inode before;
    struct check_about about = {
        .ino = grown->ino, .object = grown->object, .numbers = {grown->before, grown->size}};
    errint error = check_tell(check, META_FINDING_MENDED, "object-grown",
                              "had $1 bytes at the time of the backup, and its object has $2: it has them "
                              "too, and is marked as torn",
                              &about);
    if (!error)
        error = inode_load(meta, grown->ino, &before);
    if (error)
        return error;
    struct meta_inode after = before;
    after.size = grown->size;
    after.state |= META_TORN;
    error = inode_update(meta, &before, &after);
    if (!error)
        error = object_note(meta, grown->object, grown->size);
    return error ? error
                 : db_run(meta->db, "UPDATE extent SET length = $1 WHERE ino = $2 AND file_offset = 0",
                          DB_INTEGER(grown->size), DB_INTEGER(grown->ino));
}

static errint check_grown_objects(struct check *check)
{
    struct check_grown grown = {0};
    int found;
    while ((found = check_next_grown(check, &grown)) > 0) {
        errint error = check_follow_growth(check, &grown);
        if (error)
            return error;
    }
    return found;
}

#define WRITTEN_SINCE                                                                                        \
    "EXISTS (SELECT 1 FROM inode i JOIN inode h ON h.ino = stand_in.hidden JOIN check_file f"                \
    " ON f.id = i.object OR f.id IN (SELECT e.object FROM extent e WHERE e.ino = i.ino)"                     \
    " WHERE i.ino = stand_in.ino AND f.mtime > h.mtime)"

/* What a file was at its last fsync before the backup is no better than what was written to it since. */
static const struct check_rule check_rules_backup[] = {
    {"stand-in-old",
     META_FINDING_MENDED,
     CHECK_INODE,
     "was written since the backup: inode $1, its stand-in then, is not kept any more",
     "SELECT ino, hidden FROM stand_in WHERE " WRITTEN_SINCE,
     {"DELETE FROM stand_in WHERE " WRITTEN_SINCE}},
    {0},
};

errint check_objects(struct check *check)
{
    cleanup_ids struct ids strays = {0};
    errint error = check_owners(check);
    if (error || !check->request->rebuild)
        return error;
    error = check_grown_objects(check);
    if (!error)
        error = check_run_rules(check, check_rules_backup);
    if (error)
        return error;
    error = check_collect(check,
                          "SELECT f.id FROM check_file f WHERE NOT EXISTS"
                          " (SELECT 1 FROM object o WHERE o.id = f.id) ORDER BY f.id",
                          &strays);
    return error ? error
                 : check_adopt_all(
                       check, &strays, "stray",
                       "holds $1 bytes that no row knows: it becomes a file in /" META_LOST_AND_FOUND);
}
