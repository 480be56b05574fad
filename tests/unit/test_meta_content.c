/* SPDX-License-Identifier: Apache-2.0 */
/* What files are made of: extents, objects, small contents, and what becomes free. */
#include <errno.h>

#include "meta/sharing.h"
#include "meta/shed.h"
#include "test_meta_frame.h"

/* A file and objects of fixed numbers, so that frame_extents() can be read. */
static uint64_t file;
static struct ids freed;

static void begin(void)
{
    file = frame_make(1, "f", S_IFREG | 0644);
    freed.count = 0;
}

/* Runs one frame_map and says what the file and the list are then. */
static void expect_map(int64_t offset, int64_t length, uint64_t object, int64_t object_offset,
                       const char *extents)
{
    freed.count = 0;
    CHECK_EQUAL(0, frame_map(file, offset, length, object, object_offset, &freed));
    CHECK_TEXT(extents, frame_extents(file));
}

static void test_map(void)
{
    begin();
    expect_map(10, 10, 1, 100, "10+10:1@100");
    struct meta_inode inode = frame_get(file);
    CHECK_EQUAL(META_EXTENTS, inode.kind);
    CHECK_EQUAL(20, inode.size);
    CHECK_EQUAL(META_DIRTY, inode.state);
    CHECK(inode.mtime == FRAME_NOW + 3 && inode.ctime == FRAME_NOW + 3);
    expect_map(0, 10, 2, 0, "0+10:2@0 10+10:1@100");
    expect_map(12, 4, 3, 0, "0+10:2@0 10+2:1@100 12+4:3@0 16+4:1@106"); /* in the middle */
    CHECK_EQUAL(0, freed.count);
    expect_map(0, 12, 4, 0,
               "0+12:4@0 12+4:3@0 16+4:1@106"); /* over the whole of one and the front of another */
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, 2));
    expect_map(14, 10, 5, 0, "0+12:4@0 12+2:3@0 14+10:5@0"); /* over the end */
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, 1));
    CHECK_EQUAL(24, frame_get(file).size);
    expect_map(0, 24, 6, 7, "0+24:6@7");
    CHECK_EQUAL(3, freed.count);
    CHECK(frame_has(&freed, 3) && frame_has(&freed, 4) && frame_has(&freed, 5));
    expect_map(8, 8, 6, 15, "0+24:6@7"); /* what is there already */
    CHECK_EQUAL(0, freed.count);
}

static void test_map_merges(void)
{
    begin();
    expect_map(0, 10, 1, 0, "0+10:1@0");
    expect_map(10, 10, 1, 10, "0+20:1@0"); /* an append */
    expect_map(30, 10, 1, 30, "0+20:1@0 30+10:1@30");
    expect_map(20, 10, 1, 20, "0+40:1@0");            /* fills the gap: all three are one */
    expect_map(40, 10, 1, 41, "0+40:1@0 40+10:1@41"); /* another place of the object */
    expect_map(50, 10, 2, 51, "0+40:1@0 40+10:1@41 50+10:2@51");
    expect_map(30, 10, 1, 31, "0+30:1@0 30+20:1@31 50+10:2@51"); /* now with the one behind */
}

static void test_holes(void)
{
    begin();
    expect_map(0, 30, 1, 0, "0+30:1@0");
    expect_map(10, 10, 0, 0, "0+10:1@0 20+10:1@20");
    CHECK_EQUAL(0, freed.count);
    expect_map(0, 10, 0, 0, "20+10:1@20");
    expect_map(30, 70, 0, 0, "20+10:1@20"); /* grows with a hole */
    CHECK_EQUAL(100, frame_get(file).size);
    expect_map(0, 100, 0, 0, "");
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, 1));
    CHECK_EQUAL(100, frame_get(file).size);
    CHECK_EQUAL(META_EXTENTS, frame_get(file).kind);
}

static void test_map_without_extending(void)
{
    begin();
    expect_map(0, 10, 1, 0, "0+10:1@0");
    struct meta_extent extent = {5, 20, 2, 0};
    CHECK_EQUAL(0, meta_extents_map(meta, file, &extent, false, FRAME_NOW, &freed));
    CHECK_TEXT("0+5:1@0 5+5:2@0", frame_extents(file)); /* nothing behind the end */
    CHECK_EQUAL(10, frame_get(file).size);
    extent.offset = 50;
    CHECK_EQUAL(0, meta_extents_map(meta, file, &extent, false, FRAME_NOW, &freed));
    CHECK_TEXT("0+5:1@0 5+5:2@0", frame_extents(file));
}

static void test_map_refused(void)
{
    begin();
    CHECK_EQUAL(-EINVAL, frame_map(file, -1, 10, 1, 0, &freed));
    CHECK_EQUAL(-EINVAL, frame_map(file, 0, 0, 1, 0, &freed));
    CHECK_EQUAL(-EINVAL, frame_map(file, 0, 10, 1, -1, &freed));
    CHECK_EQUAL(-EFBIG, frame_map(file, INT64_MAX, 10, 1, 0, &freed));
    CHECK_EQUAL(-EFBIG, frame_map(file, 0, 10, 1, INT64_MAX, &freed));
    CHECK_EQUAL(-ENOENT, frame_map(999999, 0, 10, 1, 0, &freed));
    CHECK_EQUAL(-EISDIR, frame_map(1, 0, 10, 1, 0, &freed));
    CHECK_EQUAL(-EINVAL, frame_map(frame_make_object(1, "o"), 0, 10, 1, 0, &freed));
    CHECK_EQUAL(-EINVAL, frame_map(frame_make(1, "p", S_IFIFO), 0, 10, 1, 0, &freed));
    CHECK_EQUAL(META_NONE, frame_get(file).kind);
}

static void test_synced_size_shrinks(void)
{
    file = frame_make_sealed(1, "f", 100);
    CHECK_EQUAL(100, frame_get(file).synced_size);
    CHECK_EQUAL(0, frame_map(file, 40, 10, 77, 0, &freed));
    CHECK_EQUAL(40, frame_get(file).synced_size); /* what is on disk for certain is the beginning */
    CHECK_EQUAL(0, frame_map(file, 60, 10, 77, 20, &freed));
    CHECK_EQUAL(40, frame_get(file).synced_size);
    CHECK_EQUAL(0, meta_truncate(meta, file, 30, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(30, frame_get(file).synced_size);
}

static void test_shared_objects(void)
{
    begin();
    uint64_t other = frame_make(1, "g", S_IFREG);
    expect_map(0, 10, 1, 0, "0+10:1@0");
    CHECK_EQUAL(0, meta_object_shared(meta, 1, file));
    CHECK_EQUAL(1, meta_object_shared(meta, 1, other));
    CHECK_EQUAL(0, frame_map(other, 0, 5, 1, 2, &freed));
    CHECK_EQUAL(1, meta_object_shared(meta, 1, file));
    expect_map(0, 10, 2, 0, "0+10:2@0");
    CHECK_EQUAL(0, freed.count); /* the other one still covers five bytes */
    CHECK_EQUAL(0, frame_unlink(1, "g", true, &freed));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, 1));
    uint64_t written = frame_make_object(1, "w");
    CHECK_EQUAL(0, meta_object_shared(meta, frame_get(written).object, written));
    CHECK_EQUAL(1, meta_object_shared(meta, frame_get(written).object, file));
    int64_t size;
    CHECK_EQUAL(0, meta_object_size(meta, 2, &size));
    CHECK_EQUAL(10, size);
    CHECK_EQUAL(-ENOENT, meta_object_size(meta, 999999, &size));
}

static struct meta_shed_range shed_ranges[4];

/* Of the file as it is now, so many of shed_ranges; none: all of it. */
static errint shed_some(uint64_t ino, size_t count)
{
    const struct meta_inode row = frame_get(ino);
    return meta_shed(meta, &(struct meta_shed){.file = &row, .ranges = shed_ranges, .count = count}, &freed);
}

static errint shed(uint64_t ino)
{
    return shed_some(ino, 0);
}

static int64_t shed_measure(uint64_t ino, size_t count)
{
    const struct meta_inode row = frame_get(ino);
    int64_t bytes;
    CHECK_EQUAL(0, meta_shed_measure(meta, &(struct meta_shed){&row, shed_ranges, count}, &bytes));
    return bytes;
}

static void test_shed(void)
{
    begin();
    uint64_t other = frame_make(1, "g", S_IFREG);
    CHECK_EQUAL(-ENODATA, shed(file)); /* it has no bytes */
    expect_map(0, 30, 1, 0, "0+30:1@0");
    expect_map(30, 10, 2, 0, "0+30:1@0 30+10:2@0");
    CHECK_EQUAL(0, frame_map(other, 0, 10, 1, 5, &freed));
    struct meta_inode dirty = {.state = META_DIRTY}, clean = {.state = 0};
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_STATE, &dirty, 0, NULL));
    CHECK_EQUAL(-EBUSY, shed(file));
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_STATE, &clean, 0, NULL));
    struct meta_inode before = frame_get(file), gone = {.ino = 999999};
    CHECK_EQUAL(0, shed(file));
    struct meta_inode after = frame_get(file);
    CHECK_EQUAL(META_SHED, after.state);
    CHECK(after.size == before.size && after.mtime == before.mtime && after.kind == META_EXTENTS);
    CHECK_TEXT("", frame_extents(file));
    CHECK(freed.count == 1 && frame_has(&freed, 2)); /* of the first object another file has a part */
    CHECK_EQUAL(-ENODATA, shed(file));
    CHECK_EQUAL(-EIO, meta_truncate(meta, file, 20, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EIO, meta_clone(meta, file, 0, other, 0, 10, FRAME_NOW, &freed));
    frame_reopen();
    CHECK_EQUAL(META_SHED, frame_get(file).state);
    CHECK_EQUAL(0, meta_truncate(meta, file, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, frame_get(file).state);
    CHECK_EQUAL(-EBUSY, shed(frame_make_object(1, "o")));
    CHECK_EQUAL(-ENOENT, meta_shed(meta, &(struct meta_shed){.file = &gone}, &freed));
}

/* A clean file whose object was hashed. */
static uint64_t make_hashed(const char *name, int64_t size)
{
    static const uint8_t root[META_ROOT_BYTES] = "root of it .....";
    uint64_t ino = frame_make_sealed(1, name, size);
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(ino), root, 0, NULL, 0));
    return ino;
}

static void test_shed_ranges(void)
{
    begin();
    uint64_t hashed = make_hashed("h", 100), unhashed = frame_make_sealed(1, "u", 100);
    uint64_t object = frame_object_of(hashed), other = frame_make(1, "g", S_IFREG);
    char text[128];
    memcpy(shed_ranges, (struct meta_shed_range[]){{10, 20}, {40, 10}, {70, 30}}, 3 * sizeof *shed_ranges);
    CHECK_EQUAL(0, shed_measure(unhashed, 3));
    CHECK_EQUAL(-ENODATA, shed_some(unhashed, 3));
    CHECK_EQUAL(60, shed_measure(hashed, 3));
    /* What another file has, too, would give nothing back. */
    CHECK_EQUAL(0, frame_map(other, 0, 5, object, 45, &freed));
    CHECK_EQUAL(50, shed_measure(hashed, 3));
    struct meta_inode before = frame_get(hashed), older = before;
    older.mtime--;
    CHECK_EQUAL(-EBUSY, meta_shed(meta, &(struct meta_shed){&older, shed_ranges, 3}, &freed));
    CHECK_EQUAL(0, shed_some(hashed, 3));
    struct meta_inode after = frame_get(hashed);
    CHECK(after.state == META_SHED && after.size == before.size && after.mtime == before.mtime);
    snprintf(text, sizeof text, "0+10:%llu@0 30+40:%llu@30", (unsigned long long)object,
             (unsigned long long)object);
    CHECK_TEXT(text, frame_extents(hashed));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, shed_measure(hashed, 3));
    CHECK_EQUAL(-ENODATA, shed_some(hashed, 1));
    /* What is there can be cloned, and nothing else. */
    CHECK_EQUAL(0, meta_clone(meta, hashed, 30, other, 5, 40, FRAME_NOW, &freed));
    CHECK_EQUAL(-EIO, meta_clone(meta, hashed, 30, other, 5, 41, FRAME_NOW, &freed));
    CHECK_EQUAL(-EIO, meta_clone(meta, hashed, 5, other, 5, 10, FRAME_NOW, &freed));
    CHECK_EQUAL(-EIO, meta_truncate(meta, hashed, 5, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, meta_truncate(meta, hashed, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, frame_get(hashed).state);
    /* Nor is anything cloned into such a file, whose size it would keep. */
    uint64_t written = make_hashed("w", 100);
    CHECK_EQUAL(0, shed_some(written, 1));
    CHECK_EQUAL(-EIO, meta_clone(meta, other, 5, written, 12, 4, FRAME_NOW, &freed));
    CHECK_EQUAL(-EIO, frame_map(written, 12, 4, 0, 0, &freed));
    CHECK_EQUAL(META_SHED, frame_get(written).state);
    /* Holes and what was given up could not be told apart. */
    uint64_t sparse = make_hashed("s", 100);
    CHECK_EQUAL(0, meta_truncate(meta, sparse, 200, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, shed_measure(sparse, 3));
    CHECK_EQUAL(-ENODATA, shed_some(sparse, 3));
    CHECK_EQUAL(200, shed_measure(sparse, 0));
}

/* It may be part of a checkpoint that stays whole, by its other name. */
static void test_shed_linked(void)
{
    begin();
    uint64_t linked = make_hashed("h", 100);
    struct meta_inode row;
    shed_ranges[0] = (struct meta_shed_range){10, 20};
    CHECK_EQUAL(0, meta_link(meta, linked, 1, "other", 5, FRAME_NOW, 0, &row));
    CHECK_EQUAL(0, shed_measure(linked, 0) + shed_measure(linked, 1));
    CHECK_EQUAL(-ENODATA, shed(linked));
    CHECK_EQUAL(-ENODATA, shed_some(linked, 1));
    CHECK_EQUAL(0, frame_unlink(1, "other", false, &freed));
    CHECK_EQUAL(20, shed_measure(linked, 1));
    CHECK_EQUAL(0, shed(linked));
}

static void test_truncate(void)
{
    begin();
    CHECK_EQUAL(0, meta_truncate(meta, file, 50, FRAME_NOW + 4, 0, &freed)); /* an empty file grows: a hole */
    CHECK_EQUAL(META_EXTENTS, frame_get(file).kind);
    CHECK(frame_get(file).size == 50 && frame_get(file).mtime == FRAME_NOW + 4);
    CHECK_EQUAL(0, frame_get(file).state);
    expect_map(0, 30, 1, 0, "0+30:1@0");
    expect_map(40, 10, 2, 0, "0+30:1@0 40+10:2@0");
    CHECK_EQUAL(0, meta_truncate(meta, file, 20, FRAME_NOW, 0, &freed));
    CHECK_TEXT("0+20:1@0", frame_extents(file));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, 2));
    CHECK_EQUAL(0, meta_truncate(meta, file, 40, FRAME_NOW, 0, &freed));
    CHECK_TEXT("0+20:1@0", frame_extents(file)); /* what was cut does not come back */
    struct meta_inode torn = {.state = META_DIRTY | META_TORN};
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_STATE, &torn, 0, NULL));
    CHECK_EQUAL(0, meta_truncate(meta, file, 1, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(META_DIRTY | META_TORN, frame_get(file).state);
    CHECK_EQUAL(0, meta_truncate(meta, file, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(META_DIRTY, frame_get(file).state); /* nothing of what was lost is left */
    CHECK_EQUAL(META_NONE, frame_get(file).kind);
    CHECK_EQUAL(2, freed.count);
    CHECK_EQUAL(-EINVAL, meta_truncate(meta, file, -1, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EISDIR, meta_truncate(meta, 1, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-ENOENT, meta_truncate(meta, 999999, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EINVAL, meta_truncate(meta, frame_make_object(1, "o"), 0, FRAME_NOW, 0, &freed));
}

static void test_clone(void)
{
    begin();
    uint64_t other = frame_make(1, "g", S_IFREG);
    expect_map(0, 10, 1, 0, "0+10:1@0");
    expect_map(20, 10, 2, 5, "0+10:1@0 20+10:2@5");
    CHECK_EQUAL(0, meta_clone(meta, file, 5, other, 100, 20, FRAME_NOW + 6, &freed));
    CHECK_TEXT("100+5:1@5 115+5:2@5", frame_extents(other));
    struct meta_inode inode = frame_get(other);
    CHECK(inode.size == 120 && inode.mtime == FRAME_NOW + 6 && inode.kind == META_EXTENTS);
    CHECK_EQUAL(META_DIRTY, inode.state);
    CHECK_EQUAL(0, frame_map(other, 0, 120, 3, 0, &freed));
    CHECK_EQUAL(0, meta_clone(meta, file, 0, other, 10, 30, FRAME_NOW, &freed)); /* holes are cloned too */
    CHECK_TEXT("0+10:3@0 10+10:1@0 30+10:2@5 40+80:3@40", frame_extents(other));
    CHECK_EQUAL(0, meta_clone(meta, file, 0, file, 5, 30, FRAME_NOW, &freed)); /* onto itself, shifted */
    CHECK_TEXT("0+5:1@0 5+10:1@0 25+10:2@5", frame_extents(file));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_clone(meta, other, 40, file, 0, 35, FRAME_NOW, &freed));
    CHECK_TEXT("0+35:3@40", frame_extents(file));
    CHECK_EQUAL(0, freed.count); /* the other one has them all */
    CHECK_EQUAL(-EINVAL,
                meta_clone(meta, file, 0, other, 0, 36, FRAME_NOW, &freed)); /* beyond the source's end */
    CHECK_EQUAL(-EINVAL, meta_clone(meta, file, 0, other, 0, 0, FRAME_NOW, &freed));
    CHECK_EQUAL(-EFBIG, meta_clone(meta, file, 0, other, INT64_MAX, 1, FRAME_NOW, &freed));
    CHECK_EQUAL(-EINVAL, meta_clone(meta, file, 0, frame_make_object(1, "o"), 0, 1, FRAME_NOW, &freed));
    CHECK_EQUAL(-ENOENT, meta_clone(meta, file, 0, 999999, 0, 1, FRAME_NOW, &freed));
}

static void test_many_extents(void)
{
    enum { COUNT = 3000 };
    begin();
    for (int i = 0; i < COUNT; i++)
        CHECK_EQUAL(0, frame_map(file, i * 10, 5, (uint64_t)(i % 7 + 1), i * 100, &freed));
    struct meta_extent *extents;
    size_t count;
    CHECK_EQUAL(0, meta_extents(meta, file, &extents, &count));
    CHECK_EQUAL(COUNT, count);
    for (size_t i = 0; i < count; i++)
        CHECK(extents[i].offset == (int64_t)i * 10 && extents[i].object_offset == (int64_t)i * 100);
    free(extents);
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, frame_unlink(1, "f", true, &freed));
    CHECK_EQUAL(7, freed.count); /* each once */
}

/* -- from one kind to another -----------------------------------------------------------------------------
 */

static void test_seal_and_unseal(void)
{
    freed.count = 0;
    file = frame_make_object(1, "f");
    uint64_t object = frame_get(file).object;
    CHECK_EQUAL(0, meta_seal(meta, file, 1000, 5, FRAME_NOW + 6, &freed));
    struct meta_inode inode = frame_get(file);
    CHECK(inode.kind == META_EXTENTS && inode.size == 1000 && inode.mtime == 5 &&
          inode.ctime == FRAME_NOW + 6);
    CHECK_EQUAL(0, inode.object);
    CHECK_EQUAL(META_DIRTY, inode.state);
    int64_t size;
    CHECK_EQUAL(0, meta_object_size(meta, object, &size));
    CHECK_EQUAL(1000, size);
    CHECK_EQUAL(-EINVAL, meta_seal(meta, file, 1000, 5, 6, &freed)); /* sealed already */
    CHECK_EQUAL(0, meta_synced(meta, file, 1000, true, NULL));
    CHECK_EQUAL(0, meta_unseal(meta, file));
    inode = frame_get(file);
    CHECK(inode.kind == META_OBJECT && inode.object == object && inode.state == META_DIRTY);
    CHECK_EQUAL(1000, inode.synced_size);
    CHECK_TEXT("", frame_extents(file));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file));
    CHECK_EQUAL(0, meta_seal(meta, file, 0, 5, 6, &freed)); /* truncated to nothing */
    CHECK_EQUAL(META_NONE, frame_get(file).kind);
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file));
    CHECK_EQUAL(-ENOENT, meta_unseal(meta, 999999));
    CHECK_EQUAL(-EINVAL, meta_seal(meta, file, -1, 5, 6, &freed));
}

static void test_unseal_refused(void)
{
    file = frame_make_sealed(1, "f", 100);
    uint64_t other = frame_make(1, "g", S_IFREG);
    CHECK_EQUAL(0, meta_clone(meta, file, 10, other, 0, 1, FRAME_NOW, &freed));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file)); /* another file covers a byte */
    CHECK_EQUAL(0, frame_unlink(1, "g", true, &freed));
    CHECK_EQUAL(0, meta_truncate(meta, file, 101, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file)); /* a hole at the end */
    CHECK_EQUAL(0, meta_truncate(meta, file, 99, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file)); /* not the whole object */
    file = frame_make_sealed(1, "h", 100);
    CHECK_EQUAL(0, frame_map(file, 50, 10, 0, 0, &freed));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, file)); /* a hole inside */
    file = frame_make_sealed(1, "i", 100);
    CHECK_EQUAL(0, meta_unseal(meta, file));
}

static void test_inline(void)
{
    char bytes[100], found[200];
    freed.count = 0;
    memset(bytes, 'b', sizeof bytes);
    file = frame_make_object(1, "f");
    uint64_t object = frame_get(file).object;
    CHECK_EQUAL(-EINVAL, meta_content_read(meta, file, found, sizeof found));
    CHECK_EQUAL(0, meta_to_inline(meta, file, bytes, sizeof bytes, 5, 6, &freed));
    struct meta_inode inode = frame_get(file);
    CHECK(inode.kind == META_INLINE && inode.size == 100 && inode.synced_size == 100 && inode.object == 0);
    /* Attributes were set since. */
    CHECK(inode.mtime == 5 && inode.ctime == FRAME_NOW && inode.state == 0);
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
    frame_reopen();
    CHECK_EQUAL(100, meta_content_read(meta, file, found, sizeof found));
    CHECK(memcmp(bytes, found, 100) == 0);
    CHECK_EQUAL(0, meta_truncate(meta, file, 150, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(150, meta_content_read(meta, file, found, sizeof found));
    CHECK(found[99] == 'b' && found[100] == '\0' && found[149] == '\0');
    CHECK_EQUAL(0, meta_truncate(meta, file, 50, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, meta_truncate(meta, file, 60, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(60, meta_content_read(meta, file, found, sizeof found));
    CHECK(found[49] == 'b' && found[50] == '\0'); /* what was cut does not come back */
    CHECK_EQUAL(20, meta_content_read(meta, file, found, 20));
    CHECK_EQUAL(-EINVAL, meta_to_inline(meta, file, bytes, 1, 5, 6, &freed)); /* it is no object */
    CHECK_EQUAL(0, meta_truncate(meta, file, 0, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(META_NONE, frame_get(file).kind);
    CHECK_EQUAL(0, meta_content_read(meta, file, found, sizeof found));
    CHECK_EQUAL(-EISDIR, meta_content_read(meta, 1, found, sizeof found));
    CHECK_EQUAL(-ENOENT, meta_content_read(meta, 999999, found, sizeof found));
    file = frame_make_object(1, "g");
    CHECK_EQUAL(0, meta_to_inline(meta, file, bytes, 0, 5, 6, &freed));
    CHECK_EQUAL(META_NONE, frame_get(file).kind);
    CHECK_EQUAL(0, frame_get(file).state);
}

static void test_to_object(void)
{
    freed.count = 0;
    uint64_t objects[4];
    for (int i = 0; i < 4; i++)
        objects[i] = meta_object_next(meta);
    CHECK(objects[0] && objects[1] > objects[0] && objects[2] > objects[1]);
    file = frame_make(1, "f", S_IFREG); /* from nothing */
    CHECK_EQUAL(0, meta_to_object(meta, file, objects[0], 7, &freed));
    struct meta_inode inode = frame_get(file);
    CHECK(inode.kind == META_OBJECT && inode.object == objects[0] && inode.size == 7 &&
          inode.state == META_DIRTY);
    CHECK_EQUAL(-1, inode.synced_size);
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_to_object(meta, file, objects[1], 8, &freed)); /* from another object */
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, objects[0]));
    CHECK_EQUAL(0, meta_seal(meta, file, 8, 1, 1, &freed));
    CHECK_EQUAL(0, meta_to_object(meta, file, objects[2], 9, &freed)); /* from extents */
    CHECK_EQUAL(2, freed.count);
    CHECK(frame_has(&freed, objects[1]));
    CHECK_EQUAL(0, meta_to_inline(meta, file, "x", 1, 1, 1, &freed));
    CHECK_EQUAL(3, freed.count);
    struct meta_inode torn = {.state = META_TORN};
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_STATE, &torn, 0, NULL));
    CHECK_EQUAL(0, meta_to_object(meta, file, objects[3], 1, &freed)); /* from inside */
    CHECK_EQUAL(META_TORN | META_DIRTY, frame_get(file).state);
    CHECK_EQUAL(0, meta_to_object(meta, file, objects[3], 0, &freed));
    CHECK_EQUAL(META_DIRTY, frame_get(file).state);
    CHECK_EQUAL(3, freed.count);
    CHECK_EQUAL(-EISDIR, meta_to_object(meta, 1, objects[0], 0, &freed));
    CHECK_EQUAL(-EINVAL, meta_to_object(meta, file, 0, 0, &freed));
    CHECK_EQUAL(-ENOENT, meta_to_object(meta, 999999, objects[0], 0, &freed));
}

static void test_fork(void)
{
    struct meta_inode copy, inode;
    freed.count = 0;
    file = frame_make_sealed(1, "f", 100);
    uint64_t d = frame_make(1, "d", S_IFDIR);
    CHECK_EQUAL(0, meta_link(meta, file, d, "g", 1, FRAME_NOW, 0, &inode));
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.a", "x", 1, 0, FRAME_NOW, 0));
    char extents[64];
    snprintf(extents, sizeof extents, "%s", frame_extents(file));
    CHECK_EQUAL(0, meta_fork(meta, file, &copy));
    CHECK(copy.ino != file && copy.nlink == 2 && copy.size == 100);
    CHECK_EQUAL(copy.ino, frame_find(1, "f"));
    CHECK_EQUAL(copy.ino, frame_find(d, "g"));
    CHECK_TEXT(extents, frame_extents(copy.ino));
    CHECK_TEXT(extents, frame_extents(file));
    CHECK_EQUAL(1, meta_xattr_get(meta, copy.ino, "user.a", NULL, 0));
    CHECK_EQUAL(0, frame_get(file).nlink);
    CHECK_EQUAL(-ENOENT, meta_fork(meta, file, &copy));
    CHECK_EQUAL(0, meta_reap(meta, file, &freed));
    CHECK_EQUAL(0, freed.count); /* the copy has the object */
    CHECK_EQUAL(-EBUSY, meta_fork(meta, frame_make_object(1, "o"), &copy));
    CHECK_EQUAL(-EISDIR, meta_fork(meta, 1, &copy));
}

/* -- after a power cut ------------------------------------------------------------------------------------
 */

/* A small durable file that is opened for writing must not lose its bytes before the new object has them. */
static void test_stored_bytes_stay(void)
{
    char bytes[8] = "";
    for (int synced = 0; synced < 2; synced++) {
        uint64_t ino = frame_make_object(1, synced ? "kept" : "restored");
        CHECK_EQUAL(0, meta_to_inline(meta, ino, "durable", 7, 1, 1, &freed));
        uint64_t object = meta_object_next(meta);
        CHECK_EQUAL(0, meta_to_object(meta, ino, object, 7, &freed));
        CHECK_EQUAL(-EINVAL, meta_content_read(meta, ino, bytes, sizeof bytes));
        cleanup_ids struct ids shadows = {0};
        if (synced)
            CHECK_EQUAL(0, meta_synced(meta, ino, 9, false, &shadows));
        freed.count = 0;
        CHECK_EQUAL(0, meta_seal(meta, ino, 9, 1, 1, &freed));
        CHECK_EQUAL(0, meta_tear(meta, ino, 0, &freed));
        CHECK(frame_has(&freed, object));
        struct meta_inode inode = frame_get(ino);
        CHECK_EQUAL(META_TORN, inode.state);
        CHECK_EQUAL(synced ? META_NONE : META_INLINE, inode.kind);
        CHECK_EQUAL(synced ? 0 : 7, inode.size);
        if (!synced) {
            CHECK_EQUAL(7, meta_content_read(meta, ino, bytes, sizeof bytes));
            CHECK_TEXT("durable", bytes);
        }
    }
}

static void test_tear(void)
{
    freed.count = 0;
    uint64_t written = frame_make_object(1, "w"), empty = frame_make_object(1, "e"),
             sealed = frame_make_sealed(1, "s", 100), small = frame_make_object(1, "i");
    uint64_t object = frame_get(written).object;
    char found[8];
    CHECK_EQUAL(0, meta_tear(meta, written, 30, &freed));
    struct meta_inode inode = frame_get(written);
    CHECK(inode.kind == META_EXTENTS && inode.size == 30 && inode.synced_size == 30 &&
          inode.state == META_TORN);
    CHECK_EQUAL(0, meta_object_shared(meta, object, written));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_tear(meta, empty, 0, &freed));
    CHECK_EQUAL(META_NONE, frame_get(empty).kind);
    CHECK_EQUAL(1, freed.count);
    CHECK_EQUAL(0, frame_map(sealed, 100, 50, 4000, 0, &freed));
    CHECK_EQUAL(0, meta_tear(meta, sealed, 100, &freed));
    CHECK_EQUAL(2, freed.count);
    CHECK(frame_has(&freed, 4000));
    CHECK_EQUAL(META_TORN, frame_get(sealed).state);
    CHECK_EQUAL(0, meta_tear(meta, sealed, 1000, &freed)); /* never more than there was */
    CHECK_EQUAL(100, frame_get(sealed).size);
    CHECK_EQUAL(0, meta_to_inline(meta, small, "12345", 5, 1, 1, &freed));
    CHECK_EQUAL(0, meta_tear(meta, small, 3, &freed));
    CHECK_EQUAL(3, meta_content_read(meta, small, found, sizeof found));
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(4, totals.torn);
    CHECK_EQUAL(0, totals.dirty);
    CHECK_EQUAL(-ENOENT, meta_tear(meta, 999999, 1, &freed));
}

static void test_found_at_start(void)
{
    cleanup_ids struct ids dirty = {0}, objects = {0}, unreferenced = {0}, forget = {0};
    uint64_t written = frame_make_object(1, "w");
    frame_make_sealed(1, "s", 10);
    CHECK_EQUAL(0, frame_unlink(1, "s", true, &forget));
    frame_reopen();
    CHECK_EQUAL(0, meta_find_dirty(meta, &dirty));
    CHECK_EQUAL(1, dirty.count);
    CHECK(frame_has(&dirty, written));
    CHECK_EQUAL(0, meta_find_objects(meta, &objects));
    CHECK_EQUAL(2, objects.count);
    CHECK_EQUAL(0, meta_find_unreferenced(meta, &unreferenced));
    CHECK_EQUAL(1, unreferenced.count);
    CHECK_EQUAL(forget.at[0], unreferenced.at[0]);
    CHECK_EQUAL(0, ids_append(&forget, 999999));
    CHECK_EQUAL(0, meta_object_forget(meta, &forget));
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(1, totals.objects);
}

int main(void)
{
    frame_run("extents are mapped and cut, and free what nothing covers", test_map);
    frame_run("extents that continue each other are one", test_map_merges);
    frame_run("holes", test_holes);
    frame_run("nothing is mapped beyond the end unless it is asked for", test_map_without_extending);
    frame_run("ranges and files that cannot be mapped are refused", test_map_refused);
    frame_run("what is written again is not synced", test_synced_size_shrinks);
    frame_run("shared objects are known", test_shared_objects);
    frame_run("truncate", test_truncate);
    frame_run("bytes of a file that stays are given up", test_shed);
    frame_run("ranges of a file are given up, and cannot be read", test_shed_ranges);
    frame_run("a file of several names gives nothing up", test_shed_linked);
    frame_run("clone", test_clone);
    frame_run("thousands of extents", test_many_extents);
    frame_run("seal and unseal", test_seal_and_unseal);
    frame_run("what is not one whole object of its own is not unsealed", test_unseal_refused);
    frame_run("small contents", test_inline);
    frame_run("every kind becomes an object", test_to_object);
    frame_run("a fork takes over the names", test_fork);
    frame_run("stored bytes stay until the object that took over is synced", test_stored_bytes_stay);
    frame_run("files are torn", test_tear);
    frame_run("a start finds what was left", test_found_at_start);
    ids_release(&freed);
    return check_done();
}
