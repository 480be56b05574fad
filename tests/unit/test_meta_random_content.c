/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on contents, and on what becomes of files. */
#include "meta/sharing.h"
#include "meta/stand_in.h"
#include "test_meta_random.h"

/* -- contents ---------------------------------------------------------------------------------------------
 */

static void set_size(struct model_inode *inode, int64_t size)
{
    for (int64_t i = size; i < MODEL_SIZE; i++) {
        inode->cells[i] = (struct model_cell){0};
        inode->bytes[i] = 0;
    }
    inode->row.size = size;
    if (inode->row.kind == META_INLINE && inode->stored > size)
        inode->stored = size;
}

/* A file that had other bytes from `offset` on, and reaches to `end` now. */
static void note_mapped(struct model_inode *inode, int64_t offset, int64_t end)
{
    inode->row.kind = META_EXTENTS;
    inode->row.state |= META_DIRTY;
    if (inode->row.size < end)
        inode->row.size = end;
    if (inode->row.synced_size > offset)
        inode->row.synced_size = offset;
}

static errint mapping_error(const struct model_inode *inode)
{
    errint error = file_error(inode);
    return error || inode->row.kind == META_NONE || is_extents(inode) ? error : -EINVAL;
}

void run_map(void)
{
    struct model_inode *inode = pick(is_extents);
    int64_t offset = below(MODEL_SIZE - 1), length = 1 + below((unsigned)(MODEL_SIZE - offset));
    struct meta_extent extent = {offset, length, 0, below(10)};
    static uint64_t last;
    if (below(4))
        extent.object = last =
            below(3) || !last || !model_refers(&model, last, 0) ? meta_object_next(meta) : last;
    /* An object that is being written is nobody else's. */
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (model.inodes[i].used && model.inodes[i].row.object == extent.object)
            extent.object = 0;
    }
    bool extend = below(3) != 0;
    errint expected = mapping_error(inode);
    CHECK_EQUAL(expected, meta_extents_map(meta, inode->row.ino, &extent, extend, FRAME_NOW, &freed));
    if (expected)
        return;
    int64_t end = offset + length, reach = extend ? end : inode->row.size;
    for (int64_t i = offset; i < end && i < reach; i++)
        inode->cells[i] = extent.object
                              ? (struct model_cell){extent.object, extent.object_offset + i - offset}
                              : (struct model_cell){0};
    note_mapped(inode, offset, extend ? end : 0);
}

void run_truncate(void)
{
    struct model_inode *inode = pick(is_file);
    int64_t size = below(4) ? below(MODEL_SIZE + 1) : 0;
    errint expected = file_error(inode);
    if (!expected && is_written(inode))
        expected = -EINVAL;
    CHECK_EQUAL(expected, meta_truncate(meta, inode->row.ino, size, FRAME_NOW, 0, &freed));
    if (expected)
        return;
    if (inode->row.kind == META_NONE && size)
        inode->row.kind = META_EXTENTS;
    if (size == 0) {
        model_clear(inode);
        model_release_stand_in(&model, inode, NULL);
    } else if (inode->stand_in) {
        struct model_inode *hidden = model_get(&model, inode->stand_in);
        set_size(hidden, size);
        hidden->row.synced_size = size;
    }
    set_size(inode, size);
    if (!(inode->row.state & META_DIRTY) || inode->row.synced_size > size)
        inode->row.synced_size = size;
    if (size == 0)
        inode->row.state &= ~(uint32_t)META_TORN;
}

void run_clone(void)
{
    struct model_inode *from = pick(is_extents), *to = pick(is_extents);
    int64_t size = from->row.size > 0 && from->row.size <= MODEL_SIZE ? from->row.size : 1;
    int64_t from_offset = below((unsigned)size), length = 1 + below((unsigned)(size - from_offset));
    int64_t to_offset = below((unsigned)(MODEL_SIZE - length + 1));
    errint expected = mapping_error(from);
    if (!expected && from_offset + length > from->row.size)
        expected = -EINVAL;
    if (!expected)
        expected = mapping_error(to);
    CHECK_EQUAL(expected, meta_clone(meta, from->row.ino, from_offset, to->row.ino, to_offset, length,
                                     FRAME_NOW, &freed));
    if (expected)
        return;
    memmove(&to->cells[to_offset], &from->cells[from_offset], (size_t)length * sizeof *to->cells);
    note_mapped(to, to_offset, to_offset + length);
}

void run_to_object(void)
{
    struct model_inode *inode = pick(is_file);
    uint64_t object = meta_object_next(meta);
    int64_t size = below(3) ? below(MODEL_SIZE) : 0;
    errint expected = file_error(inode);
    CHECK_EQUAL(expected, meta_to_object(meta, inode->row.ino, object, size, &freed));
    if (expected)
        return;
    model_release_stand_in(&model, inode, NULL);
    struct model_inode before = *inode;
    model_clear(inode);
    if (before.row.kind == META_INLINE) {
        inode->spare = true;
        inode->stored = before.stored;
        memcpy(inode->spare_bytes, before.bytes, sizeof inode->spare_bytes);
    }
    inode->row.kind = META_OBJECT;
    inode->row.object = object;
    inode->row.size = size;
    inode->row.synced_size = -1;
    inode->row.state |= META_DIRTY;
    if (size == 0)
        inode->row.state &= ~(uint32_t)META_TORN;
}

void run_to_inline(void)
{
    struct model_inode *inode = pick(is_written);
    char bytes[MODEL_SIZE];
    size_t length = below(3) ? below(MODEL_SIZE) : 0;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)below(256);
    errint expected = file_error(inode);
    if (!expected && !is_written(inode))
        expected = -EINVAL;
    CHECK_EQUAL(expected, meta_to_inline(meta, inode->row.ino, bytes, length, FRAME_NOW, FRAME_NOW, &freed));
    if (expected)
        return;
    model_clear(inode);
    if (length)
        inode->row.kind = META_INLINE;
    inode->stored = (int64_t)length;
    memcpy(inode->bytes, bytes, length);
    inode->row.size = inode->row.synced_size = (int64_t)length;
    inode->row.state &= ~(uint32_t)META_DIRTY;
    release_shadows(inode->row.ino, NULL);
    model_release_stand_in(&model, inode, NULL);
}

/* The object that the file is becomes its extents. */
static void become_extents(struct model_inode *inode, int64_t size)
{
    uint64_t object = inode->row.object;
    bool spare = inode->spare && size;
    int64_t stored = inode->stored;
    model_clear(inode);
    inode->spare = spare;
    inode->stored = spare ? stored : 0;
    inode->row.kind = size ? META_EXTENTS : META_NONE;
    inode->row.size = size;
    for (int64_t i = 0; i < size; i++)
        inode->cells[i] = (struct model_cell){object, i};
}

void run_seal(void)
{
    struct model_inode *inode = pick(is_written);
    int64_t size = below(4) ? below(MODEL_SIZE) : 0;
    errint expected = file_error(inode);
    if (!expected && !is_written(inode))
        expected = -EINVAL;
    CHECK_EQUAL(expected, meta_seal(meta, inode->row.ino, size, FRAME_NOW, FRAME_NOW, &freed));
    if (!expected)
        become_extents(inode, size);
    if (!expected && size == 0)
        model_release_stand_in(&model, inode, NULL);
}

void run_unseal(void)
{
    struct model_inode *inode = pick(is_extents);
    uint64_t object = inode->cells[0].object;
    int64_t size = inode->row.size, object_size = 0;
    errint expected = file_error(inode);
    bool whole = is_extents(inode) && size > 0 && object != 0;
    for (int64_t i = 0; whole && i < size; i++)
        whole = inode->cells[i].object == object && inode->cells[i].offset == i;
    whole = whole && meta_object_size(meta, object, &object_size) == 0 && object_size == size;
    if (!expected && (!whole || model_refers(&model, object, inode->row.ino)))
        expected = -EBUSY;
    CHECK_EQUAL(expected, meta_unseal(meta, inode->row.ino));
    if (expected)
        return;
    bool spare = inode->spare;
    int64_t stored = inode->stored;
    model_clear(inode);
    inode->spare = spare;
    inode->stored = stored;
    inode->row.kind = META_OBJECT;
    inode->row.object = object;
    inode->row.size = size;
    inode->row.state |= META_DIRTY;
}

/* A torn file goes back to the bytes that are still stored: how many these are. */
static int64_t restore_spare(struct model_inode *inode)
{
    int64_t size = inode->stored;
    char bytes[MODEL_SIZE];
    memcpy(bytes, inode->spare_bytes, sizeof bytes);
    model_clear(inode);
    inode->row.kind = META_INLINE;
    inode->row.size = inode->stored = size;
    memcpy(inode->bytes, bytes, (size_t)size);
    return size;
}

void run_tear(void)
{
    struct model_inode *inode = pick(is_file);
    int64_t size = below(MODEL_SIZE);
    errint expected = file_error(inode);
    CHECK_EQUAL(expected, meta_tear(meta, inode->row.ino, size, &freed));
    if (expected)
        return;
    if (!is_written(inode) && size > inode->row.size)
        size = inode->row.size;
    model_release_stand_in(&model, inode, NULL);
    if (inode->spare)
        size = restore_spare(inode);
    else if (is_written(inode))
        become_extents(inode, size);
    else if (size == 0)
        model_clear(inode);
    else
        set_size(inode, size);
    inode->row.synced_size = size;
    inode->row.state = META_TORN;
}

/* -- the rest of a file's life ----------------------------------------------------------------------------
 */

void run_synced(void)
{
    struct model_inode *inode = pick(is_file);
    cleanup_ids struct ids expected = {0}, found = {0};
    bool clean = below(2);
    release_shadows(inode->row.ino, &expected);
    model_release_stand_in(&model, inode, &expected);
    CHECK_EQUAL(0, meta_synced(meta, inode->row.ino, inode->row.size, clean, &found));
    CHECK(same_ids(&expected, &found));
    inode->spare = false;
    inode->row.synced_size = inode->row.size;
    if (clean)
        inode->row.state &= ~(uint32_t)META_DIRTY;
}

void run_reap(void)
{
    struct model_inode *inode = pick(is_nameless);
    inode->open = false;
    CHECK_EQUAL(0, meta_reap(meta, inode->row.ino, &freed));
    if (inode->row.nlink == 0)
        model_reap(&model, inode);
}

void run_restore(void)
{
    cleanup_ids struct ids torn = {0}, expected = {0}, found = {0};
    struct model_inode *inode = pick(is_successor);
    uint64_t ino = inode->row.ino;
    CHECK_EQUAL(0, ids_append(&torn, ino));
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        struct model_name *name = &model.names[i];
        if (!name->used || !name->shadowed || name->ino != ino)
            continue;
        name->shadowed = false;
        name->ino = name->shadow;
        model_get(&model, name->shadow)->row.nlink++;
        CHECK_EQUAL(0, ids_append(&expected, name->shadow));
        model_unlinked(&model, inode, true);
    }
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &found, &freed));
    CHECK(same_ids(&expected, &found));
}

void run_fork(void)
{
    struct model_inode *inode = pick(is_extents), *copy = model_new(&model);
    if (!copy)
        return;
    copy->used = false;
    struct meta_inode row;
    errint expected = file_error(inode);
    if (!expected && inode->row.nlink == 0)
        expected = -ENOENT;
    if (!expected && !is_extents(inode))
        expected = -EBUSY;
    CHECK_EQUAL(expected, meta_fork(meta, inode->row.ino, &row));
    if (expected)
        return;
    *copy = *inode;
    copy->open = false;
    copy->row.ino = row.ino;
    inode->spare = false;
    inode->stand_in = 0;
    inode->row.nlink = 0;
    inode->open = true;
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        if (model.names[i].used && model.names[i].ino == inode->row.ino)
            model.names[i].ino = row.ino;
    }
}

void run_forget(void)
{
    cleanup_ids struct ids found = {0};
    CHECK_EQUAL(0, meta_find_unreferenced(meta, &found));
    for (size_t i = 0; i < found.count; i++)
        CHECK(!model_refers(&model, found.at[i], 0));
    CHECK_EQUAL(0, meta_object_forget(meta, &found));
}

/* -- stand-ins --------------------------------------------------------------------------------------------
 */

/* The sealed object that all of the file is, which the index knows from now on; 0: there is none. */
static uint64_t whole_object(const struct model_inode *inode, const uint8_t root[META_ROOT_BYTES])
{
    uint64_t object = is_extents(inode) && inode->row.nlink ? inode->cells[0].object : 0;
    int64_t size;
    if (!object || meta_object_size(meta, object, &size) < 0 || size != inode->row.size)
        return 0;
    for (int64_t i = 0; i < size; i++) {
        if (inode->cells[i].object != object || inode->cells[i].offset != i)
            return 0;
    }
    if (meta_object_summed(meta, object, root, inode->row.uid, NULL, 0) < 0)
        return 0;
    CHECK_EQUAL(0, meta_object_shared_out(meta, object));
    return object;
}

static uint64_t find_hidden(uint64_t ino)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    CHECK_EQUAL(0, db_select(meta->db, &rows, "SELECT hidden FROM stand_in WHERE ino = $1", DB_INTEGER(ino)));
    return db_next(&rows) > 0 ? (uint64_t)db_integer(&rows, 0) : 0;
}

void run_stand_in(void)
{
    static const uint8_t root[META_ROOT_BYTES] = "the same bytes";
    struct model_inode *inode = pick(is_written), *older = pick(is_extents), *hidden = model_new(&model);
    if (!hidden)
        return;
    hidden->used = false;
    uint64_t object = whole_object(older, root);
    if (!object || !is_file(inode))
        return;
    const struct meta_stand_in wanted = {.ino = inode->row.ino,
                                         .object = inode->row.object,
                                         .uid = inode->row.uid,
                                         .size = older->row.size,
                                         .older = object,
                                         .older_root = root};
    errint expected = is_written(inode) && (inode->row.state & META_DIRTY) ? 0 : -EBUSY;
    CHECK_EQUAL(expected, meta_stand_in_put(meta, &wanted));
    if (expected)
        return;
    model_release_stand_in(&model, inode, NULL);
    release_shadows(inode->row.ino, NULL);
    inode->spare = false;
    inode->row.size = inode->row.synced_size = older->row.size;
    *hidden = (struct model_inode){.used = true, .row = inode->row};
    memcpy(hidden->cells, older->cells, sizeof hidden->cells);
    hidden->row.kind = META_EXTENTS;
    hidden->row.state = 0;
    hidden->row.object = 0;
    hidden->row.nlink = 0;
    inode->stand_in = hidden->row.ino = find_hidden(inode->row.ino);
    CHECK(inode->stand_in != 0);
}

/* A power cut, for one file. */
void run_cut(void)
{
    struct model_inode *inode = pick(has_stand_in);
    struct model_inode *hidden = inode->stand_in ? model_get(&model, inode->stand_in) : NULL;
    bool whole = false;
    CHECK_EQUAL(hidden ? 0 : -ENOENT, meta_stand_in_restore(meta, inode->row.ino, &whole, &freed));
    if (!hidden)
        return;
    CHECK(!whole || (is_extents(inode) && inode->row.size == hidden->row.size));
    model_clear(inode);
    inode->row.kind = META_EXTENTS;
    inode->row.size = inode->row.synced_size = hidden->row.size;
    memcpy(inode->cells, hidden->cells, sizeof inode->cells);
    inode->row.state = (inode->row.state & META_TORN) | (whole ? 0 : META_TORN);
    inode->stand_in = 0;
    hidden->used = false;
}
