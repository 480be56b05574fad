/* SPDX-License-Identifier: Apache-2.0 */
/* Pins: kept with the inode, gone with it, and found wrong by the check. */
#include <errno.h>

#include "meta/check.h"
#include "meta/pin.h"
#include "test_meta_frame.h"

static void test_kept(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t one = frame_make(run, "checkpoint-1", S_IFDIR | 0755);
    uint64_t two = frame_make(run, "checkpoint-2", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_pin_has(meta, one));
    CHECK_EQUAL(0, meta_pin_set(meta, one, true));
    CHECK_EQUAL(0, meta_pin_set(meta, one, true));
    CHECK_EQUAL(1, meta_pin_has(meta, one));
    CHECK_EQUAL(0, meta_pin_has(meta, two));
    CHECK_EQUAL(0, frame_rename(run, "checkpoint-1", META_ROOT_INO, "good", 0, NULL));
    frame_reopen();
    CHECK_EQUAL(1, meta_pin_has(meta, one));
    CHECK_EQUAL(0, meta_pin_set(meta, one, false));
    CHECK_EQUAL(0, meta_pin_set(meta, one, false));
    CHECK_EQUAL(0, meta_pin_has(meta, one));
    CHECK_EQUAL(-ENOENT, meta_pin_set(meta, two + 1000, true));
}

static void test_gone(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_pin_set(meta, run, true));
    CHECK_EQUAL(0, frame_rmdir(META_ROOT_INO, "run"));
    /* It is open, and can have no pin any more. */
    CHECK_EQUAL(-ENOENT, meta_pin_set(meta, run, true));
    struct ids freed = {0};
    CHECK_EQUAL(0, meta_reap(meta, run, &freed));
    CHECK_EQUAL(0, meta_pin_has(meta, run));
    ids_release(&freed);
}

static void test_fork(void)
{
    uint64_t file = frame_make_sealed(META_ROOT_INO, "last.ckpt", 100);
    struct meta_inode made;
    CHECK_EQUAL(0, meta_pin_set(meta, file, true));
    CHECK_EQUAL(0, meta_fork(meta, file, &made));
    CHECK_EQUAL(1, meta_pin_has(meta, made.ino));
    CHECK_EQUAL(0, meta_pin_has(meta, file));
}

static void test_check(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_pin_set(meta, run, true));
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_execute(meta->db, "INSERT INTO pin (ino) VALUES (777)"));
    }
    CHECK_TEXT("pin-inode ", frame_mend());
    CHECK_TEXT("", frame_mend());
    CHECK_EQUAL(1, meta_pin_has(meta, run));
}

static void test_format_4(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_execute(meta->db, FRAME_DROP_5 " UPDATE format SET version = 4"));
    }
    frame_reopen();
    CHECK_EQUAL(0, meta_pin_set(meta, run, true));
    CHECK_EQUAL(1, meta_pin_has(meta, run));
}

int main(void)
{
    frame_run("a pin survives renames and restarts", test_kept);
    frame_run("it goes with its inode", test_gone);
    frame_run("it goes along when names move to a new inode", test_fork);
    frame_run("the check finds pins of what is missing", test_check);
    frame_run("a store of format 4 gets the table", test_format_4);
    return check_done();
}
