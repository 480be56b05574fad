/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins: what a power cut leaves of a file whose fsync an older object answered for. */
#include <errno.h>

#include "meta/damage.h"
#include "meta/stand_in.h"
#include "test_meta_frame.h"

enum { UID = 0, SIZE = 20000 };

static const uint8_t root_a[META_ROOT_BYTES] = "root of A ......",
                     root_b[META_ROOT_BYTES] = "root of B ......";

/* A file that is being written, an older one that has its bytes, and that one's object. */
static uint64_t file, object, older, older_object;

static uint64_t make_older(const char *name, const uint8_t *root)
{
    const struct meta_segment segment = {0, SIZE, 7, 1};
    uint64_t ino = frame_make_sealed(1, name, SIZE);
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(ino), root, UID, &segment, 1));
    CHECK_EQUAL(0, meta_object_shared_out(meta, frame_object_of(ino)));
    return ino;
}

static void make_both(void)
{
    older = make_older("older", root_a);
    older_object = frame_object_of(older);
    file = frame_make_object(1, "file");
    object = frame_get(file).object;
}

static struct meta_stand_in wanted(void)
{
    return (struct meta_stand_in){.ino = file,
                                  .object = object,
                                  .uid = UID,
                                  .size = SIZE,
                                  .mtime = FRAME_NOW + 5,
                                  .ctime = FRAME_NOW + 6,
                                  .older = older_object,
                                  .older_root = root_a};
}

static errint put(void)
{
    const struct meta_stand_in stand_in = wanted();
    return meta_stand_in_put(meta, &stand_in);
}

/* The stand-in of the file; 0: it has none. */
static uint64_t hidden(uint64_t ino)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    CHECK_EQUAL(0, db_select(meta->db, &rows, "SELECT hidden FROM stand_in WHERE ino = $1", DB_INTEGER(ino)));
    return db_next(&rows) > 0 ? (uint64_t)db_integer(&rows, 0) : 0;
}

static bool is_live(uint64_t of)
{
    struct meta_range *ranges;
    size_t count;
    CHECK_EQUAL(0, meta_live_ranges(meta, of, &ranges, &count));
    bool whole = count == 1 && ranges[0].offset == 0 && ranges[0].length == SIZE;
    free(ranges);
    return whole;
}

static void test_put(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    struct meta_inode row = frame_get(file);
    CHECK_EQUAL(SIZE, row.size);
    CHECK_EQUAL(SIZE, row.synced_size);
    CHECK_EQUAL(FRAME_NOW + 5, row.mtime);
    CHECK_EQUAL(FRAME_NOW + 6, row.ctime);
    CHECK_EQUAL(META_OBJECT, row.kind);
    CHECK_EQUAL(META_DIRTY, row.state);
    uint64_t first = hidden(file);
    CHECK(first != 0);
    row = frame_get(first);
    CHECK_EQUAL(0, row.nlink);
    CHECK_EQUAL(0, row.state);
    CHECK_EQUAL(older_object, frame_object_of(first));
    /* Nobody removes it, whatever becomes of the older file. */
    cleanup_ids struct ids freed = {0};
    CHECK(!frame_is_orphan(first));
    CHECK_EQUAL(0, meta_reap(meta, first, &freed));
    CHECK_EQUAL(0, frame_unlink(1, "older", true, &freed));
    CHECK_EQUAL(0, freed.count);
    CHECK(is_live(older_object));
    frame_reopen();
    CHECK_EQUAL(1, (int64_t)meta->known.stand_ins);
    CHECK(!frame_is_orphan(first));
}

static void test_again(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t first = hidden(file);
    uint64_t other = make_older("other", root_b);
    struct meta_stand_in next = wanted();
    next.older = frame_object_of(other);
    next.older_root = root_b;
    CHECK_EQUAL(0, meta_stand_in_put(meta, &next));
    CHECK(hidden(file) != first);
    CHECK_EQUAL(frame_object_of(other), frame_object_of(hidden(file)));
    CHECK(frame_is_released(first));
    CHECK(frame_is_orphan(first));
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_reap(meta, first, &freed));
    CHECK_EQUAL(1, (int64_t)meta->known.stand_ins);
}

static void test_refused(void)
{
    make_both();
    struct meta_stand_in wrong = wanted();
    wrong.uid = UID + 1;
    CHECK_EQUAL(-EBUSY, meta_stand_in_put(meta, &wrong));
    wrong = wanted();
    wrong.object++;
    CHECK_EQUAL(-EBUSY, meta_stand_in_put(meta, &wrong));
    wrong = wanted();
    wrong.size--;
    CHECK_EQUAL(-EBUSY, meta_stand_in_put(meta, &wrong));
    wrong = wanted();
    wrong.older_root = root_b;
    CHECK_EQUAL(-EBUSY, meta_stand_in_put(meta, &wrong));
    wrong = wanted();
    wrong.ino = 12345;
    CHECK_EQUAL(-ENOENT, meta_stand_in_put(meta, &wrong));
    /* The older one is another user's; it has no name; it was written since; it was cut. */
    const struct meta_inode other = {.uid = UID + 1}, mine = {.uid = UID};
    CHECK_EQUAL(0, meta_set(meta, older, META_SET_UID, &other, 0, NULL));
    CHECK_EQUAL(-EBUSY, put());
    CHECK_EQUAL(0, meta_set(meta, older, META_SET_UID, &mine, 0, NULL));
    cleanup_ids struct ids freed = {0};
    struct meta_inode linked;
    CHECK_EQUAL(0, frame_unlink(1, "older", false, &freed));
    CHECK_EQUAL(-EBUSY, put());
    CHECK_EQUAL(0, meta_link(meta, older, 1, "older", 5, FRAME_NOW, 0, &linked));
    const struct meta_range damaged = {older_object, 0, 4096};
    bool changed = false;
    CHECK_EQUAL(0, meta_damage_replace(meta, &(struct meta_range){older_object, 0, SIZE}, root_a, &damaged, 1,
                                       &changed));
    CHECK_EQUAL(-EBUSY, put());
    CHECK_EQUAL(
        0, meta_damage_replace(meta, &(struct meta_range){older_object, 0, SIZE}, root_a, NULL, 0, &changed));
    CHECK_EQUAL(0, meta_unseal(meta, older));
    CHECK_EQUAL(-EBUSY, put());
    CHECK_EQUAL(0, meta_seal(meta, older, SIZE, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(-EBUSY, put()); /* not hashed */
    CHECK_EQUAL(0, meta_object_summed(meta, older_object, root_a, UID, NULL, 0));
    CHECK_EQUAL(-EBUSY, put()); /* not on stable storage, as far as is known */
    CHECK_EQUAL(0, meta_object_shared_out(meta, older_object));
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_truncate(meta, older, SIZE - 1, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(-EBUSY, put());
    CHECK(hidden(file) != 0); /* the one that it has stays */
    CHECK(is_live(older_object));
}

static void test_shadows_and_stored_bytes_go(void)
{
    make_both();
    uint64_t replaced = frame_make_sealed(1, "name", 10);
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, frame_rename(1, "file", 1, "name", 0, &freed));
    CHECK_EQUAL(1, (int64_t)meta->known.shadows);
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, (int64_t)meta->known.shadows);
    CHECK(frame_is_released(replaced));
    /* A file that is safe has none, either, when it takes another name. */
    frame_make_sealed(1, "next", 10);
    CHECK_EQUAL(0, frame_rename(1, "name", 1, "next", 0, &freed));
    CHECK_EQUAL(0, (int64_t)meta->known.shadows);
    CHECK_EQUAL(file, frame_find(1, "next"));
}

static void test_synced(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t first = hidden(file);
    cleanup_ids struct ids shadows = {0}, freed = {0};
    CHECK_EQUAL(0, meta_synced(meta, file, SIZE, false, &shadows));
    CHECK_EQUAL(1, shadows.count);
    CHECK(frame_has(&shadows, first));
    CHECK_EQUAL(0, hidden(file));
    bool whole;
    CHECK_EQUAL(-ENOENT, meta_stand_in_restore(meta, file, &whole, &freed));
    CHECK_EQUAL(0, frame_unlink(1, "older", true, &freed));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_reap(meta, first, &freed));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, older_object));
}

/* What was written after the fsync is lost with the object. */
static void test_restore_of_written(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t first = hidden(file);
    cleanup_ids struct ids freed = {0};
    bool whole = true;
    CHECK_EQUAL(0, meta_stand_in_restore(meta, file, &whole, &freed));
    CHECK(!whole);
    struct meta_inode row = frame_get(file);
    CHECK_EQUAL(META_EXTENTS, row.kind);
    CHECK_EQUAL(META_TORN, row.state);
    CHECK_EQUAL(SIZE, row.size);
    CHECK_EQUAL(0, row.object);
    CHECK_EQUAL(older_object, frame_object_of(file));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
    struct meta_inode gone;
    CHECK_EQUAL(-ENOENT, meta_get(meta, first, &gone));
    CHECK_EQUAL(0, (int64_t)meta->known.stand_ins);
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

static void test_restore_of_sealed(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_seal(meta, file, SIZE, FRAME_NOW + 5, FRAME_NOW + 6, NULL));
    cleanup_ids struct ids freed = {0};
    bool whole = false;
    CHECK_EQUAL(0, meta_stand_in_restore(meta, file, &whole, &freed));
    CHECK(whole);
    struct meta_inode row = frame_get(file);
    CHECK_EQUAL(0, row.state);
    CHECK_EQUAL(SIZE, row.synced_size);
    CHECK_EQUAL(older_object, frame_object_of(file));
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

static void test_restore_of_changed(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_seal(meta, file, SIZE, FRAME_NOW + 7, FRAME_NOW + 7, NULL));
    /* Opened again, and written by copy on write. */
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, frame_map(file, 5000, 1000, 900, 5000, &freed));
    CHECK(hidden(file) != 0);
    bool whole = true;
    CHECK_EQUAL(0, meta_stand_in_restore(meta, file, &whole, &freed));
    CHECK(!whole);
    CHECK_EQUAL(META_TORN, frame_get(file).state);
    CHECK_EQUAL(older_object, frame_object_of(file));
    CHECK(is_live(older_object));
    CHECK_EQUAL(2, freed.count); /* its own, and what was written */
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

/* It gave way to the older one, and nobody has noted yet that it is safe. */
static void test_restore_after_sharing(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_seal(meta, file, SIZE, FRAME_NOW + 5, FRAME_NOW + 6, NULL));
    CHECK_EQUAL(0, meta_object_summed(meta, object, root_a, UID, NULL, 0));
    const struct meta_move move = {object, 0, SIZE, 0, root_a};
    cleanup_ids struct ids freed = {0}, none = {0};
    int64_t moved = 0;
    bool whole = false;
    CHECK_EQUAL(0, meta_repoint(meta, file, older_object, root_a, &move, 1, &moved, &freed));
    CHECK_EQUAL(SIZE, moved);
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(0, meta_stand_in_restore(meta, file, &whole, &none));
    CHECK(whole);
    CHECK_EQUAL(0, none.count);
    CHECK_EQUAL(older_object, frame_object_of(file));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

static void test_truncated(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_seal(meta, file, SIZE, FRAME_NOW + 5, FRAME_NOW + 6, NULL));
    uint64_t first = hidden(file);
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_truncate(meta, file, 3000, FRAME_NOW + 9, 0, &freed));
    CHECK_EQUAL(3000, frame_get(first).size);
    CHECK_EQUAL(0, meta_truncate(meta, file, 8000, FRAME_NOW + 9, 0, &freed));
    CHECK_EQUAL(8000, frame_get(first).size);
    char expected[64];
    snprintf(expected, sizeof expected, "0+3000:%llu@0", (unsigned long long)older_object);
    CHECK_TEXT(expected, frame_extents(first));
    CHECK_EQUAL(0, meta_truncate(meta, file, 0, FRAME_NOW + 9, 0, &freed));
    CHECK_EQUAL(0, hidden(file));
    CHECK(frame_is_released(first));
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(0, meta_reap(meta, first, &freed));
    CHECK_EQUAL(0, meta_object_forget(meta, &(struct ids){.at = &object, .count = 1}));
}

/* Every way that the file goes, or gets other bytes at once. */
static void test_ends(void)
{
    cleanup_ids struct ids freed = {0};
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t first = hidden(file);
    CHECK_EQUAL(0, frame_unlink(1, "file", false, &freed));
    CHECK_EQUAL(first, hidden(file));
    CHECK_EQUAL(0, meta_reap(meta, file, &freed));
    CHECK(frame_is_released(first));
    CHECK(frame_is_orphan(first));
    CHECK_EQUAL(0, meta_reap(meta, first, &freed));

    file = frame_make_object(1, "file");
    object = frame_get(file).object;
    CHECK_EQUAL(0, put());
    first = hidden(file);
    CHECK_EQUAL(0, meta_to_inline(meta, file, "small", 5, FRAME_NOW, FRAME_NOW, &freed));
    CHECK(frame_is_released(first));
    CHECK_EQUAL(0, frame_unlink(1, "file", true, &freed));

    file = frame_make_object(1, "file");
    object = frame_get(file).object;
    CHECK_EQUAL(0, put());
    first = hidden(file);
    CHECK_EQUAL(0, meta_seal(meta, file, 0, FRAME_NOW, FRAME_NOW, &freed));
    CHECK(frame_is_released(first));
    CHECK_EQUAL(0, frame_unlink(1, "file", true, &freed));

    file = frame_make_object(1, "file");
    object = frame_get(file).object;
    CHECK_EQUAL(0, put());
    first = hidden(file);
    CHECK_EQUAL(0, meta_tear(meta, file, 100, &freed));
    CHECK(frame_is_released(first));
    CHECK_EQUAL(0, hidden(file));
}

static void test_fork(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_EQUAL(0, meta_seal(meta, file, SIZE, FRAME_NOW + 5, FRAME_NOW + 6, NULL));
    uint64_t first = hidden(file);
    struct meta_inode forked;
    CHECK_EQUAL(0, meta_fork(meta, file, &forked));
    CHECK_EQUAL(0, hidden(file));
    CHECK_EQUAL(first, hidden(forked.ino));
    CHECK(!frame_is_orphan(first));
    cleanup_ids struct ids freed = {0};
    bool whole = false;
    CHECK_EQUAL(0, meta_stand_in_restore(meta, forked.ino, &whole, &freed));
    CHECK(whole);
    CHECK_EQUAL(older_object, frame_object_of(frame_find(1, "file")));
}

/* An object is repacked with its stand-ins. */
static void test_repack(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t copy = meta_object_next(meta);
    CHECK_EQUAL(0, meta_object_make(meta, copy, SIZE));
    CHECK_EQUAL(0, meta_object_summed(meta, copy, root_b, UID, NULL, 0));
    cleanup_ids struct ids files = {0}, freed = {0};
    CHECK_EQUAL(0, meta_find_users(meta, older_object, &files));
    CHECK_EQUAL(2, files.count);
    const struct meta_move move = {older_object, 0, SIZE, 0, root_a};
    const struct meta_repack all = {.from = older_object,
                                    .to = copy,
                                    .from_root = root_a,
                                    .to_root = root_b,
                                    .moves = &move,
                                    .count = 1,
                                    .files = &files};
    CHECK_EQUAL(0, meta_repack(meta, &all, &freed));
    CHECK(frame_has(&freed, older_object));
    CHECK_EQUAL(copy, frame_object_of(hidden(file)));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

static void put_unsynced(void)
{
    frame_open();
    make_both();
    frame_shared[0] = file;
    frame_shared[1] = older_object;
    put();
    frame_close();
}

/* Before its commit there is nothing, after it all. */
static void test_death(void)
{
    static const char *const faults[] = {"meta.commit:kill:7", "meta.committed:kill:7"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        CHECK(WIFSIGNALED(frame_in_child(faults[i], put_unsynced)));
        CHECK_EQUAL(i, meta->known.stand_ins);
        CHECK_EQUAL(i ? SIZE : -1, frame_get(frame_shared[0]).synced_size);
        cleanup_ids struct ids freed = {0};
        CHECK_EQUAL(0, frame_unlink(1, "file", true, &freed));
        CHECK_EQUAL(0, frame_unlink(1, "older", true, &freed));
    }
}

/* -- the check --------------------------------------------------------------------------------------------
 */

static const char *check_and_mend(bool file_is_there)
{
    const struct meta_object_file files[] = {{.object = older_object, .size = SIZE, .mtime = FRAME_NOW},
                                             {.object = object, .size = SIZE, .mtime = FRAME_NOW}};
    return frame_check_and_mend(files, file_is_there ? 2 : 1);
}

static void test_check(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    CHECK_TEXT("", check_and_mend(true));
    CHECK(hidden(file) != 0);
    frame_break_by("UPDATE stand_in SET hidden = %llu", 777);
    CHECK_TEXT("stand-in orphan ", check_and_mend(true));
    CHECK_EQUAL(0, hidden(file));
    CHECK_EQUAL(0, put());
    frame_break_by("UPDATE inode SET state = 0 WHERE ino = %llu", file);
    CHECK_TEXT("stand-in orphan orphan ", check_and_mend(true));
    frame_break_by("UPDATE inode SET state = 1 WHERE ino = %llu", file);
    CHECK_EQUAL(0, put());
    frame_break_by("UPDATE stand_in SET hidden = %llu", older);
    CHECK_TEXT("stand-in orphan orphan orphan ", check_and_mend(true));
}

/* The only safe bytes of a file are not thrown away. */
static void test_check_of_what_is_lost(void)
{
    make_both();
    CHECK_EQUAL(0, put());
    uint64_t first = hidden(file);
    frame_break_by("DELETE FROM stand_in; UPDATE inode SET nlink = 0 WHERE ino = %llu", first);
    frame_break_by("INSERT INTO stand_in (ino, hidden) VALUES (778, %llu)", first);
    CHECK_TEXT("stand-in-file inode-nameless ", check_and_mend(true));
    uint64_t lost = frame_find(META_ROOT_INO, META_LOST_AND_FOUND);
    char name[24];
    snprintf(name, sizeof name, "%llu", (unsigned long long)first);
    CHECK_EQUAL(first, frame_find(lost, name));
    /* The object is missing: the file is what stands in for it, and still on no stable storage of its own. */
    CHECK_EQUAL(0, put());
    CHECK_TEXT("object-stand-in object-owner object-unneeded ", check_and_mend(false));
    struct meta_inode row = frame_get(file);
    CHECK_EQUAL(META_EXTENTS, row.kind);
    CHECK_EQUAL(META_DIRTY | META_TORN, row.state);
    CHECK_EQUAL(older_object, frame_object_of(file));
    cleanup_ids struct ids freed = {0};
    bool whole;
    CHECK_EQUAL(0, meta_stand_in_restore(meta, file, &whole, &freed));
    CHECK_EQUAL(older_object, frame_object_of(file));
}

static void ignore_finding(void *context, const struct meta_finding *finding)
{
    (void)context;
    (void)finding;
}

/* Rebuilt from a backup: what was written to the file after it counts, and what was not does not. */
static void test_check_of_a_backup(void)
{
    make_both();
    for (int later = 0; later < 2; later++) {
        CHECK_EQUAL(0, put());
        const struct meta_object_file files[] = {
            {.object = older_object, .size = SIZE, .mtime = FRAME_NOW},
            {.object = object, .size = SIZE, .mtime = FRAME_NOW + 5 + later}};
        const struct meta_check_request request = {.files = files,
                                                   .file_count = 2,
                                                   .mend = true,
                                                   .rebuild = true,
                                                   .now = FRAME_NOW,
                                                   .finding = ignore_finding};
        struct meta_check_result result = {0};
        CHECK_EQUAL(0, meta_check(meta, &request, &result));
        CHECK_EQUAL(!later, hidden(file) != 0);
    }
}

int main(void)
{
    frame_run("a file gets a stand-in, which keeps the older bytes", test_put);
    frame_run("another one takes its place", test_again);
    frame_run("none of what is not the same, whole, safe and the owner's", test_refused);
    frame_run("what a power cut had gone back to is let go", test_shadows_and_stored_bytes_go);
    frame_run("it is let go when the file's own bytes are safe", test_synced);
    frame_run("a power cut: a file that was open", test_restore_of_written);
    frame_run("a power cut: a file that was sealed as it was fsynced", test_restore_of_sealed);
    frame_run("a power cut: a file that was changed since", test_restore_of_changed);
    frame_run("a power cut: a file that had just given way", test_restore_after_sharing);
    frame_run("it is cut with the file", test_truncated);
    frame_run("it goes with the file, and with its bytes", test_ends);
    frame_run("it goes with the names", test_fork);
    frame_run("it is repacked with the older object", test_repack);
    frame_run("a death before and after the commit", test_death);
    frame_run("the check finds rows that cannot be", test_check);
    frame_run("the check keeps the bytes of what is lost", test_check_of_what_is_lost);
    frame_run("a rebuild keeps what was written since", test_check_of_a_backup);
    return check_done();
}
