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
    int more = error;
    while (!more && (more = db_next(&rows)) > 0)
        more = ids_append(out, (uint64_t)db_integer(&rows, 0));
    return more;
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

errint check_objects(struct check *check)
{
    cleanup_ids struct ids strays = {0};
    errint error = check_owners(check);
    if (error || !check->request->adopt_strays)
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
