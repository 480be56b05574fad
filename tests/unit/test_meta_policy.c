/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of directories: inherited, kept and gone with their directory, and found wrong by the check. */
#include <errno.h>
#include <string.h>

#include "meta/check.h"
#include "meta/policy.h"
#include "test_meta_frame.h"

static struct meta_policy_found found;

/* The value, or NULL. */
static const char *value_of(uint64_t directory, const char *key)
{
    errint error = meta_policy_find(meta, directory, key, &found);
    CHECK(error == 0 || error == -ENOENT);
    return error ? NULL : found.value;
}

static errint set(uint64_t directory, const char *key, const char *value)
{
    const struct meta_policy_change change = {key, value};
    return meta_policy_change(meta, directory, &change, 1);
}

static void test_inherited(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t below = frame_make(run, "checkpoint", S_IFDIR | 0755);
    CHECK(value_of(below, "color") == NULL);
    CHECK_EQUAL(0, set(META_ROOT_INO, "color", "red"));
    CHECK_TEXT("red", value_of(below, "color"));
    CHECK_EQUAL(2, found.levels);
    CHECK_EQUAL(META_ROOT_INO, found.directory);
    CHECK_EQUAL(0, set(run, "color", "green"));
    CHECK_EQUAL(0, set(run, "color", "blue"));
    CHECK_TEXT("blue", value_of(below, "color"));
    CHECK_EQUAL(1, found.levels);
    CHECK_TEXT("blue", value_of(run, "color"));
    CHECK_EQUAL(0, found.levels);
    CHECK_TEXT("red", value_of(META_ROOT_INO, "color"));
    CHECK(value_of(below, "size") == NULL);
    CHECK_EQUAL(0, set(run, "color", NULL));
    CHECK_EQUAL(0, set(run, "color", NULL));
    CHECK_TEXT("red", value_of(below, "color"));
    frame_reopen();
    CHECK_TEXT("red", value_of(below, "color"));
}

static void test_who_has_set_it(void)
{
    const struct meta_policy_change change = {"color", "red"};
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_policy_change_by(meta, run, &change, 1, 1000, 100));
    CHECK_TEXT("red", value_of(run, "color"));
    CHECK_EQUAL(1000, found.uid);
    CHECK_EQUAL(100, found.gid);
    frame_reopen();
    CHECK_TEXT("red", value_of(run, "color"));
    CHECK_EQUAL(1000, found.uid);
    /* By whom is not known: it is nobody, and not root. */
    CHECK_EQUAL(0, set(run, "color", "blue"));
    CHECK_TEXT("blue", value_of(run, "color"));
    CHECK_EQUAL(UINT32_MAX, found.uid);
    CHECK_EQUAL(UINT32_MAX, found.gid);
}

static void test_all_or_none(void)
{
    char longest[META_POLICY_VALUE_MAX + 1];
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t file = frame_make(run, "file", S_IFREG | 0644);
    memset(longest, 'x', sizeof longest);
    longest[META_POLICY_VALUE_MAX] = '\0';
    const struct meta_policy_change both[] = {{"color", "red"}, {"size", longest}};
    CHECK_EQUAL(-EINVAL, meta_policy_change(meta, run, both, 2));
    CHECK(value_of(run, "color") == NULL);
    longest[META_POLICY_VALUE_MAX - 1] = '\0';
    CHECK_EQUAL(0, meta_policy_change(meta, run, both, 2));
    CHECK_TEXT("red", value_of(run, "color"));
    CHECK_TEXT(longest, value_of(run, "size"));
    CHECK_EQUAL(-EINVAL, set(run, "", "red"));
    CHECK_EQUAL(-EINVAL, set(run, "color", ""));
    CHECK_EQUAL(-EINVAL, set(run, longest, "red"));
    CHECK_EQUAL(-ENOTDIR, set(file, "color", "red"));
    CHECK_EQUAL(-ENOENT, set(file + 1000, "color", "red"));
}

static void test_goes_with_the_directory(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t other = frame_make(META_ROOT_INO, "other", S_IFDIR | 0755);
    CHECK_EQUAL(0, set(run, "color", "red"));
    CHECK_EQUAL(0, set(other, "color", "green"));
    /* A rename keeps what the directory has, and what it inherits is its new place's. */
    uint64_t below = frame_make(run, "checkpoint", S_IFDIR | 0755);
    CHECK_EQUAL(0, frame_rename(run, "checkpoint", other, "moved", 0, NULL));
    CHECK_TEXT("green", value_of(below, "color"));
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, "other", META_ROOT_INO, "else", 0, NULL));
    CHECK_TEXT("green", value_of(other, "color"));
    /* Removed while it is open: nothing is set for it any more. */
    CHECK_EQUAL(0, frame_rmdir(META_ROOT_INO, "run"));
    CHECK(value_of(run, "color") == NULL);
    CHECK_EQUAL(-ENOENT, set(run, "color", "red"));
    /* An empty directory that another replaces. */
    CHECK_EQUAL(0, set(below, "color", "blue"));
    uint64_t next = frame_make(META_ROOT_INO, "next", S_IFDIR | 0755);
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, "next", other, "moved", 0, NULL));
    CHECK(value_of(below, "color") == NULL);
    CHECK_TEXT("green", value_of(next, "color"));
}

/* -- the check and the upgrade ----------------------------------------------------------------------------
 */

static void test_check(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t file = frame_make(META_ROOT_INO, "file", S_IFREG | 0644);
    CHECK_EQUAL(0, set(run, "color", "red"));
    CHECK_TEXT("", frame_mend());
    char text[256];
    snprintf(text, sizeof text,
             "INSERT INTO policy (directory, key, value) VALUES (777, x'61', x'62'), (777, x'62', x'62'),"
             " (%llu, x'61', x'62')",
             (unsigned long long)file);
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_execute(meta->db, text));
    }
    CHECK_TEXT("policy-directory policy-directory ", frame_mend());
    CHECK_TEXT("", frame_mend());
    CHECK_TEXT("red", value_of(run, "color"));
}

static void test_holders(void)
{
    cleanup_ids struct ids holders = {0};
    uint64_t one = frame_make(META_ROOT_INO, "one", S_IFDIR | 0755);
    uint64_t two = frame_make(one, "two", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_policy_holders(meta, "color", "red", &holders));
    CHECK_EQUAL(0, holders.count);
    CHECK_EQUAL(0, set(one, "color", "red"));
    CHECK_EQUAL(0, set(two, "color", "green"));
    CHECK_EQUAL(0, set(two, "size", "red"));
    CHECK_EQUAL(0, meta_policy_holders(meta, "color", "red", &holders));
    CHECK_EQUAL(1, holders.count);
    CHECK(ids_contain(&holders, one));
}

static void test_format_4(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_execute(meta->db, FRAME_DROP_5 " UPDATE format SET version = 4"));
    }
    frame_reopen();
    CHECK_EQUAL(run, frame_find(META_ROOT_INO, "run"));
    CHECK_EQUAL(0, set(run, "color", "red"));
    CHECK_TEXT("red", value_of(run, "color"));
}

int main(void)
{
    frame_run("a value is inherited from the nearest directory that has one", test_inherited);
    frame_run("who has set a value is kept with it", test_who_has_set_it);
    frame_run("what does not fit is refused, and all else with it", test_all_or_none);
    frame_run("it stays with its directory, and goes with it", test_goes_with_the_directory);
    frame_run("the check finds settings of what is no directory", test_check);
    frame_run("who has a value is found", test_holders);
    frame_run("a store of format 4 gets the table", test_format_4);
    return check_done();
}
