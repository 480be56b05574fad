/* SPDX-License-Identifier: Apache-2.0 */
/* Kept versions: what is copied, what comes back, what goes. */
#include "meta/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "meta/check.h"
#include "meta/hidden.h"
#include "meta/pin.h"
#include "meta/policy.h"
#include "meta/trash.h"
#include "test_meta_frame.h"

enum { SIZE = 20000, LATER = 1000 };

static uint64_t run, checkpoint, part, model, small;

/* run/checkpoint with a sealed file, a small one, a link, and a sealed file in a subdirectory. */
static void make_checkpoint(void)
{
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    checkpoint = frame_make(run, "checkpoint", S_IFDIR | 0750);
    part = frame_make(checkpoint, "part", S_IFDIR | 0700);
    model = frame_make_sealed(checkpoint, "model", SIZE);
    CHECK(frame_make_sealed(part, "rank", SIZE) != 0);
    small = frame_make_object(checkpoint, "small");
    CHECK_EQUAL(0, meta_to_inline(meta, small, "text", 4, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(0, meta_xattr_set(meta, model, "user.note", "first", 5, 0, FRAME_NOW, 0));
    const struct meta_new link = {.parent = checkpoint,
                                  .name = "link",
                                  .length = 4,
                                  .mode = S_IFLNK | 0777,
                                  .target = "model",
                                  .target_length = 5,
                                  .now = FRAME_NOW};
    struct meta_inode made;
    CHECK_EQUAL(0, meta_create(meta, &link, 0, &made));
}

static errint take(struct meta_kept *kept)
{
    const struct meta_kept_take wanted = {
        .checkpoint = checkpoint, .bytes = 2 * SIZE + 4, .now = FRAME_NOW + LATER};
    return meta_kept_take(meta, &wanted, kept);
}

static struct meta_kept kept_now(void)
{
    struct meta_kept kept;
    CHECK_EQUAL(0, take(&kept));
    return kept;
}

/* A directory below the root for what is torn. */
static uint64_t make_target(void)
{
    return frame_make(META_ROOT_INO, "torn", S_IFDIR | 0755);
}

static errint restore(const struct meta_kept *kept, uint64_t target, const char *name)
{
    const struct meta_kept_restore wanted = {*kept, target, name, strlen(name), FRAME_NOW + LATER};
    return meta_kept_restore(meta, &wanted);
}

static size_t kept_count(struct meta_kept *first)
{
    struct meta_kept *rows;
    size_t count;
    CHECK_EQUAL(0, meta_kept_read(meta, &rows, &count));
    if (count > 0 && first)
        *first = rows[0];
    free(rows);
    return count;
}

/* All but the numbers and the times of changes. */
static bool is_same(const struct meta_inode *one, const struct meta_inode *other)
{
    return one->mode == other->mode && one->uid == other->uid && one->gid == other->gid &&
           one->size == other->size && one->mtime == other->mtime && one->kind == other->kind &&
           one->nlink == other->nlink && one->state == other->state;
}

static void test_copies(void)
{
    char text[16];
    make_checkpoint();
    struct meta_inode was = frame_get(model), directory = frame_get(checkpoint);
    struct meta_kept kept = kept_now(), read;
    uint64_t copy = frame_find(kept.ino, "model");
    CHECK(copy != 0 && copy != model);
    struct meta_inode now = frame_get(copy), top = frame_get(kept.ino);
    CHECK(is_same(&was, &now) && is_same(&directory, &top));
    CHECK_EQUAL(frame_object_of(model), frame_object_of(copy));
    CHECK_EQUAL(1, meta_object_shared(meta, frame_object_of(model), model));
    CHECK_EQUAL(-EBUSY, meta_unseal(meta, model));
    CHECK_EQUAL(5, meta_xattr_get(meta, copy, "user.note", text, sizeof text));
    CHECK_EQUAL(4, meta_content_read(meta, frame_find(kept.ino, "small"), text, sizeof text));
    CHECK_EQUAL(5, meta_content_read(meta, frame_find(kept.ino, "link"), text, sizeof text));
    CHECK(frame_find(frame_find(kept.ino, "part"), "rank") != 0);
    CHECK_EQUAL(1, kept_count(&read));
    CHECK_EQUAL(checkpoint, read.checkpoint);
    CHECK_EQUAL(kept.ino, read.ino);
    CHECK(!read.partial);
    CHECK_EQUAL(-EEXIST, take(&read));
    frame_reopen();
    CHECK_EQUAL(1, kept_count(NULL));
}

static void test_remembers_what_is_partial(void)
{
    struct meta_kept kept, read = {0};
    make_checkpoint();
    const struct meta_kept_take wanted = {.checkpoint = checkpoint, .partial = true, .now = FRAME_NOW};
    CHECK_EQUAL(0, meta_kept_take(meta, &wanted, &kept));
    CHECK_EQUAL(1, kept_count(&read));
    CHECK(read.partial && read.checkpoint == checkpoint);
    CHECK_EQUAL(0, meta_kept_drop(meta, &read, FRAME_NOW));
    CHECK_EQUAL(0, kept_count(NULL));
}

static void test_keeps_only_what_is_whole(void)
{
    struct meta_kept kept;
    make_checkpoint();
    uint64_t open = frame_make_object(part, "open");
    CHECK_EQUAL(-EBUSY, take(&kept));
    CHECK_EQUAL(0, frame_unlink(part, "open", true, NULL));
    CHECK(open != 0);
    CHECK_EQUAL(0, frame_unlink(checkpoint, "model", true, NULL));
    CHECK_EQUAL(-ENODATA, take(&kept));
    CHECK_EQUAL(0, kept_count(NULL));
    const struct meta_kept_take file = {.checkpoint = small, .now = FRAME_NOW};
    CHECK_EQUAL(-ENOTDIR, meta_kept_take(meta, &file, &kept));
    const struct meta_kept_take none = {.checkpoint = 12345, .now = FRAME_NOW};
    CHECK_EQUAL(-ENOENT, meta_kept_take(meta, &none, &kept));
}

static void remove_to_trash(uint64_t parent, const char *name)
{
    const struct meta_trash_removal removal = {
        .checkpoint = checkpoint,
        .parent = parent,
        .name = name,
        .length = strlen(name),
        .expected = frame_find(parent, name),
        .now = FRAME_NOW + LATER,
    };
    struct ids freed = {0};
    CHECK_EQUAL(0, meta_trash_remove(meta, &removal, 0, &freed));
    ids_release(&freed);
}

static void test_has_what_a_removal_took(void)
{
    make_checkpoint();
    struct meta_inode was = frame_get(checkpoint);
    remove_to_trash(checkpoint, "model");
    remove_to_trash(part, "rank");
    struct meta_kept kept = kept_now();
    struct meta_inode now = frame_get(kept.ino);
    CHECK(is_same(&was, &now));
    CHECK_EQUAL(SIZE, frame_get(frame_find(kept.ino, "model")).size);
    CHECK_EQUAL(SIZE, frame_get(frame_find(frame_find(kept.ino, "part"), "rank")).size);
    CHECK_EQUAL(4, frame_get(frame_find(kept.ino, "small")).size);
}

static void test_comes_back(void)
{
    make_checkpoint();
    uint64_t target = make_target();
    const struct meta_policy_change policy = {"trash", "off"};
    CHECK_EQUAL(0, meta_policy_change(meta, checkpoint, &policy, 1));
    CHECK_EQUAL(0, meta_pin_set(meta, checkpoint, true));
    struct meta_kept kept = kept_now();
    uint64_t copy = frame_find(kept.ino, "model"), object = frame_object_of(model);
    struct meta_inode run_was = frame_get(run);
    /* The rewrite. */
    CHECK_EQUAL(0, meta_truncate(meta, model, 0, FRAME_NOW + LATER, 0, NULL));
    CHECK(frame_make(target, "checkpoint", S_IFDIR | 0755) != 0);
    CHECK_EQUAL(-EEXIST, restore(&kept, target, "checkpoint"));
    CHECK_EQUAL(0, restore(&kept, target, "checkpoint.2"));
    CHECK_EQUAL(kept.ino, frame_find(run, "checkpoint"));
    CHECK_EQUAL(checkpoint, frame_find(target, "checkpoint.2"));
    CHECK_EQUAL(copy, frame_find(kept.ino, "model"));
    CHECK_EQUAL(object, frame_object_of(copy));
    struct meta_inode run_now = frame_get(run);
    CHECK(is_same(&run_was, &run_now));
    CHECK_EQUAL(1, meta_pin_has(meta, kept.ino));
    CHECK_EQUAL(0, meta_pin_has(meta, checkpoint));
    struct meta_policy_found found;
    CHECK_EQUAL(0, meta_policy_find(meta, kept.ino, "trash", &found));
    CHECK_EQUAL(kept.ino, found.directory);
    CHECK_EQUAL(0, kept_count(NULL));
    CHECK_EQUAL(-ENOENT, restore(&kept, target, "checkpoint.3"));
}

static void test_goes_where_removed_ones_are_taken_apart(void)
{
    uint64_t removed;
    make_checkpoint();
    struct meta_kept kept = kept_now();
    CHECK_EQUAL(0, meta_kept_drop(meta, &kept, FRAME_NOW + LATER));
    CHECK_EQUAL(0, kept_count(NULL));
    CHECK_EQUAL(0, meta_hidden_find(meta, META_HIDDEN_REMOVED, &removed));
    char name[32];
    snprintf(name, sizeof name, "%llu", (unsigned long long)kept.ino);
    CHECK_EQUAL(kept.ino, frame_find(removed, name));
    CHECK_EQUAL(0, meta_kept_drop(meta, &kept, FRAME_NOW + LATER));
    CHECK_EQUAL(SIZE, frame_get(model).size);
}

static void test_is_had_back_from_the_trash(void)
{
    uint64_t out;
    make_checkpoint();
    struct meta_kept kept = kept_now();
    struct meta_kept_removal removal = {kept, run, "checkpoint", 10, 7, FRAME_NOW + LATER};
    CHECK_EQUAL(-EEXIST, meta_kept_remove(meta, &removal));
    CHECK_EQUAL(0, frame_rename(run, "checkpoint", META_ROOT_INO, "elsewhere", 0, NULL));
    CHECK_EQUAL(0, meta_kept_remove(meta, &removal));
    CHECK_EQUAL(0, frame_find(run, "checkpoint"));
    CHECK_EQUAL(0, kept_count(NULL));
    const struct meta_trash_restore back = {kept.ino, run, "checkpoint", 10, FRAME_NOW + LATER};
    CHECK_EQUAL(0, meta_trash_restore(meta, &back, 0, &out));
    CHECK_EQUAL(kept.ino, frame_find(run, "checkpoint"));
    CHECK_EQUAL(SIZE, frame_get(frame_find(out, "model")).size);
}

/* Without objects: the check would miss their files. */
static void test_is_no_fault(void)
{
    struct meta_kept kept;
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    checkpoint = frame_make(run, "checkpoint", S_IFDIR | 0750);
    part = frame_make(checkpoint, "part", S_IFDIR | 0700);
    CHECK(frame_make(checkpoint, "model", S_IFREG | 0640) && frame_make(part, "rank", S_IFREG | 0640));
    const struct meta_kept_take wanted = {.checkpoint = checkpoint, .now = FRAME_NOW};
    CHECK_EQUAL(0, meta_kept_take(meta, &wanted, &kept));
    CHECK_TEXT("", frame_mend());
    CHECK_EQUAL(1, kept_count(NULL));
    CHECK_EQUAL(0, frame_unlink(checkpoint, "model", true, NULL));
    CHECK_EQUAL(0, restore(&kept, make_target(), "checkpoint"));
    CHECK_TEXT("", frame_mend());
    CHECK(frame_find(kept.ino, "model") && frame_find(frame_find(kept.ino, "part"), "rank"));
}

int main(void)
{
    frame_run("all of a checkpoint is copied, and no bytes", test_copies);
    frame_run("what was not all of a checkpoint is known as such", test_remembers_what_is_partial);
    frame_run("what is being written, or lacks something, is not kept", test_keeps_only_what_is_whole);
    frame_run("what a removal under way took is kept, too", test_has_what_a_removal_took);
    frame_run("it takes its name again with what is set for it", test_comes_back);
    frame_run("one that is dropped waits to be taken apart", test_goes_where_removed_ones_are_taken_apart);
    frame_run("one whose checkpoint was removed is in the trash", test_is_had_back_from_the_trash);
    frame_run("the check finds nothing wrong with one", test_is_no_fault);
    return check_done();
}
