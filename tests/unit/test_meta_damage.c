/* SPDX-License-Identifier: Apache-2.0 */
/* The record of damaged ranges, what it forbids, and who uses a range of an object. */
#include <errno.h>

#include "meta/damage.h"
#include "test_meta_frame.h"

enum { UID = 0 };

static const uint8_t root_a[META_ROOT_BYTES] = "root of A ......",
                     root_b[META_ROOT_BYTES] = "root of B ......";

static uint64_t make_summed(const char *name, int64_t size, const uint8_t *root)
{
    uint64_t ino = frame_make_sealed(1, name, size);
    const struct meta_segment segments[] = {{0, 8192, 7, 1}, {8192, size - 8192, 7, 2}};
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(ino), root, UID, segments, 2));
    return ino;
}

/* Records [offset, + length) as damaged when the part [from, to) was looked at; length 0: nothing is. */
static errint record(uint64_t object, int64_t from, int64_t to, int64_t offset, int64_t length, bool *changed)
{
    const struct meta_range within = {object, from, to - from}, found = {object, offset, length};
    return meta_damage_replace(meta, &within, root_a, &found, length > 0, changed);
}

/* "7@4096+4096 ..." of all that is recorded. Static storage. */
static const char *recorded(void)
{
    static char text[256];
    struct meta_range *ranges;
    size_t count, used = 0;
    CHECK_EQUAL(0, meta_damage_list(meta, &ranges, &count));
    text[0] = '\0';
    for (size_t i = 0; i < count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld+%lld", i ? " " : "",
                                 (long long)ranges[i].offset, (long long)ranges[i].length);
    free(ranges);
    return text;
}

static void test_record(void)
{
    uint64_t object = frame_object_of(make_summed("a", 20000, root_a));
    bool changed;
    CHECK_EQUAL(0, record(object, 0, 20000, 0, 0, &changed));
    CHECK(!changed);
    CHECK_EQUAL(0, record(object, 0, 8192, 4096, 4096, &changed));
    CHECK(changed);
    CHECK_EQUAL(0, record(object, 0, 8192, 4096, 4096, &changed));
    CHECK(!changed);
    CHECK_TEXT("4096+4096", recorded());
    /* Neighbours are one range to the reader; each look decides about its own part. */
    CHECK_EQUAL(0, record(object, 8192, INT64_MAX, 8192, 1000, &changed));
    CHECK_TEXT("4096+5096", recorded());
    CHECK_EQUAL(0, record(object, 0, 8192, 0, 0, &changed));
    CHECK(changed);
    CHECK_TEXT("8192+1000", recorded());
    frame_reopen();
    CHECK_TEXT("8192+1000", recorded());
    const struct ids gone = {.at = &object, .count = 1};
    CHECK_EQUAL(0, frame_unlink(1, "a", true, NULL));
    CHECK_EQUAL(0, meta_object_forget(meta, &gone));
    CHECK_TEXT("", recorded());
}

static void test_only_what_was_hashed(void)
{
    uint64_t a = make_summed("a", 20000, root_b), object = frame_object_of(a);
    bool changed;
    CHECK_EQUAL(-EBUSY, record(object, 0, 20000, 0, 4096, &changed));
    CHECK_EQUAL(0, meta_unseal(meta, a));
    CHECK_EQUAL(-EBUSY, record(object, 0, 20000, 0, 4096, &changed));
    CHECK_TEXT("", recorded());
}

static void test_damaged_is_left_alone(void)
{
    uint64_t a = make_summed("a", 20000, root_a), b = make_summed("b", 20000, root_b);
    uint64_t damaged = frame_object_of(a), other = frame_object_of(b);
    int64_t moved;
    bool changed;
    CHECK_EQUAL(0, record(damaged, 0, 20000, 0, 4096, &changed));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, a));
    CHECK_EQUAL(-EBUSY, meta_object_summed(meta, damaged, root_b, UID, NULL, 0));
    const struct meta_move to_damaged = {other, 0, 8192, 0, root_b};
    CHECK_EQUAL(-EBUSY, meta_repoint(meta, b, damaged, root_a, &to_damaged, 1, &moved, NULL));
    /* The other way round is a repair. */
    const struct meta_move from_damaged = {damaged, 0, 20000, 0, root_a};
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_repoint(meta, a, other, root_b, &from_damaged, 1, &moved, &freed));
    CHECK_EQUAL(20000, moved);
    CHECK(frame_has(&freed, damaged));
}

static void test_uses(void)
{
    uint64_t a = make_summed("a", 20000, root_a), object = frame_object_of(a);
    uint64_t b = frame_make(1, "b", S_IFREG | 0644);
    CHECK_EQUAL(0, frame_map(b, 1000, 5000, object, 10000, NULL));
    struct meta_use *uses;
    size_t count;
    const struct meta_range range = {object, 12000, 6000};
    CHECK_EQUAL(0, meta_find_uses(meta, &range, &uses, &count));
    CHECK_EQUAL(2, count);
    if (count == 2) {
        CHECK_EQUAL(a, uses[0].ino);
        CHECK_EQUAL(12000, uses[0].offset);
        CHECK_EQUAL(6000, uses[0].length);
        CHECK_EQUAL(12000, uses[0].object_offset);
        CHECK_EQUAL(b, uses[1].ino);
        CHECK_EQUAL(3000, uses[1].offset);
        CHECK_EQUAL(3000, uses[1].length);
        CHECK_EQUAL(12000, uses[1].object_offset);
    }
    free(uses);
    uint64_t written = frame_make_object(1, "written");
    const struct meta_range whole = {frame_get(written).object, 0, INT64_MAX};
    CHECK_EQUAL(0, meta_find_uses(meta, &whole, &uses, &count));
    free(uses);
}

static size_t to_verify(uint64_t ino, uint64_t after, size_t limit)
{
    struct meta_range *ranges;
    size_t count;
    CHECK_EQUAL(0, meta_find_to_verify(meta, ino, after, limit, &ranges, &count));
    for (size_t i = 0; i < count; i++)
        CHECK(ranges[i].object > after);
    free(ranges);
    return count;
}

static void test_what_to_verify(void)
{
    uint64_t a = make_summed("a", 20000, root_a), b = make_summed("b", 20000, root_b);
    uint64_t written = frame_make_object(1, "written"), empty = frame_make(1, "empty", S_IFREG | 0644);
    CHECK_EQUAL(3, to_verify(0, 0, 100));
    CHECK_EQUAL(2, to_verify(0, 0, 2));
    CHECK_EQUAL(2, to_verify(0, frame_object_of(a), 100));
    CHECK_EQUAL(1, to_verify(b, 0, 100));
    CHECK_EQUAL(0, to_verify(b, frame_object_of(b), 100));
    CHECK_EQUAL(1, to_verify(written, 0, 100));
    CHECK_EQUAL(0, to_verify(empty, 0, 100));
}

static void test_copies(void)
{
    uint64_t first = frame_object_of(make_summed("a", 20000, root_a));
    uint64_t second = frame_object_of(make_summed("b", 20000, root_b));
    const struct meta_segment segment = {8192, 20000 - 8192, 7, 2};
    const struct meta_range except = {first, 8192, 20000 - 8192};
    struct meta_range *copies;
    size_t count;
    CHECK_EQUAL(0, meta_find_copies(meta, &segment, &except, &copies, &count));
    CHECK_EQUAL(1, count);
    if (count == 1) {
        CHECK_EQUAL(second, copies[0].object);
        CHECK_EQUAL(8192, copies[0].offset);
    }
    free(copies);
}

int main(void)
{
    frame_run("damage is recorded, found again, and goes with what was right or removed", test_record);
    frame_run("damage is recorded only of what was hashed and not written since", test_only_what_was_hashed);
    frame_run("a damaged object is not written, hashed or shared", test_damaged_is_left_alone);
    frame_run("the parts of files that a range is used for", test_uses);
    frame_run("the objects that can be verified", test_what_to_verify);
    frame_run("other places of a segment", test_copies);
    return check_done();
}
