/* SPDX-License-Identifier: Apache-2.0 */
/* The check of the namespace: each thing that must agree is broken, found, mended where it can be, and not
 * found again. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "meta/check.h"
#include "meta/sharing.h"
#include "test_meta_frame.h"

enum { TREE_FILE_SIZE = 100000, TREE_FILES_MAX = 16, FOUND_MAX = 4096 };

/* What the object files of the running test are said to be. */
static struct meta_object_file files[TREE_FILES_MAX];
static size_t file_count;
/* "code " of each finding. */
static char found[FOUND_MAX];

static struct tree {
    uint64_t directory, inner, sealed, inside, written, link, shadowed;
    uint64_t sealed_object, written_object;
} tree;

/* -- a tree with one of everything ------------------------------------------------------------------------
 */

static void tree_note_file(uint64_t object, int64_t size)
{
    files[file_count++] = (struct meta_object_file){.object = object, .size = size, .mtime = FRAME_NOW};
}

static uint64_t tree_object_of(uint64_t ino)
{
    struct meta_extent *extents;
    size_t count;
    CHECK_EQUAL(0, meta_extents(meta, ino, &extents, &count));
    uint64_t object = count ? extents[0].object : frame_get(ino).object;
    free(extents);
    return object;
}

static void tree_make(void)
{
    struct meta_inode inode;
    struct ids freed = {0};
    file_count = 0;
    tree.directory = frame_make(META_ROOT_INO, "directory", S_IFDIR | 0755);
    tree.inner = frame_make(tree.directory, "inner", S_IFDIR | 0755);
    frame_make(tree.inner, "deep", S_IFDIR | 0755);
    tree.sealed = frame_make_sealed(tree.inner, "sealed", TREE_FILE_SIZE);
    tree.sealed_object = tree_object_of(tree.sealed);
    tree_note_file(tree.sealed_object, TREE_FILE_SIZE);
    CHECK_EQUAL(0, meta_link(meta, tree.sealed, META_ROOT_INO, "linked", 6, FRAME_NOW, 0, &inode));
    CHECK_EQUAL(0, meta_xattr_set(meta, tree.sealed, "user.a", "b", 1, 0, FRAME_NOW, 0));
    const uint8_t root[META_ROOT_BYTES] = {1};
    const struct meta_segment segment = {.length = TREE_FILE_SIZE, .low = 1, .high = 2};
    CHECK_EQUAL(0, meta_object_summed(meta, tree.sealed_object, root, 0, &segment, 1));
    tree.inside = frame_make_object(META_ROOT_INO, "inside");
    CHECK_EQUAL(0, meta_to_inline(meta, tree.inside, "bytes", 5, FRAME_NOW, FRAME_NOW, &freed));
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
    tree.written = frame_make_object(META_ROOT_INO, "written");
    tree.written_object = frame_get(tree.written).object;
    tree_note_file(tree.written_object, 5000);
    /* One that was replaced by a file which is not synced yet. */
    tree.shadowed = frame_make_sealed(META_ROOT_INO, "shadowed", 10);
    tree_note_file(tree_object_of(tree.shadowed), 10);
    uint64_t successor = frame_make_object(META_ROOT_INO, "successor");
    tree_note_file(frame_get(successor).object, 10);
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, "successor", META_ROOT_INO, "shadowed", 0, &freed));
    CHECK_EQUAL(1, (int64_t)meta->known.shadows);
    ids_release(&freed);
}

/* -- checking ---------------------------------------------------------------------------------------------
 */

static void tree_note_finding(void *context, const struct meta_finding *finding)
{
    (void)context;
    size_t length = strlen(found);
    snprintf(found + length, sizeof found - length, "%s ", finding->code);
    CHECK(strchr(finding->text, '$') == NULL);
}

static struct meta_check_result tree_check(bool mend, bool adopt)
{
    struct meta_check_result result = {0};
    const struct meta_check_request request = {.files = files,
                                               .file_count = file_count,
                                               .mend = mend,
                                               .rebuild = adopt,
                                               .now = FRAME_NOW,
                                               .finding = tree_note_finding};
    found[0] = '\0';
    CHECK_EQUAL(0, meta_check(meta, &request, &result));
    return result;
}

static void tree_break(const char *statement)
{
    CHECK_EQUAL(0, db_execute(meta->db, statement));
}

/* Broken by `statement`, with $N put in: the findings' codes are `expected`. */
static void tree_mend(const char *statement, const char *expected)
{
    tree_break(statement);
    struct meta_check_result before = tree_check(false, false);
    if (strcmp(expected, found) != 0)
        printf("# %s\n", statement);
    CHECK_TEXT(expected, found);
    CHECK(before.mended > 0);
    CHECK_EQUAL(0, before.left);
    struct meta_check_result mended = tree_check(true, false);
    CHECK_TEXT(expected, found);
    CHECK_EQUAL(before.mended, mended.mended);
    tree_check(false, false);
    CHECK_TEXT("", found);
    CHECK(frame_is_consistent(meta));
}

/* What is told and left: the tables stay as they are, until the test itself puts them right. */
static void tree_leave(const char *statement, const char *expected, const char *back)
{
    tree_break(statement);
    struct meta_check_result result = tree_check(true, false);
    if (strcmp(expected, found) != 0)
        printf("# %s\n", statement);
    CHECK_TEXT(expected, found);
    CHECK(result.left > 0);
    CHECK_EQUAL(0, result.mended);
    tree_break(back);
    tree_check(false, false);
    CHECK_TEXT("", found);
}

/* The same statement text would be taken for a cached one: these are run uncached. */
static const char *with(const char *format, uint64_t a, uint64_t b)
{
    static char text[2][512];
    static int which;
    which = !which;
    snprintf(text[which], sizeof text[which], format, (unsigned long long)a, (unsigned long long)b);
    return text[which];
}

static uint64_t lost_and_found(const char *name)
{
    uint64_t directory = frame_find(META_ROOT_INO, META_LOST_AND_FOUND);
    return directory ? frame_find(directory, name) : 0;
}

static const char *number(uint64_t ino)
{
    static char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)ino);
    return text;
}

/* -- the tests --------------------------------------------------------------------------------------------
 */

static void test_clean(void)
{
    tree_check(false, false);
    CHECK_TEXT("", found);
    tree_make();
    struct meta_check_result result = tree_check(false, false);
    CHECK_TEXT("", found);
    CHECK(result.totals.inodes > 5);
    tree_check(true, true);
    CHECK_TEXT("", found);
    CHECK_EQUAL(0, lost_and_found("1"));
}

static void test_links(void)
{
    tree_make();
    tree_mend(with("UPDATE inode SET nlink = 7 WHERE ino = %llu", tree.sealed, 0), "nlink ");
    CHECK_EQUAL(2, frame_get(tree.sealed).nlink);
    tree_mend(with("UPDATE inode SET nlink = 9 WHERE ino = %llu", tree.directory, 0), "nlink ");
    CHECK_EQUAL(3, frame_get(tree.directory).nlink);
    tree_mend("UPDATE inode SET nlink = 2 WHERE ino = 1", "nlink ");
    CHECK_EQUAL(3, frame_get(META_ROOT_INO).nlink);
}

static void test_names(void)
{
    tree_make();
    tree_mend("INSERT INTO name VALUES (1, x'61', 900, 12345)", "name-inode ");
    tree_mend(with("INSERT INTO name VALUES (54321, x'61', 900, %llu)", tree.sealed, 0), "name-directory ");
    tree_mend(with("INSERT INTO name VALUES (%llu, x'61', 900, %llu)", tree.inside, tree.sealed),
              "name-directory ");
    tree_mend(with("INSERT INTO name VALUES (%llu, x'61', 900, 1)", tree.directory, 0), "name-root ");
    /* The older name stays. */
    tree_mend(with("INSERT INTO name VALUES (1, x'61', 900, %llu)", tree.inner, 0),
              "counter directory-names ");
    CHECK_EQUAL(tree.inner, frame_find(tree.directory, "inner"));
    tree_leave("INSERT INTO name SELECT 1, x'2e', 901, ino FROM inode WHERE ino = 0;"
               "UPDATE name SET name = x'612f62' WHERE name = cast('inside' AS BLOB)",
               "name-bytes ", "UPDATE name SET name = cast('inside' AS BLOB) WHERE name = x'612f62'");
}

static void test_directories(void)
{
    tree_make();
    /* Without a name. */
    tree_mend(with("DELETE FROM name WHERE ino = %llu", tree.inner, 0), "directory-lost nlink ");
    CHECK_EQUAL(tree.inner, lost_and_found(number(tree.inner)));
    CHECK_EQUAL(tree.sealed, frame_find(tree.inner, "sealed"));
    /* Below itself, with what is in it. */
    uint64_t deep = frame_find(tree.inner, "deep");
    tree_mend(with("UPDATE name SET parent = %llu WHERE ino = %llu", deep, tree.inner),
              "directory-lost nlink ");
    CHECK_EQUAL(2, (int64_t)(lost_and_found(number(tree.inner)) == tree.inner) +
                       (int64_t)(frame_find(tree.inner, "deep") == deep));
    CHECK_EQUAL(tree.sealed, frame_find(tree.inner, "sealed"));
    /* A file has the name that is wanted. */
    uint64_t directory = frame_find(META_ROOT_INO, META_LOST_AND_FOUND);
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, META_LOST_AND_FOUND, META_ROOT_INO, "other", 0, NULL));
    frame_make(META_ROOT_INO, META_LOST_AND_FOUND, S_IFREG | 0600);
    tree_mend(with("DELETE FROM name WHERE ino = %llu", directory, 0), "directory-lost nlink ");
    CHECK_EQUAL(directory,
                frame_find(frame_find(META_ROOT_INO, META_LOST_AND_FOUND ".1"), number(directory)));
}

static void test_nameless(void)
{
    tree_make();
    tree_mend("DELETE FROM name WHERE name = cast('inside' AS BLOB)", "inode-nameless ");
    CHECK_EQUAL(tree.inside, lost_and_found(number(tree.inside)));
    char bytes[8];
    CHECK_EQUAL(5, meta_content_read(meta, tree.inside, bytes, sizeof bytes));
    /* One that was deleted while it was open is no error. */
    struct ids freed = {0};
    CHECK_EQUAL(0, frame_unlink(META_ROOT_INO, "written", false, &freed));
    struct meta_check_result result = tree_check(true, false);
    CHECK_TEXT("orphan ", found);
    CHECK_EQUAL(1, result.notes);
    CHECK_EQUAL(0, result.mended + result.left);
    ids_release(&freed);
}

static void test_root(void)
{
    tree_make();
    tree_mend("DELETE FROM inode WHERE ino = 1", "root nlink ");
    CHECK_EQUAL(tree.inside, frame_find(META_ROOT_INO, "inside"));
}

static void test_lost_inodes(void)
{
    tree_make();
    /* It gets its names back, since they are still there. */
    tree_mend(with("DELETE FROM inode WHERE ino = %llu", tree.sealed, 0), "inode-lost ");
    struct meta_inode inode = frame_get(tree.sealed);
    CHECK_EQUAL(TREE_FILE_SIZE, inode.size);
    CHECK_EQUAL(2, inode.nlink);
    CHECK_EQUAL(META_TORN, inode.state);
    tree_mend(with("DELETE FROM inode WHERE ino = %llu; DELETE FROM name WHERE ino = %llu", tree.inside,
                   tree.inside),
              "inode-lost inode-nameless ");
    CHECK_EQUAL(5, frame_get(tree.inside).size);
    CHECK_EQUAL(tree.inside, lost_and_found(number(tree.inside)));
    /* A file that was being written: nothing but its object is left. */
    tree_mend(with("DELETE FROM inode WHERE ino = %llu", tree.written, 0),
              "name-inode object-owner object-lost ");
    char name[40];
    snprintf(name, sizeof name, "object-%016llx", (unsigned long long)tree.written_object);
    CHECK_EQUAL(5000, frame_get(lost_and_found(name)).size);
}

static void test_rows_of_missing(void)
{
    tree_make();
    tree_mend("INSERT INTO xattr VALUES (777, x'61', x'62')", "xattr-inode ");
    tree_mend("INSERT INTO content VALUES (-5, x'62')", "content-inode ");
    tree_mend("INSERT INTO summed VALUES (777, x'00', 0)", "summed-object ");
    tree_mend("INSERT INTO segment VALUES (777, 0, 1, 2, 3, 0)", "segment-object ");
    tree_mend("INSERT INTO shrunk VALUES (777)", "shrunk-object ");
    tree_mend("INSERT INTO extent VALUES (-7, 0, 10, 3, 0)", "extent-inode ");
    tree_mend(with("UPDATE shadow SET replaced = 776 WHERE replaced = %llu;"
                   "UPDATE inode SET nlink = 1 WHERE ino = %llu",
                   tree.shadowed, tree.shadowed),
              "shadow-inode inode-nameless ");
}

static void test_shadow_of_another(void)
{
    tree_make();
    tree_mend("UPDATE shadow SET successor = 1", "shadow-name inode-nameless ");
    CHECK_EQUAL(tree.shadowed, lost_and_found(number(tree.shadowed)));
}

static void test_objects(void)
{
    tree_make();
    tree_mend(with("DELETE FROM object WHERE id = %llu; DELETE FROM summed; DELETE FROM segment",
                   tree.sealed_object, 0),
              "object-row ");
    tree_mend(with("DELETE FROM object WHERE id = %llu", tree.written_object, 0), "object-row ");
    tree_mend(with("UPDATE object SET owner = 5 WHERE id = %llu", tree.written_object, 0), "object-owner ");
    tree_mend(with("UPDATE object SET owner = 5 WHERE id = %llu", tree.sealed_object, 0), "object-owner ");
    tree_mend(with("UPDATE object SET size = 5 WHERE id = %llu", tree.sealed_object, 0), "object-size ");
    tree_mend(with("INSERT INTO extent VALUES (%llu, 100001, 0, %llu, 0)", tree.sealed, tree.sealed_object),
              "extent-length ");
    tree_mend("INSERT INTO content SELECT ino, x'00' FROM name WHERE name = cast('linked' AS BLOB)",
              "content-old ");
}

static void test_left(void)
{
    tree_make();
    struct meta_object_file *sealed = &files[0];
    CHECK_EQUAL(tree.sealed_object, sealed->object);
    sealed->size = 10;
    struct meta_check_result result = tree_check(true, false);
    CHECK_TEXT("extent-short ", found);
    CHECK_EQUAL(1, result.left);
    CHECK_EQUAL(0, result.mended);
}

static void test_left_rows(void)
{
    tree_make();
    tree_leave(with("DELETE FROM content WHERE ino = %llu", tree.inside, 0), "content-missing ",
               with("INSERT INTO content VALUES (%llu, x'6162')", tree.inside, 0));
    tree_leave(with("UPDATE inode SET size = 1 WHERE ino = %llu", tree.inside, 0), "content-size ",
               with("UPDATE inode SET size = 5 WHERE ino = %llu", tree.inside, 0));
    tree_leave(with("UPDATE inode SET size = 1 WHERE ino = %llu", tree.sealed, 0), "extent-size ",
               with("UPDATE inode SET size = 100000 WHERE ino = %llu", tree.sealed, 0));
    tree_leave(with("INSERT INTO extent VALUES (%llu, 50, 10, %llu, 0)", tree.sealed, tree.sealed_object),
               "extent-overlap ", "DELETE FROM extent WHERE file_offset = 50");
    tree_leave(with("INSERT INTO extent VALUES (%llu, -50, 10, %llu, 0)", tree.sealed, tree.sealed_object),
               "extent-offset ", "DELETE FROM extent WHERE file_offset = -50");
    tree_leave(with("UPDATE inode SET kind = 9 WHERE ino = %llu", tree.sealed, 0), "inode-kind extent-kind ",
               with("UPDATE inode SET kind = 3 WHERE ino = %llu", tree.sealed, 0));
    tree_leave(with("UPDATE inode SET mode = 420 WHERE ino = %llu", tree.inside, 0), "inode-type inode-kind ",
               with("UPDATE inode SET mode = 33188 WHERE ino = %llu", tree.inside, 0));
    tree_leave(with("UPDATE inode SET object = 0 WHERE ino = %llu;"
                    "UPDATE object SET owner = 0 WHERE id = %llu",
                    tree.written, tree.written_object),
               "inode-object object-unneeded ",
               with("UPDATE inode SET object = %llu WHERE ino = %llu;"
                    "UPDATE object SET owner = (SELECT ino FROM inode WHERE object = id)"
                    " WHERE id IN (SELECT object FROM inode)",
                    tree.written_object, tree.written));
}

static void test_missing_files(void)
{
    tree_make();
    file_count = 0;
    struct meta_check_result result = tree_check(true, true);
    CHECK_TEXT("object-missing object-missing extent-missing extent-missing ", found);
    CHECK_EQUAL(4, result.left);
    CHECK_EQUAL(0, result.mended);
}

static void test_strays(void)
{
    tree_make();
    uint64_t stray = meta_object_next(meta) + 5000000;
    tree_note_file(stray, 4096);
    tree_note_file(stray + 1, 0);
    /* Its number must not be given out; itself it is left to the mount. */
    struct meta_check_result result = tree_check(true, false);
    CHECK_TEXT("counter stray stray ", found);
    CHECK_EQUAL(1, result.mended);
    CHECK(meta_object_next(meta) > stray + 1);
    result = tree_check(true, true);
    CHECK_TEXT("stray stray ", found);
    CHECK_EQUAL(1, result.adopted);
    char name[40];
    snprintf(name, sizeof name, "object-%016llx", (unsigned long long)stray);
    struct meta_inode inode = frame_get(lost_and_found(name));
    CHECK_EQUAL(4096, inode.size);
    CHECK_EQUAL(S_IFREG | 0600, inode.mode);
    CHECK_EQUAL(geteuid(), inode.uid);
    frame_reopen();
    tree_check(false, true);
    CHECK_TEXT("stray ", found);
}

static void test_grown(void)
{
    tree_make();
    files[0].size += 50;
    tree_check(true, false);
    CHECK_TEXT("object-long ", found);
    struct meta_check_result result = tree_check(true, true);
    CHECK_TEXT("object-grown ", found);
    CHECK_EQUAL(1, result.mended);
    CHECK_EQUAL(TREE_FILE_SIZE + 50, frame_get(tree.sealed).size);
    CHECK_EQUAL(META_TORN, frame_get(tree.sealed).state);
    tree_check(false, true);
    CHECK_TEXT("", found);
}

/* -- copies -----------------------------------------------------------------------------------------------
 */

static bool stop_at_once(void *context)
{
    ++*(int *)context;
    return true;
}

static void test_backup(void)
{
    tree_make();
    for (int i = 0; i < 2000; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        frame_make(tree.directory, name, S_IFREG | 0644);
    }
    char path[4300];
    snprintf(path, sizeof path, "%s.copy", frame_path);
    int asked = 0;
    CHECK_EQUAL(-ECANCELED, meta_backup(meta, path, stop_at_once, &asked));
    CHECK_EQUAL(1, asked);
    CHECK(access(path, F_OK) != 0);
    CHECK_EQUAL(0, meta_backup(meta, path, NULL, NULL));
    CHECK_EQUAL(0, meta_check_backup(path));
    struct stat status;
    CHECK_EQUAL(0, stat(path, &status));
    CHECK_EQUAL(S_IFREG | 0600, status.st_mode);
    uint64_t later = frame_make(tree.directory, "later", S_IFREG | 0644);
    struct meta *live = meta, *copy;
    CHECK_EQUAL(0, meta_open(path, false, &copy));
    meta = copy;
    CHECK(frame_is_consistent(meta));
    CHECK(frame_find(tree.directory, "file-1999") != 0);
    CHECK_EQUAL(0, frame_find(tree.directory, "later"));
    CHECK_EQUAL(0, meta_close(copy));
    meta = live;
    CHECK_EQUAL(later, frame_find(tree.directory, "later"));
    /* A page in the middle of it. */
    FILE *file = fopen(path, "r+");
    CHECK(file && fseek(file, 20 * 1024, SEEK_SET) == 0);
    for (int i = 0; file && i < 1024; i++)
        fputc(0x5a, file);
    CHECK(file && fclose(file) == 0);
    CHECK(meta_check_backup(path) != 0);
    CHECK_EQUAL(-ENOENT, meta_check_backup("/nowhere/at/all"));
}

int main(void)
{
    frame_run("a tree with one of everything is clean", test_clean);
    frame_run("links are counted", test_links);
    frame_run("names lead to inodes, and lie in directories", test_names);
    frame_run("every directory is reached", test_directories);
    frame_run("what lost its name gets one", test_nameless);
    frame_run("the root is made anew", test_root);
    frame_run("an inode comes back from what is left of it", test_lost_inodes);
    frame_run("rows of what is missing go", test_rows_of_missing);
    frame_run("a shadow that is not its name's", test_shadow_of_another);
    frame_run("objects know their files, and files their objects", test_objects);
    frame_run("an object that is too short is left", test_left);
    frame_run("what has no one right answer is left", test_left_rows);
    frame_run("missing object files are left", test_missing_files);
    frame_run("object files that no row knows", test_strays);
    frame_run("an object that has grown since a backup", test_grown);
    frame_run("a copy of a database in use", test_backup);
    return check_done();
}
