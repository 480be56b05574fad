/* SPDX-License-Identifier: Apache-2.0 */
/* Clones beside an assembled model: put, kept, refreshed, in nobody's way, and gone with the model. */
#include "meta/lent.h"

#include <errno.h>
#include <string.h>

#include "meta/assembled.h"
#include "meta/beside.h"
#include "meta/template.h"
#include "test_meta_frame.h"

enum { SHARD_SIZE = 9000, TOKENIZER_SIZE = 5000 };

static uint64_t run, directory, shard, model, config, tokenizer;
static bool changed;

/* A small file of the run, whose bytes are in the database. */
static uint64_t make_small(const char *name, const char *text)
{
    const struct meta_new new = {.parent = run,
                                 .name = name,
                                 .length = strlen(name),
                                 .mode = S_IFREG | 0640,
                                 .object = meta_object_next(meta),
                                 .now = FRAME_NOW};
    struct meta_inode inode;
    cleanup_ids struct ids freed = {0}, none = {0};
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(0, meta_to_inline(meta, inode.ino, text, strlen(text), FRAME_NOW, FRAME_NOW, &freed));
    CHECK_EQUAL(0, meta_synced(meta, inode.ino, (int64_t)strlen(text), true, &none));
    return inode.ino;
}

static void publish(bool beside)
{
    const struct meta_inode like = {.mode = 0644, .size = SHARD_SIZE, .mtime = FRAME_NOW};
    const struct meta_assembled_part part = {0, SHARD_SIZE, 0, shard, 0};
    const struct meta_assembled_input input = {"1", shard, 11};
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &model));
    CHECK_EQUAL(0, meta_assembled_map(meta, model, &part, 1));
    CHECK_EQUAL(0, meta_assembled_publish(meta, directory, "model", model, beside, &input, 1));
}

static void make_all(void)
{
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    directory = frame_make(run, "checkpoint", S_IFDIR | 0755);
    shard = frame_make_sealed(directory, "1", SHARD_SIZE);
    config = make_small("config.json", "{}");
    tokenizer = frame_make_sealed(run, "tokenizer.json", TOKENIZER_SIZE);
    publish(true);
}

static errint lend(void)
{
    const struct meta_lent files[] = {{"config.json", config}, {"tokenizer.json", tokenizer}};
    return meta_lent_set(meta, directory, files, 2, &changed);
}

static uint64_t lent(const char *name)
{
    return frame_find(directory, name);
}

static void make_lent(void)
{
    make_all();
    CHECK_EQUAL(0, lend());
    CHECK(changed);
}

static void test_clones(void)
{
    make_all();
    struct meta_inode before = frame_get(directory);
    CHECK_EQUAL(0, lend());
    CHECK(changed);
    struct meta_inode small = frame_get(lent("config.json")), large = frame_get(lent("tokenizer.json"));
    char expected[100], text[8];
    CHECK_EQUAL(META_INLINE, small.kind);
    CHECK_EQUAL(S_IFREG | 0640, small.mode);
    CHECK_EQUAL(2, meta_content_read(meta, small.ino, text, sizeof text));
    CHECK(memcmp(text, "{}", 2) == 0);
    snprintf(expected, sizeof expected, "0+%d:%llu@0", TOKENIZER_SIZE,
             (unsigned long long)frame_object_of(tokenizer));
    CHECK_TEXT(expected, frame_extents(large.ino));
    CHECK_EQUAL(META_ASSEMBLED | META_LENT, large.state);
    CHECK_EQUAL(1, large.nlink);
    /* It leaves no trace, and is there after a restart; nothing is done twice. */
    CHECK_EQUAL(before.mtime, frame_get(directory).mtime);
    CHECK_EQUAL(before.ctime, frame_get(directory).ctime);
    frame_reopen();
    CHECK(frame_is_consistent(meta));
    CHECK_EQUAL(large.ino, lent("tokenizer.json"));
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    /* The directory shows its model first. */
    struct meta_inode row;
    CHECK_EQUAL(0, meta_assembled_find(meta, directory, NULL, 0, &row));
    CHECK_EQUAL(model, row.ino);
    cleanup_ids struct ids borrowers = {0};
    CHECK_EQUAL(0, meta_lent_find_borrowers(meta, run, &borrowers));
    CHECK_EQUAL(0, meta_lent_find_borrowers(meta, directory, &borrowers));
    CHECK_EQUAL(0, meta_lent_find_borrowers(meta, META_ROOT_INO, &borrowers));
    CHECK(borrowers.count == 1 && borrowers.at[0] == directory);
}

static void test_sources(void)
{
    make_lent();
    uint64_t old = lent("config.json"), kept = lent("tokenizer.json");
    /* Another one takes the place of its clone; what is written now is lent as it was. */
    config = make_small("other.json", "{\"a\": 1}");
    CHECK_EQUAL(0, lend());
    CHECK(changed);
    CHECK(lent("config.json") != old);
    CHECK(frame_is_released(old));
    CHECK_EQUAL(kept, lent("tokenizer.json"));
    tokenizer = frame_make_object(run, "written");
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    CHECK_EQUAL(kept, lent("tokenizer.json"));
    const struct meta_lent more[] = {{"config.json", config}, {"vocab.json", tokenizer}};
    CHECK_EQUAL(-EBUSY, meta_lent_set(meta, directory, more, 2, &changed));
    CHECK(changed);
    CHECK_EQUAL(0, lent("vocab.json"));
    CHECK_EQUAL(0, lent("tokenizer.json"));
    CHECK(frame_is_released(kept));
    /* What is gone is lent no more; what nobody wants goes. */
    tokenizer = 98765;
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    CHECK_EQUAL(0, meta_lent_set(meta, directory, NULL, 0, &changed));
    CHECK_EQUAL(0, lent("config.json"));
    CHECK(frame_is_consistent(meta));
}

static void test_own_files(void)
{
    make_all();
    uint64_t own = frame_make(directory, "config.json", S_IFREG | 0600);
    CHECK_EQUAL(0, lend());
    CHECK_EQUAL(own, lent("config.json"));
    /* Who makes one gets it. */
    uint64_t clone = lent("tokenizer.json");
    own = frame_make(directory, "tokenizer.json", S_IFREG | 0600);
    CHECK_EQUAL(own, lent("tokenizer.json"));
    CHECK(frame_is_released(clone));
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    CHECK_EQUAL(own, lent("tokenizer.json"));
    CHECK(frame_is_consistent(meta));
}

static void test_written(void)
{
    make_lent();
    uint64_t written = lent("config.json");
    CHECK_EQUAL(0, meta_assembled_adopt(meta, written));
    CHECK_EQUAL(0, frame_get(written).state);
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, meta_assembled_withdraw(meta, directory, &changed));
    CHECK(changed);
    CHECK_EQUAL(written, lent("config.json"));
    CHECK_EQUAL(0, lent("tokenizer.json"));
    CHECK_EQUAL(0, lent("model"));
    CHECK(frame_is_consistent(meta));
}

static void test_removed(void)
{
    make_lent();
    cleanup_ids struct ids freed = {0}, directories = {0};
    uint64_t kept = lent("tokenizer.json");
    CHECK_EQUAL(0, frame_unlink(directory, "config.json", true, &freed));
    CHECK_EQUAL(1, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    CHECK_EQUAL(0, lent("config.json"));
    CHECK_EQUAL(kept, lent("tokenizer.json"));
    /* The next model has all of them. */
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, shard, &directories));
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, lent("tokenizer.json"));
    publish(true);
    CHECK_EQUAL(0, lend());
    CHECK(lent("config.json") && lent("tokenizer.json"));
    /* Without the model there is none. */
    CHECK_EQUAL(0, frame_unlink(directory, "model", true, &freed));
    CHECK_EQUAL(1, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, lend());
    CHECK_EQUAL(0, lent("config.json"));
    CHECK_EQUAL(1, meta_assembled_is_removed(meta, directory));
    CHECK(frame_is_consistent(meta));
}

static void test_in_the_view_alone(void)
{
    make_all();
    publish(false);
    CHECK_EQUAL(0, lend());
    CHECK(!changed);
    CHECK_EQUAL(0, lent("config.json"));
    publish(true);
    CHECK_EQUAL(0, lend());
    CHECK(changed);
    CHECK_EQUAL(0, meta_assembled_hide_all(meta));
    CHECK_EQUAL(0, lent("config.json"));
    struct meta_inode row;
    CHECK_EQUAL(-ENOENT, meta_assembled_find(meta, directory, "config.json", 11, &row));
    CHECK_EQUAL(0, meta_assembled_find(meta, directory, "model", 5, &row));
    CHECK(frame_is_consistent(meta));
}

static void test_in_a_directory_that_goes(void)
{
    make_lent();
    uint64_t clone = lent("config.json");
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, &freed));
    CHECK_EQUAL(0, frame_rmdir(run, "checkpoint"));
    CHECK(frame_is_released(clone));
    CHECK(frame_is_consistent(meta));
}

/* What came of a template goes with it. */
static void test_template(void)
{
    make_lent();
    const struct meta_new new = {.mode = S_IFREG | 0644,
                                 .uid = frame_get(run).uid,
                                 .object = meta_object_next(meta),
                                 .now = FRAME_NOW};
    struct meta_inode inode;
    cleanup_ids struct ids none = {0};
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(0, meta_seal(meta, inode.ino, 10, FRAME_NOW, FRAME_NOW, &none));
    CHECK_EQUAL(0, meta_synced(meta, inode.ino, 10, true, &none));
    const struct meta_template_file file = {"config.json", inode.ino};
    const struct meta_template wanted = {
        .run = run, .path = "/base", .files = &file, .count = 1, .now = FRAME_NOW};
    uint64_t clone = lent("config.json");
    CHECK_EQUAL(0, meta_template_put(meta, &wanted, 0));
    CHECK_EQUAL(clone, lent("config.json"));
    CHECK_EQUAL(0, meta_template_remove(meta, run, 0));
    CHECK_EQUAL(0, lent("config.json"));
    CHECK_EQUAL(0, lent("tokenizer.json"));
    CHECK_EQUAL(model, lent("model"));
    CHECK(frame_is_consistent(meta));
}

int main(void)
{
    frame_run("clones share the bytes, have names, and leave no trace", test_clones);
    frame_run("a clone follows its source", test_sources);
    frame_run("names that are taken are left alone", test_own_files);
    frame_run("written, one is a file like others", test_written);
    frame_run("removed, none is lent until the model is made anew", test_removed);
    frame_run("nothing is lent where the model is in the view alone", test_in_the_view_alone);
    frame_run("they go with the directory", test_in_a_directory_that_goes);
    frame_run("they go with the template", test_template);
    return check_done();
}
