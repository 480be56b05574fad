/* SPDX-License-Identifier: Apache-2.0 */
/* Equal bytes in the namespace: the index, re-pointing, and what becomes dead. */
#include <errno.h>

#include "meta/damage.h"
#include "test_meta_frame.h"

enum { UID = 0 };

static const uint8_t root_a[META_ROOT_BYTES] = "root of A ......",
                     root_b[META_ROOT_BYTES] = "root of B ......";

/* A sealed file of one object that was hashed: [0, 8192) has the hash (seed, 1), the rest (seed, 2). */
static uint64_t make_summed(const char *name, int64_t size, uint64_t seed, const uint8_t *root)
{
    uint64_t ino = frame_make_sealed(1, name, size);
    const struct meta_segment segments[] = {{0, 8192, seed, 1}, {8192, size - 8192, seed, 2}};
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(ino), root, UID, segments, 2));
    return ino;
}

/* How many places of the hash (low, high) the index gives to somebody who is not `except`. */
static size_t found_places(uint64_t low, uint64_t high, int64_t length, uint32_t uid, uint64_t except)
{
    const struct meta_segment segment = {0, length, low, high};
    struct meta_range *ranges;
    size_t count;
    CHECK_EQUAL(0, meta_find_segment(meta, &segment, uid, except, &ranges, &count));
    for (size_t i = 0; i < count; i++)
        CHECK_EQUAL(length, ranges[i].length);
    free(ranges);
    return count;
}

static size_t unshared(void)
{
    cleanup_ids struct ids objects = {0};
    uint64_t after = 0;
    CHECK_EQUAL(0, meta_find_unshared_after(meta, &after, &objects));
    return objects.count;
}

static size_t shrunk(void)
{
    cleanup_ids struct ids objects = {0};
    CHECK_EQUAL(0, meta_find_shrunk(meta, 0, 100, &objects));
    return objects.count;
}

static errint shrunk_done(uint64_t object, const struct meta_range *dead, size_t dead_count)
{
    struct meta_range *live;
    size_t count;
    CHECK_EQUAL(0, meta_live_ranges(meta, object, &live, &count));
    errint error = meta_shrunk_done(meta, object, live, count, dead, dead_count);
    free(live);
    return error;
}

static errint repoint(uint64_t ino, uint64_t to, int64_t to_offset, uint64_t object, int64_t offset,
                      int64_t length, int64_t *moved, struct ids *freed)
{
    const struct meta_move move = {object, offset, length, to_offset, root_a};
    return meta_repoint(meta, ino, to, root_b, &move, 1, moved, freed);
}

static void test_index(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), object = frame_object_of(a);
    uint8_t root[META_ROOT_BYTES];
    CHECK_EQUAL(0, meta_object_root(meta, object, root));
    CHECK(memcmp(root, root_a, sizeof root) == 0);
    /* Only what was looked after can be found. */
    CHECK_EQUAL(0, found_places(7, 1, 8192, UID, 0));
    CHECK_EQUAL(1, unshared());
    CHECK_EQUAL(0, meta_object_is_shared_out(meta, object));
    CHECK_EQUAL(0, meta_object_shared_out(meta, object));
    CHECK_EQUAL(1, meta_object_is_shared_out(meta, object));
    CHECK_EQUAL(0, unshared());
    CHECK_EQUAL(1, found_places(7, 1, 8192, UID, 0));
    CHECK_EQUAL(0, found_places(7, 1, 8192, UID, object));
    CHECK_EQUAL(0, found_places(7, 1, 8192, UID + 1, 0));
    CHECK_EQUAL(1, found_places(7, 1, 8192, META_ANYONE, 0));
    CHECK_EQUAL(0, found_places(7, 1, 8192, META_ANYONE, object));
    CHECK_EQUAL(0, found_places(7, 1, 8193, UID, 0));
    CHECK_EQUAL(0, found_places(7, 3, 8192, UID, 0));
    CHECK_EQUAL(0, found_places(8, 1, 8192, UID, 0));
}

/* More segments than one transaction takes. */
static void test_many_segments(void)
{
    enum { COUNT = 1500, LENGTH = 5000 };
    static struct meta_segment segments[COUNT];
    uint64_t a = frame_make_sealed(1, "a", COUNT * LENGTH), object = frame_object_of(a);
    for (size_t i = 0; i < COUNT; i++)
        segments[i] = (struct meta_segment){(int64_t)i * LENGTH, LENGTH, i, 9};
    for (int again = 0; again < 2; again++) {
        CHECK_EQUAL(0, meta_object_summed(meta, object, root_a, UID, segments, COUNT));
        CHECK_EQUAL(0, found_places(1400, 9, LENGTH, UID, 0));
        CHECK_EQUAL(0, meta_object_shared_out(meta, object));
        CHECK_EQUAL(1, found_places(0, 9, LENGTH, UID, 0));
        CHECK_EQUAL(1, found_places(1400, 9, LENGTH, UID, 0));
    }
}

static void test_index_follows_the_object(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), object = frame_object_of(a);
    uint8_t root[META_ROOT_BYTES];
    CHECK_EQUAL(0, meta_object_shared_out(meta, object));
    CHECK_EQUAL(0, meta_unseal(meta, a));
    CHECK_EQUAL(-ENOENT, meta_object_root(meta, object, root));
    CHECK_EQUAL(0, found_places(7, 1, 8192, UID, 0));
    CHECK_EQUAL(-EBUSY, meta_object_summed(meta, object, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, unshared());
    struct meta_range *live;
    size_t count;
    CHECK_EQUAL(-EBUSY, meta_sealed_ranges(meta, object, &live, &count));
    CHECK_EQUAL(0, meta_seal(meta, a, 20000, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(1, unshared());
    CHECK_EQUAL(0, meta_sealed_ranges(meta, object, &live, &count));
    CHECK(count == 1 && live[0].offset == 0 && live[0].length == 20000);
    free(live);
    CHECK_EQUAL(-ENOENT, meta_sealed_ranges(meta, object + 1000, &live, &count));
    cleanup_ids struct ids unsummed = {0};
    CHECK_EQUAL(0, meta_find_unsummed(meta, a, &unsummed));
    CHECK(unsummed.count == 1 && unsummed.at[0] == object);
    CHECK_EQUAL(-ENOENT, meta_object_summed(meta, object + 1000, root_a, UID, NULL, 0));
    /* A torn file's bytes are not what they were. */
    CHECK_EQUAL(0, meta_object_summed(meta, object, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, meta_tear(meta, a, 100, NULL));
    CHECK_EQUAL(-ENOENT, meta_object_root(meta, object, root));
}

/* A store of many objects is looked through in parts, each once. */
static void test_unshared_in_parts(void)
{
    enum { FILES = 700, SHARED = 100 };
    cleanup_ids struct ids made = {0}, found = {0};
    for (int i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        CHECK_EQUAL(0, ids_append(&made, frame_object_of(frame_make_sealed(1, name, 5000))));
    }
    for (int i = 0; i < SHARED; i++) {
        CHECK_EQUAL(0, meta_object_summed(meta, made.at[i], root_a, UID, NULL, 0));
        CHECK_EQUAL(0, meta_object_shared_out(meta, made.at[i]));
    }
    uint64_t after = 0;
    CHECK_EQUAL(1, meta_find_unshared_after(meta, &after, &found));
    CHECK(found.count < FILES - SHARED);
    CHECK_EQUAL(0, meta_find_unshared_after(meta, &after, &found));
    CHECK_EQUAL(FILES - SHARED, found.count);
    for (size_t i = 0; i < found.count; i++)
        CHECK_EQUAL(made.at[SHARED + i], found.at[i]);
}

static void test_repoint_whole(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 20000, 7, root_b);
    uint64_t old = frame_object_of(a), new = frame_object_of(b);
    cleanup_ids struct ids freed = {0};
    struct meta_inode before = frame_get(a);
    int64_t moved = 0;
    CHECK_EQUAL(0, repoint(a, new, 0, old, 0, 20000, &moved, &freed));
    CHECK_EQUAL(20000, moved);
    CHECK_EQUAL(new, frame_object_of(a));
    CHECK(freed.count == 1 && freed.at[0] == old);
    struct meta_inode after = frame_get(a);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    /* Again: there is nothing left to do, although the old object has no row of hashes soon. */
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
    CHECK_EQUAL(0, repoint(a, new, 0, old, 0, 20000, &moved, &freed));
    CHECK_EQUAL(0, moved);
    CHECK_EQUAL(1, freed.count);
    CHECK_EQUAL(0, found_places(7, 1, 8192, UID, new));
}

static void test_repoint_parts(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 30000, 7, root_b);
    uint64_t old = frame_object_of(a), new = frame_object_of(b);
    cleanup_ids struct ids freed = {0};
    int64_t moved = 0;
    char expected[200];
    CHECK_EQUAL(0, repoint(a, new, 10, old, 5000, 5000, &moved, &freed));
    snprintf(expected, sizeof expected, "0+5000:%llu@0 5000+5000:%llu@10 10000+10000:%llu@10000",
             (unsigned long long)old, (unsigned long long)new, (unsigned long long)old);
    CHECK_TEXT(expected, frame_extents(a));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(1, shrunk());
    struct meta_range *live;
    size_t count;
    CHECK_EQUAL(0, meta_live_ranges(meta, old, &live, &count));
    CHECK(count == 2 && live[0].offset == 0 && live[0].length == 5000 && live[1].offset == 10000 &&
          live[1].length == 10000);
    /* What was lost after the live ranges were read is not forgotten. */
    live[1].length++;
    CHECK_EQUAL(-EBUSY, meta_shrunk_done(meta, old, live, count, NULL, 0));
    CHECK_EQUAL(1, shrunk());
    free(live);
    /* The neighbour continues what was moved: they are one extent. */
    CHECK_EQUAL(0, repoint(a, new, 5010, old, 10000, 10000, &moved, &freed));
    snprintf(expected, sizeof expected, "0+5000:%llu@0 5000+15000:%llu@10", (unsigned long long)old,
             (unsigned long long)new);
    CHECK_TEXT(expected, frame_extents(a));
    const struct meta_range dead = {old, 8192, 20000 - 8192};
    CHECK_EQUAL(0, meta_object_shared_out(meta, old));
    CHECK_EQUAL(1, found_places(7, 2, 20000 - 8192, UID, 0));
    CHECK_EQUAL(0, shrunk_done(old, &dead, 1));
    CHECK_EQUAL(0, shrunk());
    CHECK_EQUAL(0, found_places(7, 2, 20000 - 8192, UID, 0));
    CHECK_EQUAL(1, found_places(7, 1, 8192, UID, 0));
}

static void test_repoint_refuses_what_changed(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 20000, 7, root_b);
    uint64_t old = frame_object_of(a), new = frame_object_of(b);
    char before[200];
    int64_t moved = 0;
    snprintf(before, sizeof before, "%s", frame_extents(a));
    /* The new object was opened for writing, and closed again. */
    CHECK_EQUAL(0, meta_unseal(meta, b));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_seal(meta, b, 20000, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_object_summed(meta, new, root_b, UID, NULL, 0));
    /* The old one was. */
    CHECK_EQUAL(0, meta_unseal(meta, a));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_seal(meta, a, 20000, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_object_summed(meta, old, root_b, UID, NULL, 0));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_TEXT(before, frame_extents(a));
    CHECK_EQUAL(0, meta_object_summed(meta, old, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(20000, moved);
}

/* Who has a part of an object. */
static void test_users_by_owner(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 20000, 7, root_b);
    uint64_t object = frame_object_of(b);
    const struct meta_inode theirs = {.uid = UID + 1};
    cleanup_ids struct ids own = {0}, all = {0}, none = {0};
    int64_t moved;
    CHECK_EQUAL(0, repoint(a, object, 0, frame_object_of(a), 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_object_has_others(meta, object, UID));
    CHECK_EQUAL(1, meta_object_has_others(meta, object, UID + 1));
    CHECK_EQUAL(0, meta_set(meta, a, META_SET_UID, &theirs, 0, NULL));
    CHECK_EQUAL(1, meta_object_has_others(meta, object, UID));
    CHECK_EQUAL(0, meta_find_users_of(meta, object, UID, &own));
    CHECK(own.count == 1 && ids_contain(&own, b) && !ids_contain(&own, a));
    CHECK_EQUAL(0, meta_find_users_of(meta, object, META_ANYONE, &all));
    CHECK(all.count == 2 && ids_contain(&all, a) && ids_contain(&all, b));
    CHECK_EQUAL(0, meta_find_users_of(meta, object, UID + 2, &none));
    CHECK(none.count == 0 && !ids_contain(&none, a));
}

/* What is dead may be punched or removed at any moment. */
static void test_repoint_refuses_what_died(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 20000, 7, root_b);
    uint64_t old = frame_object_of(a), new = frame_object_of(b);
    uint64_t other = make_summed("c", 20000, 8, root_a);
    cleanup_ids struct ids freed = {0};
    int64_t moved = 0;
    CHECK_EQUAL(0, repoint(other, new, 0, frame_object_of(other), 0, 5000, &moved, NULL));
    /* A part of the new object has no file any more, then most of it, then all. */
    CHECK_EQUAL(0, meta_truncate(meta, b, 15000, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, meta_unlink(meta, 1, "b", 1, b, true, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_unlink(meta, 1, "c", 1, other, true, FRAME_NOW, 0, &freed));
    CHECK(frame_has(&freed, new));
    CHECK_EQUAL(-EBUSY, repoint(a, new, 0, old, 0, 20000, &moved, NULL));
    CHECK_EQUAL(old, frame_object_of(a));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

/* What meta_repack is asked for when [5000, 15000) of a file of 20000 bytes and another's clone of that are
 * alive.
 */
struct repacked {
    uint64_t object, copy, part, other;
    struct ids files;
};

static void make_repacked(struct repacked *out)
{
    uint64_t a = make_summed("a", 20000, 7, root_a);
    *out = (struct repacked){.object = frame_object_of(a), .copy = meta_object_next(meta)};
    out->part = frame_make(1, "part", S_IFREG | 0644);
    out->other = frame_make(1, "other", S_IFREG | 0644);
    CHECK_EQUAL(0, meta_clone(meta, a, 5000, out->part, 100, 8000, FRAME_NOW, NULL));
    CHECK_EQUAL(0, meta_clone(meta, a, 7000, out->other, 0, 8000, FRAME_NOW, NULL));
    CHECK_EQUAL(0, meta_unlink(meta, 1, "a", 1, a, true, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(0, meta_object_shared_out(meta, out->object));
    CHECK_EQUAL(0, meta_object_make(meta, out->copy, 10000));
    CHECK_EQUAL(0, meta_object_summed(meta, out->copy, root_b, UID, NULL, 0));
    CHECK_EQUAL(0, ids_append(&out->files, out->part));
    CHECK_EQUAL(0, ids_append(&out->files, out->other));
}

static errint repack(const struct repacked *repacked, int64_t length, struct ids *freed)
{
    const struct meta_move move = {.object = repacked->object, .offset = 5000, .length = length};
    const struct meta_repack request = {repacked->object, repacked->copy, root_a, root_b, &move, 1,
                                        &repacked->files};
    return meta_repack(meta, &request, freed);
}

static void test_repack(void)
{
    struct repacked made;
    cleanup_ids struct ids freed = {0}, unneeded = {0};
    char expected[200];
    make_repacked(&made);
    struct meta_inode before = frame_get(made.part);
    CHECK_EQUAL(1, shrunk());
    /* Until files have it, the copy is one of what the next start removes. */
    CHECK_EQUAL(0, meta_find_unreferenced(meta, &unneeded));
    CHECK(unneeded.count == 1 && unneeded.at[0] == made.copy);
    uint32_t uid = 9;
    CHECK_EQUAL(0, meta_object_uid(meta, made.object, &uid));
    CHECK_EQUAL(UID, uid);
    CHECK_EQUAL(-ENOENT, meta_object_uid(meta, made.copy, &uid));
    CHECK_EQUAL(0, repack(&made, 10000, &freed));
    snprintf(expected, sizeof expected, "100+8000:%llu@0", (unsigned long long)made.copy);
    CHECK_TEXT(expected, frame_extents(made.part));
    snprintf(expected, sizeof expected, "0+8000:%llu@2000", (unsigned long long)made.copy);
    CHECK_TEXT(expected, frame_extents(made.other));
    struct meta_inode after = frame_get(made.part);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    CHECK(freed.count == 1 && freed.at[0] == made.object);
    CHECK_EQUAL(1, meta_object_is_shared_out(meta, made.copy));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
    CHECK_EQUAL(0, shrunk());
    ids_release(&made.files);
}

static void test_repack_refuses_what_changed(void)
{
    struct repacked made;
    cleanup_ids struct ids freed = {0};
    bool changed;
    make_repacked(&made);
    char before[200];
    snprintf(before, sizeof before, "%s", frame_extents(made.part));
    /* Other live ranges; another file; a file less; damage; other hashes. */
    CHECK_EQUAL(-EBUSY, repack(&made, 9999, &freed));
    uint64_t third = frame_make(1, "third", S_IFREG | 0644);
    CHECK_EQUAL(0, meta_clone(meta, made.part, 100, third, 0, 5000, FRAME_NOW, NULL));
    CHECK_EQUAL(-EBUSY, repack(&made, 10000, &freed));
    CHECK_EQUAL(0, meta_unlink(meta, 1, "third", 5, third, true, FRAME_NOW, 0, NULL));
    made.files.count = 1;
    CHECK_EQUAL(-EBUSY, repack(&made, 10000, &freed));
    made.files.count = 2;
    const struct meta_range wrong = {made.object, 6000, 1000};
    CHECK_EQUAL(0, meta_damage_replace(meta, &wrong, root_a, &wrong, 1, &changed));
    CHECK_EQUAL(-EBUSY, repack(&made, 10000, &freed));
    CHECK_EQUAL(0, meta_damage_replace(meta, &wrong, root_a, NULL, 0, &changed));
    CHECK_EQUAL(0, meta_object_unsummed(meta, made.copy));
    CHECK_EQUAL(-EBUSY, repack(&made, 10000, &freed));
    CHECK_EQUAL(0, meta_object_summed(meta, made.copy, root_b, UID, NULL, 0));
    CHECK_EQUAL(0, meta_object_unsummed(meta, made.object));
    CHECK_EQUAL(-EBUSY, repack(&made, 10000, &freed));
    CHECK_EQUAL(0, meta_object_summed(meta, made.object, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, freed.count);
    CHECK_TEXT(before, frame_extents(made.part));
    CHECK_EQUAL(0, repack(&made, 10000, &freed));
    CHECK_EQUAL(1, freed.count);
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
    ids_release(&made.files);
}

/* Shared by re-pointing, the new object is not written in place any more. */
static void test_shared_is_not_unsealed(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = make_summed("b", 20000, 7, root_b);
    int64_t moved = 0;
    CHECK_EQUAL(0, repoint(a, frame_object_of(b), 0, frame_object_of(a), 0, 20000, &moved, NULL));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, b));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, a));
}

static void test_shrunk_by_all_changes(void)
{
    uint64_t a = make_summed("a", 20000, 7, root_a), b = frame_make(1, "b", S_IFREG | 0644);
    uint64_t old = frame_object_of(a);
    CHECK_EQUAL(0, meta_clone(meta, a, 0, b, 0, 10000, FRAME_NOW, NULL));
    CHECK_EQUAL(0, shrunk());
    CHECK_EQUAL(0, meta_truncate(meta, a, 15000, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(1, shrunk());
    CHECK_EQUAL(0, shrunk_done(old, NULL, 0));
    CHECK_EQUAL(0, frame_map(a, 12000, 1000, 900, 0, NULL));
    CHECK_EQUAL(1, shrunk());
    CHECK_EQUAL(0, shrunk_done(old, NULL, 0));
    CHECK_EQUAL(0, meta_unlink(meta, 1, "a", 1, a, true, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(1, shrunk());
    CHECK_EQUAL(0, meta_unlink(meta, 1, "b", 1, b, true, FRAME_NOW, 0, NULL));
    const struct ids gone = {.at = &old, .count = 1};
    CHECK_EQUAL(0, meta_object_forget(meta, &gone));
    CHECK_EQUAL(0, shrunk());
}

static void test_predecessor(void)
{
    uint64_t run = frame_make(1, "run", S_IFDIR | 0755);
    uint64_t first = frame_make(run, "checkpoint-1", S_IFDIR | 0755);
    uint64_t second = frame_make(run, "checkpoint-2", S_IFDIR | 0755);
    uint64_t a = frame_make_sealed(first, "model", 20000), b = frame_make_sealed(second, "model", 20000);
    uint64_t other = frame_make_sealed(second, "other", 20000), found;
    CHECK_EQUAL(0, meta_find_predecessor(meta, b, UID, &found));
    CHECK_EQUAL(a, found);
    CHECK_EQUAL(0, meta_find_predecessor(meta, b, UID + 1, &found));
    CHECK_EQUAL(0, found);
    CHECK_EQUAL(0, meta_find_predecessor(meta, b, META_ANYONE, &found));
    CHECK_EQUAL(a, found);
    CHECK_EQUAL(0, meta_find_predecessor(meta, other, UID, &found));
    CHECK_EQUAL(0, found);
}

int main(void)
{
    frame_run("the index gives what was looked after, to its owner", test_index);
    frame_run("an object of many segments", test_many_segments);
    frame_run("hashes go when the object is written again or torn", test_index_follows_the_object);
    frame_run("a file equal to another becomes its object", test_repoint_whole);
    frame_run("parts are re-pointed, neighbours join, dead ranges leave the index", test_repoint_parts);
    frame_run("nothing is re-pointed to or from an object that was written since",
              test_repoint_refuses_what_changed);
    frame_run("nothing is re-pointed to bytes that no file has any more", test_repoint_refuses_what_died);
    frame_run("files of one owner, and of all, that have a part of an object", test_users_by_owner);
    frame_run("all files of an object go over to a copy of what is alive", test_repack);
    frame_run("nothing goes over to a copy of what has changed", test_repack_refuses_what_changed);
    frame_run("an object that others share is not opened in place", test_shared_is_not_unsealed);
    frame_run("every loss of an extent is marked", test_shrunk_by_all_changes);
    frame_run("the predecessor is the same name in another checkpoint", test_predecessor);
    frame_run("what is to be looked after is found in parts", test_unshared_in_parts);
    return check_done();
}
