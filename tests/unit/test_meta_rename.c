/* SPDX-License-Identifier: Apache-2.0 */
/* Renames, and the shadows that they leave. */
#include <errno.h>
#include <linux/fs.h>

#include "test_meta_frame.h"

/* -- the table of types -----------------------------------------------------------------------------------
 */

enum thing { NOTHING, FILE_THING, LINK_THING, EMPTY_DIRECTORY, FULL_DIRECTORY, THINGS };

static uint64_t thing_make(enum thing thing, uint64_t parent, const char *name)
{
    struct meta_new link = {.parent = parent,
                            .name = name,
                            .length = strlen(name),
                            .mode = S_IFLNK | 0777,
                            .target = "t",
                            .target_length = 1,
                            .now = FRAME_NOW};
    struct meta_inode inode;
    uint64_t ino = 0;
    switch (thing) {
    case FILE_THING: return frame_make_sealed(parent, name, 10);
    case LINK_THING: CHECK_EQUAL(0, meta_create(meta, &link, 0, &inode)); return inode.ino;
    case EMPTY_DIRECTORY: return frame_make(parent, name, S_IFDIR | 0755);
    case FULL_DIRECTORY:
        ino = frame_make(parent, name, S_IFDIR | 0755);
        frame_make(ino, "inside", S_IFREG);
        return ino;
    default: return 0;
    }
}

static errint thing_expect(enum thing from, enum thing to, unsigned flags)
{
    bool from_directory = from >= EMPTY_DIRECTORY, to_directory = to >= EMPTY_DIRECTORY;
    if (from == NOTHING)
        return -ENOENT;
    if (flags & RENAME_EXCHANGE)
        return to == NOTHING ? -ENOENT : 0;
    if (to == NOTHING)
        return 0;
    if (flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (from_directory != to_directory)
        return from_directory ? -ENOTDIR : -EISDIR;
    return to == FULL_DIRECTORY ? -ENOTEMPTY : 0;
}

static void thing_try(enum thing from, enum thing to, unsigned flags, bool across)
{
    static int number;
    char directory[2][16];
    uint64_t parent[2];
    for (int i = 0; i < 2; i++) {
        snprintf(directory[i], sizeof directory[i], "%d", number++);
        parent[i] = frame_make(1, directory[i], S_IFDIR | 0755);
    }
    uint64_t target = parent[across];
    uint64_t moved = thing_make(from, parent[0], "a"), replaced = thing_make(to, target, "b");
    struct meta_inode before = {0}, after;
    if (replaced)
        before = frame_get(replaced);
    errint expected = thing_expect(from, to, flags);
    cleanup_ids struct ids freed = {0};
    unsigned failures = check_failures;
    CHECK_EQUAL(expected, frame_rename(parent[0], "a", target, "b", flags, &freed));
    if (expected) {
        CHECK_EQUAL(moved, frame_find(parent[0], "a"));
        CHECK_EQUAL(replaced, frame_find(target, "b"));
        CHECK_EQUAL(FRAME_NOW, frame_get(target).mtime);
    } else {
        CHECK_EQUAL(moved, frame_find(target, "b"));
        CHECK_EQUAL(flags & RENAME_EXCHANGE ? replaced : 0, frame_find(parent[0], "a"));
        CHECK_EQUAL(FRAME_NOW + 2, frame_get(moved).ctime);
        CHECK_EQUAL(FRAME_NOW + 2, frame_get(parent[0]).mtime);
        CHECK_EQUAL(FRAME_NOW + 2, frame_get(target).mtime);
        bool gone = replaced && !(flags & RENAME_EXCHANGE);
        CHECK(!gone || meta_get(meta, replaced, &after) == -ENOENT);
        CHECK_EQUAL(gone && before.kind == META_EXTENTS ? 1 : 0, freed.count);
    }
    if (check_failures != failures)
        printf("# from type %d to type %d, flags %u, %s\n", (int)from, (int)to, flags,
               across ? "across" : "in one directory");
}

static void test_types(void)
{
    static const unsigned flags[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    for (int from = NOTHING; from < THINGS; from++) {
        for (int to = NOTHING; to < THINGS; to++) {
            for (int i = 0; i < 3; i++) {
                thing_try((enum thing)from, (enum thing)to, flags[i], false);
                thing_try((enum thing)from, (enum thing)to, flags[i], true);
            }
        }
    }
}

/* -- the rest of Linux's rules ----------------------------------------------------------------------------
 */

static void test_refused(void)
{
    uint64_t f = frame_make(1, "f", S_IFREG), g = frame_make(1, "g", S_IFREG);
    struct meta_rename rename = {.parent = 1,
                                 .name = "f",
                                 .length = 1,
                                 .new_parent = 1,
                                 .new_name = "g",
                                 .new_length = 1,
                                 .expected = f,
                                 .replaced = g,
                                 .now = FRAME_NOW};
    struct meta_rename other = rename;
    other.expected = g;
    CHECK_EQUAL(-ESTALE, meta_rename(meta, &other, 0, NULL));
    other = rename;
    other.replaced = 0;
    CHECK_EQUAL(-ESTALE, meta_rename(meta, &other, 0, NULL));
    other.replaced = f;
    CHECK_EQUAL(-ESTALE, meta_rename(meta, &other, 0, NULL));
    other = rename;
    other.new_name = "h";
    CHECK_EQUAL(-ESTALE, meta_rename(meta, &other, 0, NULL));
    other = rename;
    other.flags = RENAME_NOREPLACE | RENAME_EXCHANGE;
    CHECK_EQUAL(-EINVAL, meta_rename(meta, &other, 0, NULL));
    other.flags = RENAME_WHITEOUT;
    CHECK_EQUAL(-EINVAL, meta_rename(meta, &other, 0, NULL));
    other = rename;
    other.new_name = "..";
    other.new_length = 2;
    CHECK_EQUAL(-EINVAL, meta_rename(meta, &other, 0, NULL));
    other.new_length = 256;
    CHECK_EQUAL(-ENAMETOOLONG, meta_rename(meta, &other, 0, NULL));
    other = rename;
    other.new_parent = f;
    CHECK_EQUAL(-ENOTDIR, meta_rename(meta, &other, 0, NULL));
    other.new_parent = 999999;
    CHECK_EQUAL(-ENOENT, meta_rename(meta, &other, 0, NULL));
    CHECK_EQUAL(f, frame_find(1, "f"));
    CHECK_EQUAL(g, frame_find(1, "g"));
    CHECK_EQUAL(0, meta_rename(meta, &rename, 0, NULL));
}

static void test_below_itself(void)
{
    uint64_t a = frame_make(1, "a", S_IFDIR), b = frame_make(a, "b", S_IFDIR),
             c = frame_make(b, "c", S_IFDIR);
    CHECK_EQUAL(-EINVAL, frame_rename(1, "a", a, "x", 0, NULL));
    CHECK_EQUAL(-EINVAL, frame_rename(1, "a", c, "x", 0, NULL));
    CHECK_EQUAL(-EINVAL, frame_rename(1, "a", b, "c", RENAME_EXCHANGE, NULL));
    CHECK_EQUAL(-EINVAL, frame_rename(b, "c", 1, "a", RENAME_EXCHANGE, NULL));
    CHECK_EQUAL(-ENOTEMPTY, frame_rename(b, "c", 1, "a", 0, NULL));
    CHECK_EQUAL(0, frame_rename(b, "c", 1, "c", 0, NULL));
    uint64_t parent;
    CHECK_EQUAL(0, meta_parent(meta, c, &parent));
    CHECK_EQUAL(1, parent);
    CHECK_EQUAL(4, frame_get(1).nlink);
    CHECK_EQUAL(2, frame_get(b).nlink);
    CHECK_EQUAL(0, frame_rename(1, "a", c, "a", 0, NULL));
    CHECK_EQUAL(-EINVAL, frame_rename(1, "c", b, "c", 0, NULL));
}

static void test_one_inode(void)
{
    uint64_t f = frame_make(1, "f", S_IFREG);
    struct meta_inode inode;
    CHECK_EQUAL(0, meta_link(meta, f, 1, "g", 1, FRAME_NOW, 0, &inode));
    uint64_t commits = meta_commit_last(meta);
    CHECK_EQUAL(0, frame_rename(1, "f", 1, "g", 0, NULL));
    CHECK_EQUAL(0, frame_rename(1, "f", 1, "f", 0, NULL));
    CHECK_EQUAL(0, frame_rename(1, "f", 1, "g", RENAME_EXCHANGE, NULL));
    CHECK_EQUAL(commits, meta_commit_last(meta));
    CHECK_EQUAL(f, frame_find(1, "f"));
    CHECK_EQUAL(f, frame_find(1, "g"));
    CHECK_EQUAL(2, frame_get(f).nlink);
    CHECK_EQUAL(FRAME_NOW, frame_get(f).ctime);
    CHECK_EQUAL(-EEXIST, frame_rename(1, "f", 1, "g", RENAME_NOREPLACE, NULL));
}

static void test_over_an_open_file(void)
{
    uint64_t f = frame_make_sealed(1, "f", 5), g = frame_make_sealed(1, "g", 6);
    struct meta_rename rename = {.parent = 1,
                                 .name = "f",
                                 .length = 1,
                                 .new_parent = 1,
                                 .new_name = "g",
                                 .new_length = 1,
                                 .expected = f,
                                 .replaced = g,
                                 .reap = false,
                                 .now = FRAME_NOW + 9};
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_rename(meta, &rename, 0, &freed));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, frame_get(g).nlink);
    CHECK_EQUAL(FRAME_NOW + 9, frame_get(g).ctime);
    CHECK_EQUAL(0, meta_reap(meta, g, &freed));
    CHECK_EQUAL(1, freed.count);
}

/* -- shadows ----------------------------------------------------------------------------------------------
 */

static uint64_t shadow_of(const char *name)
{
    struct shadow shadow;
    META_LOCKED(meta);
    return shadow_find(meta, 1, name, strlen(name), &shadow) == 0 ? shadow.replaced : 0;
}

static bool is_there(uint64_t ino)
{
    struct meta_inode inode;
    return meta_get(meta, ino, &inode) == 0;
}

/* A dirty file of `name`, renamed over `target`. */
static uint64_t replace(const char *name, const char *target)
{
    cleanup_ids struct ids freed = {0};
    uint64_t ino = frame_make_object(1, name);
    CHECK_EQUAL(0, frame_rename(1, name, 1, target, 0, &freed));
    CHECK_EQUAL(ino, frame_find(1, target));
    return ino;
}

static void test_shadow_is_kept_and_let_go(void)
{
    cleanup_ids struct ids list = {0}, freed = {0};
    uint64_t old = frame_make_sealed(1, "model", 10), new = replace(".tmp", "model");
    CHECK_EQUAL(old, shadow_of("model"));
    CHECK_EQUAL(0, frame_get(old).nlink);
    CHECK_EQUAL(0, meta_find_orphans(meta, &list));
    CHECK_EQUAL(0, list.count); /* it is no orphan */
    CHECK_EQUAL(0, meta_reap(meta, old, &freed));
    CHECK(is_there(old)); /* and cannot be reaped */
    frame_reopen();
    CHECK_EQUAL(old, shadow_of("model"));
    CHECK_EQUAL(0, meta_synced(meta, new, 7, false, &list));
    CHECK_EQUAL(1, list.count);
    CHECK(frame_has(&list, old));
    CHECK_EQUAL(META_DIRTY, frame_get(new).state);
    CHECK_EQUAL(7, frame_get(new).synced_size);
    CHECK_EQUAL(0, shadow_of("model"));
    CHECK_EQUAL(0, meta_synced(meta, new, 7, true, &list));
    CHECK_EQUAL(1, list.count);
    CHECK_EQUAL(0, frame_get(new).state);
    CHECK_EQUAL(0, meta_reap(meta, old, &freed));
    CHECK_EQUAL(1, freed.count);
    CHECK(!is_there(old));
    CHECK_EQUAL(-ENOENT, meta_synced(meta, old, 1, true, &list));
    CHECK_EQUAL(0, meta_shadows_released(meta, &list));
    CHECK_EQUAL(1, list.count);
}

static void test_no_shadow_of_a_clean_file(void)
{
    cleanup_ids struct ids freed = {0};
    uint64_t old = frame_make_sealed(1, "model", 10);
    frame_make_sealed(1, "new", 11);
    CHECK_EQUAL(0, frame_rename(1, "new", 1, "model", 0, &freed));
    CHECK_EQUAL(0, shadow_of("model"));
    CHECK(!is_there(old));
    CHECK_EQUAL(1, freed.count);
}

static void test_no_shadow_of_a_symlink(void)
{
    uint64_t link = thing_make(LINK_THING, 1, "latest");
    replace("new", "latest");
    CHECK_EQUAL(0, shadow_of("latest"));
    CHECK(!is_there(link));
}

static void test_chain_keeps_the_first(void)
{
    cleanup_ids struct ids list = {0}, freed = {0};
    uint64_t whole = frame_make_sealed(1, "model", 10);
    uint64_t second = replace("a", "model"), third = replace("b", "model"), fourth = replace("c", "model");
    CHECK_EQUAL(whole, shadow_of("model"));
    CHECK(!is_there(second) && !is_there(third)); /* never synced: nothing to go back to */
    CHECK_EQUAL(0, meta_synced(meta, fourth, 0, true, &list));
    CHECK_EQUAL(1, list.count);
    CHECK(frame_has(&list, whole));
    uint64_t fifth = replace("d", "model");
    CHECK_EQUAL(fourth, shadow_of("model")); /* that one was synced */
    CHECK_EQUAL(0, meta_reap(meta, whole, &freed));
    CHECK_EQUAL(0, meta_synced(meta, fifth, 0, true, &list));
    CHECK(frame_has(&list, fourth));
}

static void test_released_by_other_changes(void)
{
    cleanup_ids struct ids list = {0}, freed = {0};
    uint64_t first = frame_make_sealed(1, "a", 1), second = frame_make_sealed(1, "b", 1),
             third = frame_make_sealed(1, "c", 1), fourth = frame_make_sealed(1, "d", 1);
    replace("x", "a");
    replace("x", "b");
    uint64_t small = replace("x", "c");
    replace("x", "d");
    CHECK_EQUAL(0, frame_unlink(1, "a", true, &freed));
    frame_make_sealed(1, "y", 1);
    CHECK_EQUAL(0, frame_rename(1, "y", 1, "b", 0, &freed)); /* a clean file takes the name */
    CHECK_EQUAL(0, meta_to_inline(meta, small, "bytes", 5, 1, 1, &freed));
    frame_make_sealed(1, "z", 1);
    CHECK_EQUAL(0, frame_rename(1, "d", 1, "z", 0, &freed)); /* the successor replaces another file */
    CHECK_EQUAL(0, meta_shadows_released(meta, &list));
    CHECK_EQUAL(4, list.count);
    CHECK(frame_has(&list, first) && frame_has(&list, second) && frame_has(&list, third) &&
          frame_has(&list, fourth));
    list.count = 0;
    CHECK_EQUAL(0, meta_shadows_released(meta, &list));
    CHECK_EQUAL(0, list.count);
    CHECK_EQUAL(0, meta_find_orphans(meta, &list));
    CHECK_EQUAL(4, list.count);
    for (size_t i = 0; i < list.count; i++)
        CHECK_EQUAL(0, meta_reap(meta, list.at[i], &freed));
    CHECK(!is_there(first) && !is_there(second) && !is_there(third) && !is_there(fourth));
}

static void test_shadow_stays_with_its_name(void)
{
    cleanup_ids struct ids released = {0}, torn = {0}, restored = {0}, freed = {0};
    uint64_t old = frame_make_sealed(1, "model", 10), new = replace("tmp", "model");
    CHECK_EQUAL(0, frame_rename(1, "model", 1, "moved", 0, &freed));
    CHECK_EQUAL(0, shadow_of("model"));
    CHECK_EQUAL(0, shadow_of("moved"));
    CHECK_EQUAL(0, meta_shadows_released(meta, &released));
    CHECK_EQUAL(1, released.count);
    CHECK(frame_has(&released, old));
    CHECK_EQUAL(0, ids_append(&torn, new));
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(new, frame_find(1, "moved"));
    CHECK_EQUAL(0, restored.count);
}

static void test_exchange_keeps_no_shadow(void)
{
    cleanup_ids struct ids released = {0}, torn = {0}, restored = {0}, freed = {0};
    uint64_t old = frame_make_sealed(1, "model", 10), other = frame_make_sealed(1, "other", 10);
    uint64_t older = frame_make_sealed(1, "third", 10);
    uint64_t new = replace("tmp", "model"), newer = replace("tmp", "third");
    CHECK_EQUAL(0, frame_rename(1, "model", 1, "other", RENAME_EXCHANGE, &freed));
    CHECK_EQUAL(0, frame_rename(1, "model", 1, "third", RENAME_EXCHANGE, &freed));
    CHECK_EQUAL(0, shadow_of("model"));
    CHECK_EQUAL(0, shadow_of("other"));
    CHECK_EQUAL(0, shadow_of("third"));
    CHECK_EQUAL(0, meta_shadows_released(meta, &released));
    CHECK_EQUAL(2, released.count);
    CHECK(frame_has(&released, old) && frame_has(&released, older));
    CHECK_EQUAL(0, ids_append(&torn, new));
    CHECK_EQUAL(0, ids_append(&torn, newer));
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(new, frame_find(1, "other"));
    CHECK_EQUAL(newer, frame_find(1, "model"));
    CHECK_EQUAL(other, frame_find(1, "third"));
}

static void test_shadow_with_another_name(void)
{
    cleanup_ids struct ids list = {0}, freed = {0};
    struct meta_inode inode;
    uint64_t old = frame_make_sealed(1, "model", 10);
    CHECK_EQUAL(0, meta_link(meta, old, 1, "best", 4, FRAME_NOW, 0, &inode));
    uint64_t new = replace("tmp", "model");
    CHECK_EQUAL(old, shadow_of("model"));
    CHECK_EQUAL(1, frame_get(old).nlink);
    CHECK_EQUAL(0, frame_unlink(1, "best", true, &freed));
    CHECK(is_there(old)); /* a shadow still */
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, meta_synced(meta, new, 1, true, &list));
    CHECK(frame_has(&list, old));
    CHECK_EQUAL(0, meta_reap(meta, old, &freed));
    CHECK_EQUAL(1, freed.count);
}

static void test_restore(void)
{
    cleanup_ids struct ids torn = {0}, restored = {0}, freed = {0};
    uint64_t first = frame_make_sealed(1, "a", 10), second = frame_make_sealed(1, "b", 10);
    uint64_t lost = replace("x", "a"), kept = replace("x", "b");
    uint64_t object = frame_get(lost).object;
    struct meta_inode linked;
    CHECK_EQUAL(0, meta_tear(meta, lost, 3, &freed));
    CHECK_EQUAL(0, ids_append(&torn, lost));
    CHECK_EQUAL(0, ids_append(&torn, 999999));
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(1, restored.count);
    CHECK(frame_has(&restored, first));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(first, frame_find(1, "a"));
    CHECK_EQUAL(1, frame_get(first).nlink);
    CHECK(!is_there(lost));
    CHECK_EQUAL(kept, frame_find(1, "b"));
    CHECK_EQUAL(second, shadow_of("b")); /* the others stay */
    /* A torn inode that has another name keeps that one. */
    CHECK_EQUAL(0, meta_link(meta, kept, 1, "c", 1, FRAME_NOW, 0, &linked));
    torn.count = restored.count = 0;
    CHECK_EQUAL(0, ids_append(&torn, kept));
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(second, frame_find(1, "b"));
    CHECK_EQUAL(kept, frame_find(1, "c"));
    CHECK_EQUAL(1, frame_get(kept).nlink);
}

/* a and b: old files; x replaces a, and x's own name before was b. Both torn: each old file is back. */
static void test_restore_a_shadow_that_is_torn(void)
{
    cleanup_ids struct ids torn = {0}, restored = {0}, freed = {0};
    uint64_t whole = frame_make_sealed(1, "a", 10), first = replace("x", "a");
    struct meta_inode inode;
    CHECK_EQUAL(0, meta_link(meta, first, 1, "b", 1, FRAME_NOW, 0, &inode));
    uint64_t second = replace("x", "b"); /* b's shadow is `first`, which is a's unsynced successor */
    CHECK_EQUAL(first, shadow_of("b"));
    CHECK_EQUAL(0, ids_append(&torn, first));
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(whole, frame_find(1, "a"));
    CHECK(is_there(first)); /* no name, but a shadow */
    CHECK_EQUAL(0, frame_get(first).nlink);
    torn.at[0] = second;
    CHECK_EQUAL(0, meta_restore_shadows(meta, &torn, &restored, &freed));
    CHECK_EQUAL(first, frame_find(1, "b"));
    CHECK(!is_there(second));
}

int main(void)
{
    frame_run("every type over every type, with every flag", test_types);
    frame_run("what is refused", test_refused);
    frame_run("a directory does not go below itself", test_below_itself);
    frame_run("nothing happens between two names of one inode", test_one_inode);
    frame_run("over a file that is open", test_over_an_open_file);
    frame_run("an unsynced file keeps what it replaced until it is synced", test_shadow_is_kept_and_let_go);
    frame_run("a synced file keeps nothing", test_no_shadow_of_a_clean_file);
    frame_run("symlinks are not kept", test_no_shadow_of_a_symlink);
    frame_run("a chain of replacements keeps the first, which is whole", test_chain_keeps_the_first);
    frame_run("other changes let shadows go and tell", test_released_by_other_changes);
    frame_run("a shadow does not follow its successor to another name", test_shadow_stays_with_its_name);
    frame_run("an exchange of names keeps no shadow", test_exchange_keeps_no_shadow);
    frame_run("a shadow may have other names", test_shadow_with_another_name);
    frame_run("after a power cut names go back to their shadows", test_restore);
    frame_run("a torn shadow is still a shadow", test_restore_a_shadow_that_is_torn);
    return check_done();
}
