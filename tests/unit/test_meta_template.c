/* SPDX-License-Identifier: Apache-2.0 */
/* Templates and the hidden directories that they lie in: put, replaced, found, gone with the run, and
 * checked. */
#include <errno.h>
#include <string.h>

#include "meta/assembled.h"
#include "meta/hidden.h"
#include "meta/policy.h"
#include "meta/template.h"
#include "meta/usage.h"
#include "test_meta_frame.h"

enum { SIZE = 5000, OWNER = 1000 };

static uint64_t run;
static struct meta_template_found found;

/* A file without a name, as O_TMPFILE makes it. */
static uint64_t make_unnamed(uint32_t uid)
{
    const struct meta_new new = {
        .mode = S_IFREG | 0644, .uid = uid, .gid = 100, .object = meta_object_next(meta), .now = FRAME_NOW};
    struct meta_inode inode;
    struct ids none = {0};
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(0, meta_seal(meta, inode.ino, SIZE, FRAME_NOW, FRAME_NOW, &none));
    CHECK_EQUAL(0, meta_synced(meta, inode.ino, SIZE, true, &none));
    ids_release(&none);
    return inode.ino;
}

static errint put(uint64_t directory, const char *path, uint64_t first, uint64_t second)
{
    const struct meta_template_file files[] = {{"config.json", first}, {"tokenizer.json", second}};
    const struct meta_template wanted = {
        .run = directory, .path = path, .files = files, .count = second ? 2 : 1, .now = FRAME_NOW};
    return meta_template_put(meta, &wanted, 0);
}

static void make_run(void)
{
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
}

static uint64_t lent(uint64_t directory, const char *name)
{
    errint error = meta_template_find(meta, directory, &found);
    CHECK(error == 0 || error == -ENOENT);
    return error ? 0 : frame_find(found.hidden, name);
}

/* The path that its run has for it, or "". */
static const char *path_of(uint64_t directory)
{
    static struct meta_policy_found policy;
    return meta_policy_find(meta, directory, META_TEMPLATE_KEY, &policy) ? "" : policy.value;
}

static void test_put(void)
{
    make_run();
    uint64_t below = frame_make(run, "checkpoint", S_IFDIR | 0755);
    uint64_t config = make_unnamed(OWNER), tokenizer = make_unnamed(OWNER), hidden;
    CHECK_EQUAL(-ENOENT, meta_hidden_find(meta, META_HIDDEN_TEMPLATES, &hidden));
    CHECK_EQUAL(0, lent(below, "config.json"));
    CHECK_EQUAL(0, put(run, "/base", config, tokenizer));
    CHECK_EQUAL(config, lent(below, "config.json"));
    CHECK_EQUAL(run, found.run);
    CHECK_EQUAL(tokenizer, lent(run, "tokenizer.json"));
    CHECK_TEXT("/base", path_of(below));
    CHECK(!frame_is_orphan(config));
    CHECK_EQUAL(1, frame_get(config).nlink);
    CHECK_EQUAL(0, meta_hidden_find(meta, META_HIDDEN_TEMPLATES, &hidden));
    /* No path leads there, and it has one for messages. */
    char name[24];
    uint64_t parent;
    snprintf(name, sizeof name, "%llu", (unsigned long long)run);
    CHECK_EQUAL(found.hidden, frame_find(hidden, name));
    CHECK_EQUAL(0, frame_find(META_ROOT_INO, META_HIDDEN_TEMPLATES));
    CHECK_EQUAL(0, meta_parent(meta, hidden, &parent));
    CHECK_EQUAL(META_HIDDEN_PARENT, parent);
    cleanup_free char *path = NULL;
    char expected[64];
    CHECK_EQUAL(0, meta_path(meta, config, &path));
    snprintf(expected, sizeof expected, "/(hidden)/templates/%s/config.json", name);
    CHECK_TEXT(expected, path);
    frame_reopen();
    CHECK_EQUAL(config, lent(below, "config.json"));
    CHECK(!frame_is_orphan(config));
}

static void test_replaced_and_removed(void)
{
    make_run();
    uint64_t first = make_unnamed(OWNER), second = make_unnamed(OWNER), third = make_unnamed(OWNER);
    CHECK_EQUAL(-ENOENT, meta_template_remove(meta, run, 0));
    CHECK_EQUAL(0, put(run, "/base", first, second));
    CHECK_EQUAL(0, put(run, "/other", third, 0));
    CHECK_EQUAL(third, lent(run, "config.json"));
    CHECK_EQUAL(0, lent(run, "tokenizer.json"));
    CHECK_TEXT("/other", path_of(run));
    CHECK(frame_is_released(second));
    CHECK(frame_is_orphan(first));
    CHECK_EQUAL(0, meta_template_remove(meta, run, 0));
    CHECK_EQUAL(0, lent(run, "config.json"));
    CHECK_TEXT("", path_of(run));
    CHECK(frame_is_released(third));
    CHECK_EQUAL(-ENOENT, meta_template_remove(meta, run, 0));
}

static void test_nearest(void)
{
    make_run();
    uint64_t above = make_unnamed(OWNER), own = make_unnamed(OWNER), of_root;
    uint64_t group = frame_make(META_ROOT_INO, "group", S_IFDIR | 0755);
    CHECK_EQUAL(0, put(group, "/base", above, 0));
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, "run", group, "run", 0, NULL));
    CHECK_EQUAL(above, lent(run, "config.json"));
    CHECK_EQUAL(0, put(run, "/own", own, 0));
    CHECK_EQUAL(own, lent(run, "config.json"));
    CHECK_EQUAL(0, frame_rename(group, "run", META_ROOT_INO, "moved", 0, NULL));
    CHECK_EQUAL(own, lent(run, "config.json"));
    CHECK_EQUAL(0, meta_template_remove(meta, run, 0));
    CHECK_EQUAL(0, lent(run, "config.json"));
    of_root = make_unnamed(geteuid());
    CHECK_EQUAL(0, put(META_ROOT_INO, "/root", of_root, 0));
    CHECK_EQUAL(of_root, lent(run, "config.json"));
    CHECK_EQUAL(above, lent(group, "config.json"));
}

static void test_goes_with_the_run(void)
{
    make_run();
    uint64_t config = make_unnamed(OWNER);
    CHECK_EQUAL(0, put(run, "/base", config, 0));
    CHECK_EQUAL(0, frame_rmdir(META_ROOT_INO, "run"));
    CHECK_EQUAL(-ENOENT, meta_template_find(meta, run, &found));
    CHECK(frame_is_released(config));
    cleanup_ids struct ids freed = {0};
    uint64_t object = frame_object_of(config);
    CHECK_EQUAL(0, meta_reap(meta, config, &freed));
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
}

static void test_refused(void)
{
    make_run();
    uint64_t first = make_unnamed(OWNER), kept = make_unnamed(OWNER), others = make_unnamed(OWNER + 1);
    uint64_t named = frame_make_sealed(META_ROOT_INO, "named", SIZE);
    uint64_t directory = frame_make(META_ROOT_INO, "directory", S_IFDIR | 0755), assembled;
    const struct meta_inode like = {.mode = 0644, .uid = OWNER, .size = SIZE, .mtime = FRAME_NOW};
    CHECK_EQUAL(0, meta_assembled_begin(meta, &like, &assembled));
    CHECK_EQUAL(0, put(run, "/base", kept, 0));
    CHECK_EQUAL(-EPERM, put(run, "/new", first, others));
    CHECK_EQUAL(-EPERM, put(run, "/new", first, named)); /* of nobody's */
    CHECK_EQUAL(-EBUSY, put(run, "/new", kept, kept));
    CHECK_EQUAL(-EBUSY, put(run, "/new", first, assembled));
    CHECK_EQUAL(-EISDIR, put(run, "/new", first, directory));
    CHECK_EQUAL(-ENOENT, put(run, "/new", first, first + 1000));
    CHECK_EQUAL(-ENOENT, put(run + 1000, "/new", first, 0));
    CHECK_EQUAL(-ENOTDIR, put(named, "/new", first, 0));
    const struct meta_template_file twice[] = {{"config.json", first}, {"config.json", make_unnamed(OWNER)}};
    struct meta_template wanted = {.run = run, .path = "/new", .files = twice, .count = 2, .now = FRAME_NOW};
    CHECK_EQUAL(-EEXIST, meta_template_put(meta, &wanted, 0));
    const struct meta_template_file outside[] = {{"../config.json", first}};
    wanted.files = outside;
    wanted.count = 1;
    CHECK_EQUAL(-EINVAL, meta_template_put(meta, &wanted, 0));
    CHECK_EQUAL(kept, lent(run, "config.json"));
    CHECK_TEXT("/base", path_of(run));
    CHECK(frame_is_orphan(first));
    CHECK(!frame_is_released(kept));
}

static void test_usage(void)
{
    make_run();
    frame_make_sealed(run, "shard", 3 * SIZE);
    CHECK_EQUAL(0, put(run, "/base", make_unnamed(OWNER), 0));
    struct meta_usage usage;
    const struct meta_usage_request request = {.ino = run, .everybody = true};
    CHECK_EQUAL(0, meta_usage_compute(meta, &request, &usage));
    CHECK_EQUAL(1, usage.files);
    CHECK_EQUAL(1, usage.extents);
    CHECK_EQUAL(3 * SIZE, usage.logical_bytes);
    CHECK_EQUAL(4 * SIZE, usage.stored_bytes);
    CHECK_EQUAL(4 * SIZE, usage.unique_bytes);
    const struct meta_usage_request all = {.ino = META_ROOT_INO, .everybody = true};
    CHECK_EQUAL(0, meta_usage_compute(meta, &all, &usage));
    CHECK_EQUAL(4 * SIZE, usage.unique_bytes);
}

/* -- the check --------------------------------------------------------------------------------------------
 */

static const char *check_and_mend(uint64_t object)
{
    const struct meta_object_file files[] = {{.object = object, .size = SIZE, .mtime = FRAME_NOW}};
    return frame_check_and_mend(files, 1);
}

static void test_check(void)
{
    make_run();
    uint64_t config = make_unnamed(OWNER);
    uint64_t object = frame_object_of(config);
    CHECK_EQUAL(0, put(run, "/base", config, 0));
    CHECK_TEXT("", check_and_mend(object)); /* nothing hidden counts as lost */
    CHECK_EQUAL(config, lent(run, "config.json"));
    frame_break_by("UPDATE inode SET nlink = 7 WHERE ino = %llu", config);
    CHECK_TEXT("nlink ", check_and_mend(object));
    frame_break_by("INSERT INTO template (directory, hidden) VALUES (778, %llu)", 779);
    CHECK_TEXT("template-directory ", check_and_mend(object));
    CHECK_EQUAL(config, lent(run, "config.json"));
    frame_break_by("INSERT INTO name (parent, name, cookie, ino) VALUES (0, x'61', 900, %llu)", config);
    CHECK_TEXT("name-hidden ", check_and_mend(object));
}

/* The run's row is lost: its template is not thrown away. */
static void test_check_of_a_lost_run(void)
{
    make_run();
    uint64_t config = make_unnamed(OWNER);
    CHECK_EQUAL(0, put(run, "/base", config, 0));
    uint64_t hidden = lent(run, "config.json") ? found.hidden : 0;
    frame_break_by("DELETE FROM inode WHERE ino = %llu", run);
    CHECK_TEXT("policy-directory name-inode template-directory template-lost directory-lost nlink nlink ",
               check_and_mend(frame_object_of(config)));
    char name[24];
    snprintf(name, sizeof name, "%llu", (unsigned long long)hidden);
    uint64_t lost = frame_find(META_ROOT_INO, META_LOST_AND_FOUND);
    CHECK_EQUAL(hidden, frame_find(lost, name));
    CHECK_EQUAL(config, frame_find(hidden, "config.json"));
}

int main(void)
{
    frame_run("a run has a template, in a directory that no path leads to", test_put);
    frame_run("another one takes its place, and it can be taken away", test_replaced_and_removed);
    frame_run("the nearest one counts", test_nearest);
    frame_run("it goes with the run", test_goes_with_the_run);
    frame_run("what cannot be a part of it is refused", test_refused);
    frame_run("it is counted as the run's", test_usage);
    frame_run("the check knows what is hidden, and mends it", test_check);
    frame_run("the check keeps the template of what is lost", test_check_of_a_lost_run);
    return check_done();
}
