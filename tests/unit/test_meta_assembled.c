/* SPDX-License-Identifier: Apache-2.0 */
/* Files without a name that a directory shows: made, shown, withdrawn, and gone with their directory. */
#include <errno.h>
#include <string.h>

#include "meta/assembled.h"
#include "meta/beside.h"
#include "meta/sharing.h"
#include "meta/usage.h"
#include "test_meta_frame.h"

enum { SHARD_SIZE = 10000, HEADER_SIZE = 100, MODEL_SIZE = HEADER_SIZE + 2 * SHARD_SIZE - 20 };

static uint64_t directory, first, second, header;

/* A model of a header of its own and two shards, each without its first 10 bytes; not published. */
static uint64_t make_model(void)
{
    directory = frame_make(1, "checkpoint", S_IFDIR | 0755);
    first = frame_make_sealed(directory, "1", SHARD_SIZE);
    second = frame_make_sealed(directory, "2", SHARD_SIZE);
    header = meta_object_next(meta);
    const struct meta_inode like = {.mode = 0644, .uid = 5, .gid = 6, .size = MODEL_SIZE, .mtime = FRAME_NOW};
    const struct meta_assembled_part parts[] = {
        {0, HEADER_SIZE, header, 0, 0},
        {HEADER_SIZE, SHARD_SIZE - 10, 0, first, 10},
        {HEADER_SIZE + SHARD_SIZE - 10, SHARD_SIZE - 10, 0, second, 10},
    };
    uint64_t ino = 0;
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &ino));
    CHECK_EQUAL(0, meta_assembled_map(meta, ino, parts, 3));
    return ino;
}

static errint publish(uint64_t ino)
{
    const struct meta_assembled_input inputs[] = {{"1", first, 11}, {"sub/2", second, 12}};
    return meta_assembled_publish(meta, directory, "model", ino, false, inputs, 2);
}

static uint64_t shown(void)
{
    struct meta_inode row;
    return meta_assembled_find(meta, directory, "model", 5, &row) == 0 ? row.ino : 0;
}

static bool exists(uint64_t ino)
{
    struct meta_inode row;
    return meta_get(meta, ino, &row) == 0;
}

/* -- making -----------------------------------------------------------------------------------------------
 */

static void test_extents(void)
{
    uint64_t ino = make_model();
    char expected[200];
    snprintf(expected, sizeof expected, "0+100:%llu@0 100+9990:%llu@10 10090+9990:%llu@10",
             (unsigned long long)header, (unsigned long long)frame_object_of(first),
             (unsigned long long)frame_object_of(second));
    CHECK_TEXT(expected, frame_extents(ino));
    struct meta_inode row = frame_get(ino);
    CHECK_EQUAL(S_IFREG | 0644, row.mode);
    CHECK_EQUAL(5, row.uid);
    CHECK_EQUAL(6, row.gid);
    CHECK_EQUAL(0, row.nlink);
    CHECK_EQUAL(META_ASSEMBLED, row.state);
    CHECK_EQUAL(MODEL_SIZE, row.size);
    int64_t size;
    CHECK_EQUAL(0, meta_object_size(meta, header, &size));
    CHECK_EQUAL(HEADER_SIZE, size);
    /* Until it is shown a start removes it. */
    CHECK(frame_is_orphan(ino));
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_reap(meta, ino, &freed));
    CHECK(frame_has(&freed, header));
    CHECK_EQUAL(1, (int64_t)freed.count);
}

static void test_refused(void)
{
    uint64_t ino = make_model(), written = frame_make_object(1, "written");
    char before[200];
    snprintf(before, sizeof before, "%s", frame_extents(ino));
    const struct meta_assembled_part long_part = {0, 1, 0, first, SHARD_SIZE};
    const struct meta_assembled_part open_part = {0, 1, 0, written, 0};
    const struct meta_assembled_part gone_part = {0, 1, 0, 98765, 0};
    const struct meta_assembled_part outside = {MODEL_SIZE - 1, 2, 0, first, 0};
    const struct meta_assembled_part overflow = {1, INT64_MAX, 0, first, 0};
    CHECK_EQUAL(-EBUSY, meta_assembled_map(meta, ino, &long_part, 1));
    CHECK_EQUAL(-EBUSY, meta_assembled_map(meta, ino, &open_part, 1));
    CHECK_EQUAL(-EBUSY, meta_assembled_map(meta, ino, &gone_part, 1));
    CHECK_EQUAL(-EINVAL, meta_assembled_map(meta, ino, &outside, 1));
    CHECK_EQUAL(-EINVAL, meta_assembled_map(meta, ino, &overflow, 1));
    CHECK_EQUAL(-EINVAL, meta_assembled_map(meta, first, &long_part, 1));
    const struct meta_inode torn = {.state = META_TORN};
    CHECK_EQUAL(0, meta_set(meta, second, META_SET_STATE, &torn, 0, NULL));
    const struct meta_assembled_part torn_part = {0, 1, 0, second, 0};
    CHECK_EQUAL(-EBUSY, meta_assembled_map(meta, ino, &torn_part, 1));
    CHECK_TEXT(before, frame_extents(ino));
}

/* -- showing ----------------------------------------------------------------------------------------------
 */

static void test_shown(void)
{
    uint64_t ino = make_model();
    struct meta_totals before, after;
    CHECK_EQUAL(0, meta_count(meta, &before));
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(ino, shown());
    CHECK_EQUAL(1, meta_assembled_shown(meta, ino));
    CHECK(!frame_is_orphan(ino));
    /* It is no file of the namespace: no name, none of the logical bytes. */
    CHECK_EQUAL(0, frame_find(directory, "model"));
    CHECK_EQUAL(2 * SHARD_SIZE, before.logical_bytes);
    CHECK_EQUAL(0, meta_count(meta, &after));
    CHECK_EQUAL(before.logical_bytes, after.logical_bytes);
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_reap(meta, ino, &freed));
    CHECK(exists(ino));
    frame_reopen();
    CHECK_EQUAL(ino, shown());
    CHECK_EQUAL(0, meta_count(meta, &after));
    CHECK_EQUAL(before.logical_bytes, after.logical_bytes);
    /* A new one takes its place. */
    const struct meta_inode like = {.mode = 0600, .size = 1, .mtime = FRAME_NOW};
    uint64_t newer;
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &newer));
    CHECK_EQUAL(0, publish(newer));
    CHECK_EQUAL(newer, shown());
    CHECK(frame_is_released(ino));
    CHECK(frame_is_orphan(ino));
}

static void test_keeps_bytes(void)
{
    uint64_t ino = make_model(), object = 0;
    CHECK_EQUAL(0, publish(ino));
    object = frame_object_of(first);
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, &freed));
    CHECK_EQUAL(0, (int64_t)freed.count);
    CHECK_EQUAL(1, meta_object_shared(meta, object, 0));
    /* Others that have its bytes find it, to be told that they are elsewhere. */
    cleanup_ids struct ids users = {0};
    CHECK_EQUAL(0, meta_find_users_of(meta, object, 5, &users));
    CHECK_EQUAL(1, (int64_t)users.count);
    CHECK(frame_has(&users, ino));
}

static bool count_input(void *context, const char *path, size_t length, uint64_t ino, int64_t mtime)
{
    int *count = context;
    CHECK((length == 1 && memcmp(path, "1", 1) == 0 && ino == first && mtime == 11) ||
          (length == 5 && memcmp(path, "sub/2", 5) == 0 && ino == second && mtime == 12));
    ++*count;
    return true;
}

static void test_inputs(void)
{
    int count = 0;
    uint64_t ino = make_model();
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(0, meta_assembled_inputs(meta, directory, count_input, &count));
    CHECK_EQUAL(2, count);
    cleanup_ids struct ids all = {0}, directories = {0};
    CHECK_EQUAL(0, meta_assembled_all_inputs(meta, &all));
    CHECK(all.count == 2 && frame_has(&all, first) && frame_has(&all, second));
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, directory, &directories));
    CHECK_EQUAL(0, (int64_t)directories.count);
    CHECK_EQUAL(ino, shown());
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, second, &directories));
    CHECK(directories.count == 1 && directories.at[0] == directory);
    CHECK_EQUAL(0, shown());
    CHECK(frame_is_released(ino));
    all.count = 0;
    CHECK_EQUAL(0, meta_assembled_all_inputs(meta, &all));
    CHECK_EQUAL(0, (int64_t)all.count);
    /* From what it was made is remembered. */
    count = 0;
    CHECK_EQUAL(0, meta_assembled_inputs(meta, directory, count_input, &count));
    CHECK_EQUAL(2, count);
}

/* -- withdrawing ------------------------------------------------------------------------------------------
 */

static void test_goes_with_directory(void)
{
    uint64_t ino = make_model();
    bool changed;
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, NULL));
    CHECK_EQUAL(0, frame_unlink(directory, "2", true, NULL));
    CHECK_EQUAL(0, frame_rmdir(1, "checkpoint"));
    CHECK_EQUAL(0, shown());
    CHECK(frame_is_released(ino));
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_reap(meta, ino, &freed));
    CHECK(!exists(ino));
    CHECK_EQUAL(3, (int64_t)freed.count);
    CHECK_EQUAL(0, meta_assembled_withdraw(meta, directory, &changed));
    CHECK(!changed);
    /* Nothing is shown by what is gone. */
    ino = make_model();
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, NULL));
    CHECK_EQUAL(0, frame_unlink(directory, "2", true, NULL));
    CHECK_EQUAL(0, frame_rmdir(1, "checkpoint"));
    CHECK_EQUAL(-ENOENT, publish(ino));
}

static void test_goes_with_replaced_directory(void)
{
    uint64_t ino = make_model();
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, NULL));
    CHECK_EQUAL(0, frame_unlink(directory, "2", true, NULL));
    frame_make(1, "other", S_IFDIR | 0755);
    CHECK_EQUAL(0, frame_rename(1, "other", 1, "checkpoint", 0, NULL));
    CHECK_EQUAL(0, shown());
    CHECK(frame_is_released(ino));
}

static void test_torn(void)
{
    uint64_t ino = make_model();
    cleanup_ids struct ids torn = {0};
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(0, meta_assembled_torn(meta, &torn));
    CHECK_EQUAL(0, (int64_t)torn.count);
    CHECK_EQUAL(0, meta_tear(meta, second, 500, NULL));
    CHECK_EQUAL(0, meta_assembled_torn(meta, &torn));
    CHECK(torn.count == 1 && torn.at[0] == directory);
    /* It keeps what it is through that. */
    CHECK_EQUAL(0, meta_tear(meta, ino, 500, NULL));
    CHECK_EQUAL(META_ASSEMBLED | META_TORN, frame_get(ino).state);
    const struct meta_inode whole = {.state = 0};
    CHECK_EQUAL(0, meta_set(meta, ino, META_SET_STATE, &whole, 0, NULL));
    CHECK_EQUAL(META_ASSEMBLED, frame_get(ino).state);
}

/* -- figures, checks --------------------------------------------------------------------------------------
 */

static const char *usage_of(uint64_t ino)
{
    static char text[200];
    struct meta_usage_request request = {.ino = ino, .everybody = true};
    struct meta_usage usage;
    CHECK_EQUAL(0, meta_usage_compute(meta, &request, &usage));
    snprintf(text, sizeof text, "%llu %llu %lld %lld %lld", (unsigned long long)usage.files,
             (unsigned long long)usage.extents, (long long)usage.logical_bytes, (long long)usage.stored_bytes,
             (long long)usage.unique_bytes);
    return text;
}

static void test_usage(void)
{
    uint64_t ino = make_model();
    CHECK_EQUAL(0, publish(ino));
    CHECK_TEXT("2 2 20000 20100 20100", usage_of(directory));
    /* To remove one shard alone frees no more than what the model has not of it. */
    CHECK_TEXT("1 1 10000 10000 10", usage_of(first));
    CHECK_TEXT("1 3 20080 20080 100", usage_of(ino));
    CHECK_EQUAL(0, frame_unlink(directory, "1", true, NULL));
    CHECK_EQUAL(0, frame_unlink(directory, "2", true, NULL));
    CHECK_TEXT("0 0 0 20080 20080", usage_of(directory));
}

static void test_files_after(void)
{
    make_model();
    cleanup_ids struct ids files = {0};
    uint64_t after = 0;
    CHECK_EQUAL(0, meta_find_files_after(meta, &after, &files));
    CHECK(files.count == 2 && files.at[0] == first && files.at[1] == second);
    files.count = 0;
    after = first;
    CHECK_EQUAL(0, meta_find_files_after(meta, &after, &files));
    CHECK(files.count == 1 && files.at[0] == second);
}

static const char *check(bool mend)
{
    const struct meta_object_file files[] = {{frame_object_of(first), SHARD_SIZE, FRAME_NOW},
                                             {frame_object_of(second), SHARD_SIZE, FRAME_NOW},
                                             {header, HEADER_SIZE, FRAME_NOW}};
    return frame_check(files, 3, mend);
}

static void test_check(void)
{
    uint64_t ino = make_model();
    CHECK_EQUAL(0, publish(ino));
    CHECK_TEXT("", check(true));
    CHECK_EQUAL(0, db_execute(meta->db, "UPDATE assembled SET directory = 999;"
                                        "UPDATE assembled_input SET directory = 999 WHERE mtime = 12"));
    CHECK_TEXT("assembled-directory assembled-input orphan ", check(true));
    CHECK_TEXT("orphan ", check(false));
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(0, db_execute(meta->db, "UPDATE inode SET state = 0 WHERE state = 4"));
    CHECK_TEXT("assembled-inode orphan ", check(true));
    CHECK_EQUAL(0, shown());
}

/* The other form of the same model. */
static void test_other_form(void)
{
    uint64_t ino = make_model(), other;
    const struct meta_inode like = {.mode = 0644, .size = SHARD_SIZE, .mtime = FRAME_NOW};
    const struct meta_assembled_part part = {0, SHARD_SIZE, 0, first, 0};
    struct meta_inode row;
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &other));
    CHECK_EQUAL(0, meta_assembled_map(meta, other, &part, 1));
    CHECK_EQUAL(-ENOENT, meta_assembled_publish_more(meta, directory, "other", other));
    CHECK_EQUAL(0, publish(ino));
    CHECK_EQUAL(-ENOENT, meta_assembled_publish_more(meta, directory, "other", 98765));
    CHECK_EQUAL(0, meta_assembled_publish_more(meta, directory, "other", other));
    CHECK_EQUAL(ino, shown());
    CHECK_EQUAL(0, meta_assembled_find(meta, directory, "other", 5, &row));
    CHECK_EQUAL(other, row.ino);
    cleanup_ids struct ids directories = {0};
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, second, &directories));
    CHECK_EQUAL(0, shown());
    CHECK_EQUAL(-ENOENT, meta_assembled_find(meta, directory, "other", 5, &row));
    CHECK(frame_is_released(ino));
}

/* -- beside the shards ------------------------------------------------------------------------------------
 */

static uint64_t publish_beside(void)
{
    const struct meta_assembled_input inputs[] = {{"1", first, 11}, {"sub/2", second, 12}};
    uint64_t ino = make_model();
    CHECK_EQUAL(0, meta_assembled_publish(meta, directory, "model", ino, true, inputs, 2));
    CHECK_EQUAL(ino, frame_find(directory, "model"));
    return ino;
}

static void test_beside(void)
{
    uint64_t ino = publish_beside();
    struct meta_inode shards = frame_get(directory);
    CHECK_EQUAL(1, frame_get(ino).nlink);
    CHECK_EQUAL(META_ASSEMBLED, frame_get(ino).state);
    CHECK_EQUAL(ino, shown());
    CHECK_TEXT("", check(true));
    /* What has a name counts as a file. */
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(2 * SHARD_SIZE + MODEL_SIZE, totals.logical_bytes);
    frame_reopen();
    CHECK(frame_is_consistent(meta));
    CHECK_EQUAL(ino, frame_find(directory, "model"));
    cleanup_ids struct ids directories = {0};
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, first, &directories));
    CHECK_EQUAL(0, frame_find(directory, "model"));
    CHECK(frame_is_released(ino));
    CHECK(frame_is_orphan(ino));
    /* Nothing of it is seen in the directory's times. */
    struct meta_inode after = frame_get(directory);
    CHECK_EQUAL(shards.mtime, after.mtime);
    CHECK_EQUAL(shards.ctime, after.ctime);
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK(frame_is_consistent(meta));
}

static void test_beside_gives_way(void)
{
    uint64_t ino = publish_beside();
    uint64_t own = frame_make(directory, "model", S_IFREG | 0600);
    CHECK_EQUAL(own, frame_find(directory, "model"));
    CHECK_EQUAL(0, shown());
    CHECK(frame_is_released(ino));
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK(frame_is_consistent(meta));
    /* And does not take the place of another. */
    const struct meta_inode like = {.mode = 0600, .size = 1, .mtime = FRAME_NOW};
    const struct meta_assembled_input input = {"1", first, 11};
    uint64_t newer;
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &newer));
    CHECK_EQUAL(0, meta_assembled_publish(meta, directory, "model", newer, true, &input, 1));
    CHECK_EQUAL(own, frame_find(directory, "model"));
    CHECK_EQUAL(newer, shown());
    CHECK(frame_is_consistent(meta));
}

static void test_beside_removed(void)
{
    uint64_t ino = publish_beside();
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_unlink(meta, directory, "model", 5, ino, true, FRAME_NOW, 0, &freed));
    CHECK(!exists(ino));
    CHECK(frame_has(&freed, header));
    CHECK_EQUAL(0, shown());
    frame_reopen();
    CHECK_EQUAL(1, meta_assembled_is_removed(meta, directory));
    /* Until something is assembled anew. */
    const struct meta_inode like = {.mode = 0600, .size = 1, .mtime = FRAME_NOW};
    uint64_t newer;
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &newer));
    CHECK_EQUAL(0, publish(newer));
    CHECK_EQUAL(0, meta_assembled_is_removed(meta, directory));
    CHECK(frame_is_consistent(meta));
}

static void test_beside_moved(void)
{
    uint64_t ino = publish_beside();
    struct meta_rename rename = {.parent = directory,
                                 .name = "model",
                                 .length = 5,
                                 .new_parent = 1,
                                 .new_name = "moved",
                                 .new_length = 5,
                                 .expected = ino,
                                 .now = FRAME_NOW};
    cleanup_ids struct ids freed = {0}, directories = {0};
    CHECK_EQUAL(0, meta_rename(meta, &rename, 0, &freed));
    CHECK_EQUAL(0, frame_get(ino).state);
    CHECK_EQUAL(0, shown());
    CHECK_EQUAL(1, meta_assembled_is_removed(meta, directory));
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, first, &directories));
    CHECK_EQUAL(ino, frame_find(1, "moved"));
    CHECK(frame_is_consistent(meta));
}

static void test_beside_written_and_linked(void)
{
    uint64_t ino = publish_beside();
    struct meta_inode row;
    cleanup_ids struct ids directories = {0};
    CHECK_EQUAL(0, meta_link(meta, ino, 1, "link", 4, FRAME_NOW, 0, &row));
    CHECK_EQUAL(2, row.nlink);
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, first, &directories));
    CHECK_EQUAL(0, frame_find(directory, "model"));
    CHECK_EQUAL(ino, frame_find(1, "link"));
    CHECK_EQUAL(1, frame_get(ino).nlink);
    CHECK_EQUAL(0, frame_get(ino).state);
    CHECK(frame_is_consistent(meta));
}

static void test_beside_adopted(void)
{
    uint64_t ino = publish_beside();
    cleanup_ids struct ids directories = {0};
    CHECK_EQUAL(0, meta_assembled_adopt(meta, ino));
    CHECK_EQUAL(0, meta_assembled_adopt(meta, ino));
    CHECK_EQUAL(0, frame_get(ino).state);
    CHECK_EQUAL(0, meta_assembled_withdraw_input(meta, first, &directories));
    CHECK_EQUAL(ino, frame_find(directory, "model"));
    CHECK(frame_is_consistent(meta));
}

static void test_beside_hidden(void)
{
    uint64_t ino = publish_beside();
    CHECK_EQUAL(0, meta_assembled_hide_all(meta));
    CHECK_EQUAL(0, frame_find(directory, "model"));
    CHECK_EQUAL(ino, shown());
    CHECK(!frame_is_orphan(ino));
    CHECK_EQUAL(0, meta_assembled_hide_all(meta));
    CHECK(frame_is_consistent(meta));
}

static void test_beside_in_a_directory_that_goes(void)
{
    uint64_t ino = publish_beside();
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(-ENOTEMPTY, meta_rmdir(meta, 1, "checkpoint", 10, directory, true, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_unlink(meta, directory, "1", 1, first, true, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, meta_unlink(meta, directory, "2", 1, second, true, FRAME_NOW, 0, &freed));
    CHECK_EQUAL(0, meta_rmdir(meta, 1, "checkpoint", 10, directory, true, FRAME_NOW, 0));
    CHECK(frame_is_released(ino));
    CHECK(frame_is_orphan(ino));
    CHECK(frame_is_consistent(meta));
}

int main(void)
{
    frame_run("a file of ranges of others", test_extents);
    frame_run("what is written, torn or too short gives no part", test_refused);
    frame_run("a directory shows it, and it has no name", test_shown);
    frame_run("another form of it is shown and withdrawn with it", test_other_form);
    frame_run("it keeps the bytes of a file that is removed", test_keeps_bytes);
    frame_run("it is withdrawn with what it was made from", test_inputs);
    frame_run("it goes with its directory", test_goes_with_directory);
    frame_run("it goes with a directory that is replaced", test_goes_with_replaced_directory);
    frame_run("what a power cut tore is found", test_torn);
    frame_run("it is stored where its directory is", test_usage);
    frame_run("files are found by their numbers", test_files_after);
    frame_run("rows that lead nowhere are found and mended", test_check);
    frame_run("one beside its shards has a name, and leaves no trace", test_beside);
    frame_run("it gives way to a file of its name", test_beside_gives_way);
    frame_run("removed, it is not wanted again", test_beside_removed);
    frame_run("moved, it is a file like others", test_beside_moved);
    frame_run("a link to it stays", test_beside_written_and_linked);
    frame_run("written, it is a file like others", test_beside_adopted);
    frame_run("hidden, it is shown without a name", test_beside_hidden);
    frame_run("a directory that has nothing else is empty", test_beside_in_a_directory_that_goes);
    return check_done();
}
