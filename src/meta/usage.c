/* SPDX-License-Identifier: Apache-2.0 */
/* What files and trees cost: collecting the files, then their objects, then sweeping over each object. */
#include "meta/usage.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/grow.h"
#include "meta/assembled.h"
#include "meta/internal.h"
#include "meta/template.h"

enum {
    USAGE_ROWS = 512,        /* read under one lock, and between two pauses */
    USAGE_PAUSE_NS = 100000, /* without one, those who wait for the lock might never get it */
};

struct usage_file {
    uint64_t ino;
    uint32_t names; /* found below the directory */
    uint32_t nlink : 31;
    uint32_t hidden : 1; /* it is found beside a directory's files, and is none of them */
};

struct usage {
    struct meta *meta;
    const struct meta_usage_request *request;
    struct meta_usage *out;
    struct usage_file *files; /* in the order of their inodes, once all are collected */
    size_t file_count, file_capacity;
    struct ids directories; /* still to be read */
    struct ids objects;
    size_t objects_checked; /* how many there were when they were last sorted */
    size_t worked;          /* rows since the last pause */
};

static void usage_release(struct usage *usage)
{
    free(usage->files);
    ids_release(&usage->directories);
    ids_release(&usage->objects);
}

#define cleanup_usage __attribute__((cleanup(usage_release)))

/* Called without the lock, after `rows` more rows were read. */
static errint usage_breathe(struct usage *usage, size_t rows)
{
    usage->worked += rows;
    if (usage->worked < USAGE_ROWS)
        return 0;
    usage->worked = 0;
    nanosleep(&(struct timespec){.tv_nsec = USAGE_PAUSE_NS}, NULL);
    return usage->request->stop && usage->request->stop(usage->request->context) ? -ECANCELED : 0;
}

static bool usage_counts(const struct usage *usage, uint32_t uid)
{
    return usage->request->everybody || usage->request->uid == uid;
}

/* -- the files --------------------------------------------------------------------------------------------
 */

static errint usage_add_file(struct usage *usage, const struct meta_inode *inode, bool hidden)
{
    if (!grow_reserve(usage->files, usage->file_capacity, usage->file_count + 1))
        return -ENOMEM;
    usage->files[usage->file_count++] = (struct usage_file){
        .ino = inode->ino, .names = 1, .nlink = inode->nlink & INT32_MAX, .hidden = hidden};
    return 0;
}

/* A part of a directory. */
struct usage_page {
    struct usage *usage;
    uint64_t last;
    size_t count;
    errint error;
};

static bool usage_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                             const struct meta_inode *inode)
{
    (void)name, (void)length;
    struct usage_page *page = context;
    if (S_ISDIR(inode->mode))
        page->error = ids_append(&page->usage->directories, inode->ino);
    else if (S_ISREG(inode->mode) && usage_counts(page->usage, inode->uid))
        page->error = usage_add_file(page->usage, inode, false);
    page->last = cookie;
    return !page->error && ++page->count < USAGE_ROWS;
}

/* What is found besides a directory's names takes space, and goes with it. */
static bool usage_take_hidden(struct usage_page *page, const struct meta_inode *inode)
{
    struct meta_inode hidden = *inode;
    hidden.nlink = 1;
    if (usage_counts(page->usage, inode->uid))
        page->error = usage_add_file(page->usage, &hidden, true);
    return !page->error;
}

static bool usage_take_assembled(void *context, const char *name, size_t length,
                                 const struct meta_inode *inode)
{
    (void)name, (void)length;
    bool named = inode->nlink > 0; /* and is among the names */
    return named || usage_take_hidden(context, inode);
}

static errint usage_read_assembled(struct usage *usage, uint64_t directory)
{
    struct usage_page page = {.usage = usage};
    errint error = meta_assembled_list(usage->meta, directory, 0, usage_take_assembled, &page);
    return error ? error : page.error;
}

/* So does what it lends to those below it. */
static bool usage_take_template(void *context, const char *name, size_t length, uint64_t cookie,
                                const struct meta_inode *inode)
{
    (void)name, (void)length, (void)cookie;
    return usage_take_hidden(context, inode);
}

static errint usage_read_template(struct usage *usage, uint64_t directory)
{
    struct usage_page page = {.usage = usage};
    struct meta_template_found found;
    errint error = meta_template_find(usage->meta, directory, &found);
    if (error || found.run != directory)
        return error == -ENOENT ? 0 : error;
    error = meta_list(usage->meta, found.hidden, 0, usage_take_template, &page);
    if (!error)
        error = page.error;
    return error == -ENOENT ? 0 : error;
}

static errint usage_read_directory(struct usage *usage, uint64_t directory)
{
    struct usage_page page = {.usage = usage};
    do {
        page.count = 0;
        errint error = meta_list(usage->meta, directory, page.last, usage_take_entry, &page);
        if (!error)
            error = page.error;
        if (!error)
            error = usage_breathe(usage, page.count + 1);
        if (error)
            /* It was removed meanwhile. */
            return error == -ENOENT ? 0 : error;
    } while (page.count == USAGE_ROWS);
    errint error = usage_read_assembled(usage, directory);
    return error ? error : usage_read_template(usage, directory);
}

static int usage_compare_files(const void *a, const void *b)
{
    const struct usage_file *left = a, *right = b;
    return (left->ino > right->ino) - (left->ino < right->ino);
}

/* Sorts the files; the names of one inode become one entry. */
static void usage_merge_files(struct usage *usage)
{
    if (usage->file_count == 0)
        return;
    qsort(usage->files, usage->file_count, sizeof *usage->files, usage_compare_files);
    size_t last = 0;
    for (size_t i = 1; i < usage->file_count; i++) {
        if (usage->files[i].ino == usage->files[last].ino)
            usage->files[last].names++;
        else
            usage->files[++last] = usage->files[i];
    }
    usage->file_count = last + 1;
}

static errint usage_collect_files(struct usage *usage)
{
    struct meta_inode inode;
    errint error = meta_get(usage->meta, usage->request->ino, &inode);
    if (!error && S_ISDIR(inode.mode))
        error = ids_append(&usage->directories, inode.ino);
    else if (!error && S_ISREG(inode.mode) && usage_counts(usage, inode.uid))
        error = usage_add_file(usage, &inode, false);
    while (!error && usage->directories.count > 0)
        error = usage_read_directory(usage, usage->directories.at[--usage->directories.count]);
    if (!error)
        usage_merge_files(usage);
    return error;
}

static const struct usage_file *usage_find_file(const struct usage *usage, uint64_t ino)
{
    const struct usage_file key = {.ino = ino};
    if (usage->file_count == 0)
        return NULL;
    return bsearch(&key, usage->files, usage->file_count, sizeof *usage->files, usage_compare_files);
}

/* Whether a name outside keeps the file. */
static bool usage_is_kept(const struct usage_file *file)
{
    return file->names < file->nlink;
}

/* -- their objects ----------------------------------------------------------------------------------------
 */

static void usage_merge_objects(struct usage *usage)
{
    struct ids *objects = &usage->objects;
    ids_sort(objects);
    size_t kept = 0;
    for (size_t i = 0; i < objects->count; i++) {
        if (kept == 0 || objects->at[kept - 1] != objects->at[i])
            objects->at[kept++] = objects->at[i];
    }
    objects->count = usage->objects_checked = kept;
}

static errint usage_add_object(struct usage *usage, uint64_t object)
{
    struct ids *objects = &usage->objects;
    if (objects->count > 0 && objects->at[objects->count - 1] == object)
        return 0;
    if (objects->count == objects->capacity && objects->count > 2 * usage->objects_checked)
        usage_merge_objects(usage);
    return ids_append(objects, object);
}

/* The objects of at most USAGE_ROWS extents of the file, after the one at `after`. */
static errint usage_read_extents(struct usage *usage, uint64_t ino, int64_t *after, size_t *count)
{
    META_LOCKED(usage->meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(usage->meta->db, &rows,
                             "SELECT file_offset, object FROM extent WHERE ino = $1 AND file_offset > $2"
                             " ORDER BY file_offset LIMIT $3",
                             DB_INTEGER(ino), DB_INTEGER(*after), DB_INTEGER(USAGE_ROWS));
    *count = 0;
    int found = 0;
    while (!error && (found = db_next(&rows)) > 0) {
        *after = db_integer(&rows, 0);
        error = usage_add_object(usage, (uint64_t)db_integer(&rows, 1));
        ++*count;
    }
    return error ? error : found;
}

static errint usage_add_extents(struct usage *usage, const struct usage_file *file)
{
    int64_t after = -1;
    size_t count;
    do {
        errint error = usage_read_extents(usage, file->ino, &after, &count);
        if (!error)
            error = usage_breathe(usage, count + 1);
        if (error)
            return error;
        usage->out->extents += file->hidden ? 0 : count;
    } while (count == USAGE_ROWS);
    return 0;
}

static errint usage_content_length(struct meta *meta, uint64_t ino, int64_t *length)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT length(bytes) FROM content WHERE ino = $1", DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    *length = found > 0 ? db_integer(&rows, 0) : 0;
    return found < 0 ? found : 0;
}

/* Bytes that only this file can have. */
static void usage_add_own(struct usage *usage, const struct usage_file *file, int64_t bytes)
{
    usage->out->stored_bytes += bytes;
    usage->out->unique_bytes += usage_is_kept(file) ? 0 : bytes;
}

static void usage_add_written(struct usage *usage, const struct usage_file *file, struct meta_inode *inode)
{
    if (usage->request->size)
        inode->size = usage->request->size(usage->request->context, inode);
    usage->out->extents += inode->size > 0 && !file->hidden;
    usage_add_own(usage, file, inode->size);
}

static errint usage_count_file(struct usage *usage, const struct usage_file *file)
{
    struct meta_inode inode;
    int64_t length;
    errint error = meta_get(usage->meta, file->ino, &inode);
    if (error)
        return error == -ENOENT ? 0 : error;
    switch (inode.kind) {
    case META_NONE: break;
    case META_INLINE:
        error = usage_content_length(usage->meta, inode.ino, &length);
        if (!error)
            usage_add_own(usage, file, length);
        break;
    case META_OBJECT: usage_add_written(usage, file, &inode); break;
    case META_EXTENTS: error = usage_add_extents(usage, file); break;
    }
    if (!file->hidden) {
        usage->out->files++;
        usage->out->logical_bytes += inode.size;
    }
    return error ? error : usage_breathe(usage, 4);
}

/* -- sweeping over an object ------------------------------------------------------------------------------
 */

/* The length of a union of ranges that come in the order of their starts. */
struct usage_union {
    int64_t end, length;
};

static void usage_unite(struct usage_union *all, int64_t start, int64_t end)
{
    if (start < all->end)
        start = all->end;
    if (end <= start)
        return;
    all->length += end - start;
    all->end = end;
}

struct usage_sweep {
    uint64_t object;
    int64_t offset, file_offset; /* with ino: the last extent that was seen */
    uint64_t ino;
    struct usage_union set, others, both;
};

static void usage_sweep_extent(struct usage *usage, struct usage_sweep *sweep, int64_t length, uint32_t uid,
                               bool shown)
{
    const struct usage_file *file = usage_find_file(usage, sweep->ino);
    bool others = file ? usage_is_kept(file) : shown && usage_counts(usage, uid);
    int64_t end = sweep->offset + length;
    if (file)
        usage_unite(&sweep->set, sweep->offset, end);
    if (others)
        usage_unite(&sweep->others, sweep->offset, end);
    if (file || others)
        usage_unite(&sweep->both, sweep->offset, end);
}

static errint usage_sweep_page(struct usage *usage, struct usage_sweep *sweep, size_t *count)
{
    META_LOCKED(usage->meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(usage->meta->db, &rows,
                             "SELECT e.object_offset, e.ino, e.file_offset, e.length, i.uid,"
                             " i.nlink > 0 OR (i.state & 4) <> 0"
                             " FROM extent e JOIN inode i ON i.ino = e.ino"
                             " WHERE e.object = $1 AND (e.object_offset, e.ino, e.file_offset) > ($2, $3, $4)"
                             " ORDER BY e.object_offset, e.ino, e.file_offset LIMIT $5",
                             DB_INTEGER(sweep->object), DB_INTEGER(sweep->offset), DB_INTEGER(sweep->ino),
                             DB_INTEGER(sweep->file_offset), DB_INTEGER(USAGE_ROWS));
    *count = 0;
    int found = 0;
    while (!error && (found = db_next(&rows)) > 0) {
        sweep->offset = db_integer(&rows, 0);
        sweep->ino = (uint64_t)db_integer(&rows, 1);
        sweep->file_offset = db_integer(&rows, 2);
        usage_sweep_extent(usage, sweep, db_integer(&rows, 3), (uint32_t)db_integer(&rows, 4),
                           db_integer(&rows, 5) != 0);
        ++*count;
    }
    return error ? error : found;
}

static errint usage_sweep_object(struct usage *usage, uint64_t object)
{
    struct usage_sweep sweep = {.object = object, .offset = -1};
    size_t count;
    do {
        errint error = usage_sweep_page(usage, &sweep, &count);
        if (!error)
            error = usage_breathe(usage, count + 1);
        if (error)
            return error;
    } while (count == USAGE_ROWS);
    usage->out->stored_bytes += sweep.set.length;
    usage->out->unique_bytes += sweep.both.length - sweep.others.length;
    if (usage->request->object)
        usage->request->object(usage->request->context, object);
    return 0;
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

errint meta_usage_compute(struct meta *meta, const struct meta_usage_request *request, struct meta_usage *out)
{
    *out = (struct meta_usage){0};
    /* The first breath asks whether to stop at all. */
    cleanup_usage struct usage usage = {.meta = meta, .request = request, .out = out, .worked = USAGE_ROWS};
    errint error = usage_breathe(&usage, 0);
    if (!error)
        error = usage_collect_files(&usage);
    for (size_t i = 0; !error && i < usage.file_count; i++)
        error = usage_count_file(&usage, &usage.files[i]);
    usage_merge_objects(&usage);
    for (size_t i = 0; !error && i < usage.objects.count; i++)
        error = usage_sweep_object(&usage, usage.objects.at[i]);
    return error;
}

errint meta_usage_root(struct meta *meta, uint64_t ino, uint8_t root[META_ROOT_BYTES])
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT s.root FROM extent e JOIN inode i ON i.ino = e.ino"
                             " JOIN object o ON o.id = e.object JOIN summed s ON s.object = e.object"
                             " WHERE e.ino = $1 AND e.file_offset = 0 AND e.object_offset = 0"
                             " AND e.length = o.size AND o.size = i.size AND o.owner = 0",
                             DB_INTEGER(ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENODATA;
    size_t length;
    const void *bytes = db_bytes(&rows, 0, &length);
    if (length != META_ROOT_BYTES)
        return -EUCLEAN;
    memcpy(root, bytes, META_ROOT_BYTES);
    return 0;
}

/* -- what waits to be given back --------------------------------------------------------------------------
 */

int meta_find_unreferenced_after(struct meta *meta, uint64_t *after, struct ids *out)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT o.id, o.owner = 0 AND NOT EXISTS (SELECT 1 FROM extent e"
                             " WHERE e.object = o.id) FROM object o WHERE o.id > $1 ORDER BY o.id LIMIT $2",
                             DB_INTEGER(*after), DB_INTEGER(USAGE_ROWS));
    return error ? error : object_collect_page(&rows, USAGE_ROWS, after, out);
}

errint meta_count_unhashed(struct meta *meta, uint64_t *count)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT count(*) FROM shrunk h JOIN object o ON o.id = h.object"
                             " WHERE o.owner = 0 AND NOT EXISTS"
                             " (SELECT 1 FROM summed s WHERE s.object = h.object)");
    int found = error ? error : db_next(&rows);
    *count = found > 0 ? (uint64_t)db_integer(&rows, 0) : 0;
    return found < 0 ? found : 0;
}
