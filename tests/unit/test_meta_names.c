/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes of the namespace: making, finding, listing, linking, removing, extended attributes. */
#include <errno.h>
#include <sys/xattr.h>

#include "test_meta_frame.h"

static errint make(uint64_t parent, const char *name, size_t length, uint32_t mode)
{
    struct meta_new new = {.parent = parent, .name = name, .length = length, .mode = mode, .now = FRAME_NOW};
    struct meta_inode inode;
    return meta_create(meta, &new, 0, &inode);
}

static void test_root(void)
{
    struct meta_inode root = frame_get(META_ROOT_INO);
    CHECK(S_ISDIR(root.mode));
    CHECK_EQUAL(2, root.nlink);
    uint64_t parent = 0;
    CHECK_EQUAL(0, meta_parent(meta, META_ROOT_INO, &parent));
    CHECK_EQUAL(META_ROOT_INO, parent);
}

static void test_create_file(void)
{
    struct meta_new new = {.parent = META_ROOT_INO,
                           .name = "a\xff\n",
                           .length = 3,
                           .mode = S_IFREG | 04751,
                           .uid = 4294967294u,
                           .gid = 7,
                           .now = FRAME_NOW};
    struct meta_inode made, found;
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &made));
    CHECK_EQUAL(0, meta_lookup(meta, META_ROOT_INO, "a\xff\n", 3, &found));
    CHECK_EQUAL(made.ino, found.ino);
    CHECK_EQUAL(S_IFREG | 04751, found.mode);
    CHECK_EQUAL(4294967294u, found.uid);
    CHECK_EQUAL(7, found.gid);
    CHECK_EQUAL(1, found.nlink);
    CHECK_EQUAL(META_NONE, found.kind);
    CHECK_EQUAL(0, found.state);
    CHECK(found.atime == FRAME_NOW && found.mtime == FRAME_NOW && found.ctime == FRAME_NOW &&
          found.btime == FRAME_NOW);
    struct meta_inode root = frame_get(META_ROOT_INO);
    CHECK(root.mtime == FRAME_NOW && root.ctime == FRAME_NOW);
    CHECK_EQUAL(2, root.nlink);
}

static void test_create_object(void)
{
    uint64_t ino = frame_make_object(META_ROOT_INO, "f");
    struct meta_inode inode = frame_get(ino);
    CHECK_EQUAL(META_OBJECT, inode.kind);
    CHECK_EQUAL(META_DIRTY, inode.state);
    CHECK(inode.object != 0);
    CHECK_EQUAL(-1, inode.synced_size);
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(2, totals.inodes);
    CHECK_EQUAL(1, totals.objects);
    CHECK_EQUAL(1, totals.dirty);
}

static void test_create_kinds(void)
{
    static const uint32_t modes[] = {S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char name[2] = {(char)('a' + i), '\0'};
        struct meta_new new = {.parent = 1,
                               .name = name,
                               .length = 1,
                               .mode = modes[i] | 0600,
                               .rdev = 0x12345678,
                               .now = FRAME_NOW};
        struct meta_inode inode;
        CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
        CHECK_EQUAL(modes[i] | 0600, frame_get(inode.ino).mode);
        CHECK_EQUAL(0x12345678, frame_get(inode.ino).rdev);
    }
    CHECK_EQUAL(-EINVAL, make(1, "none", 4, 0644));
    CHECK_EQUAL(-EINVAL, make(1, "link", 4, S_IFLNK | 0777)); /* no target */
    struct meta_new new = {.parent = 1, .name = "d", .length = 1, .mode = S_IFDIR, .object = 1};
    struct meta_inode inode;
    CHECK_EQUAL(-EINVAL, meta_create(meta, &new, 0, &inode)); /* a directory is no object */
}

static void test_create_symlink(void)
{
    char target[4096], found[4096];
    memset(target, 't', sizeof target);
    struct meta_new new = {.parent = 1,
                           .name = "l",
                           .length = 1,
                           .mode = S_IFLNK | 0777,
                           .target = target,
                           .target_length = 4095,
                           .now = FRAME_NOW};
    struct meta_inode inode;
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(META_INLINE, inode.kind);
    CHECK_EQUAL(4095, inode.size);
    CHECK_EQUAL(4095, meta_content_read(meta, inode.ino, found, sizeof found));
    CHECK(memcmp(target, found, 4095) == 0);
    CHECK_EQUAL(10, meta_content_read(meta, inode.ino, found, 10));
    new.name = "m";
    new.target_length = 4096;
    CHECK_EQUAL(-ENAMETOOLONG, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(0, frame_unlink(1, "l", true, NULL));
}

static void test_names_refused(void)
{
    char long_name[257];
    memset(long_name, 'n', sizeof long_name);
    CHECK_EQUAL(0, make(1, long_name, 255, S_IFREG));
    CHECK_EQUAL(-ENAMETOOLONG, make(1, long_name, 256, S_IFREG));
    CHECK_EQUAL(-EEXIST, make(1, long_name, 255, S_IFDIR));
    CHECK_EQUAL(-EINVAL, make(1, "", 0, S_IFREG));
    CHECK_EQUAL(-EINVAL, make(1, ".", 1, S_IFREG));
    CHECK_EQUAL(-EINVAL, make(1, "..", 2, S_IFREG));
    CHECK_EQUAL(-EINVAL, make(1, "a/b", 3, S_IFREG));
    CHECK_EQUAL(-EINVAL, make(1, "a\0b", 3, S_IFREG));
    CHECK_EQUAL(0, make(1, "...", 3, S_IFREG));
    CHECK_EQUAL(0, make(1, ".a", 2, S_IFREG));
    struct meta_inode inode;
    CHECK_EQUAL(-ENAMETOOLONG, meta_lookup(meta, 1, long_name, 256, &inode));
    CHECK_EQUAL(0, meta_lookup(meta, 1, long_name, 255, &inode));
    CHECK_EQUAL(-ENAMETOOLONG, meta_unlink(meta, 1, long_name, 256, 1, true, 1, 0, NULL));
    CHECK_EQUAL(-EINVAL, meta_link(meta, inode.ino, 1, "..", 2, 1, 0, &inode));
}

static void test_parents_refused(void)
{
    uint64_t file = frame_make(1, "f", S_IFREG), gone = frame_make(1, "d", S_IFDIR);
    struct meta_inode inode;
    CHECK_EQUAL(-ENOTDIR, make(file, "x", 1, S_IFREG));
    CHECK_EQUAL(-ENOENT, make(999999, "x", 1, S_IFREG));
    CHECK_EQUAL(-ENOTDIR, meta_lookup(meta, file, "x", 1, &inode));
    CHECK_EQUAL(-ENOENT, meta_lookup(meta, 999999, "x", 1, &inode));
    CHECK_EQUAL(-ENOENT, meta_lookup(meta, 1, "x", 1, &inode));
    CHECK_EQUAL(-ENOENT, meta_get(meta, 999999, &inode));
    CHECK_EQUAL(0, meta_rmdir(meta, 1, "d", 1, gone, false, FRAME_NOW, 0)); /* still open: an orphan */
    CHECK_EQUAL(0, frame_get(gone).nlink);
    CHECK_EQUAL(-ENOENT, make(gone, "x", 1, S_IFREG));
    CHECK_EQUAL(-ENOENT, meta_link(meta, file, gone, "x", 1, 1, 0, &inode));
    CHECK_EQUAL(-ENOENT, meta_lookup(meta, gone, "x", 1, &inode));
    uint64_t parent;
    CHECK_EQUAL(-ENOENT, meta_parent(meta, gone, &parent));
    CHECK_EQUAL(-ENOTDIR, meta_parent(meta, file, &parent));
    CHECK_EQUAL(0, meta_reap(meta, gone, NULL));
    CHECK_EQUAL(-ENOENT, meta_get(meta, gone, &inode));
}

static void test_directories(void)
{
    uint64_t a = frame_make(1, "a", S_IFDIR | 0755), b = frame_make(a, "b", S_IFDIR | 0755), parent;
    CHECK_EQUAL(3, frame_get(1).nlink);
    CHECK_EQUAL(3, frame_get(a).nlink);
    CHECK_EQUAL(2, frame_get(b).nlink);
    CHECK_EQUAL(0, meta_parent(meta, b, &parent));
    CHECK_EQUAL(a, parent);
    CHECK_EQUAL(-ENOTEMPTY, frame_rmdir(1, "a"));
    CHECK_EQUAL(-EISDIR, frame_unlink(a, "b", true, NULL));
    CHECK_EQUAL(-ENOENT, frame_rmdir(1, "no"));
    CHECK_EQUAL(-ESTALE, meta_rmdir(meta, a, "b", 1, a, true, 1, 0));
    CHECK_EQUAL(0, frame_rmdir(a, "b"));
    CHECK_EQUAL(2, frame_get(a).nlink);
    CHECK_EQUAL(FRAME_NOW + 1, frame_get(a).mtime);
    CHECK_EQUAL(0, frame_rmdir(1, "a"));
    CHECK_EQUAL(2, frame_get(1).nlink);
    frame_make(1, "f", S_IFREG);
    CHECK_EQUAL(-ENOTDIR, frame_rmdir(1, "f"));
}

static void test_setgid(void)
{
    struct meta_inode directory = {.mode = 02775, .gid = 55};
    uint64_t d = frame_make(1, "d", S_IFDIR | 0775);
    CHECK_EQUAL(0, meta_set(meta, d, META_SET_MODE | META_SET_GID, &directory, 0, NULL));
    uint64_t file = frame_make(d, "f", S_IFREG | 0644), below = frame_make(d, "e", S_IFDIR | 0755);
    CHECK_EQUAL(55, frame_get(file).gid);
    CHECK_EQUAL(S_IFREG | 0644, frame_get(file).mode);
    CHECK_EQUAL(55, frame_get(below).gid);
    CHECK_EQUAL(S_IFDIR | 02755, frame_get(below).mode);
}

static void test_link_and_unlink(void)
{
    uint64_t d = frame_make(1, "d", S_IFDIR), file = frame_make_sealed(1, "f", 10);
    uint64_t object = (uint64_t)strtoull(strchr(frame_extents(file), ':') + 1, NULL, 10);
    struct meta_inode inode;
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(0, meta_link(meta, file, d, "g", 1, FRAME_NOW + 5, 0, &inode));
    CHECK_EQUAL(2, inode.nlink);
    CHECK_EQUAL(FRAME_NOW + 5, inode.ctime);
    CHECK_EQUAL(FRAME_NOW + 5, frame_get(d).mtime);
    CHECK_EQUAL(FRAME_NOW, inode.mtime);
    CHECK_EQUAL(-EEXIST, meta_link(meta, file, d, "g", 1, 1, 0, &inode));
    CHECK_EQUAL(-EPERM, meta_link(meta, d, 1, "e", 1, 1, 0, &inode));
    CHECK_EQUAL(-ENOENT, meta_link(meta, 999999, 1, "e", 1, 1, 0, &inode));
    CHECK_EQUAL(-ESTALE, meta_unlink(meta, 1, "f", 1, d, true, 1, 0, &freed));
    CHECK_EQUAL(-ENOENT, frame_unlink(1, "none", true, &freed));
    CHECK_EQUAL(0, frame_unlink(1, "f", true, &freed));
    CHECK_EQUAL(1, frame_get(file).nlink);
    CHECK_EQUAL(FRAME_NOW + 1, frame_get(file).ctime);
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, frame_unlink(d, "g", true, &freed));
    CHECK_EQUAL(-ENOENT, meta_get(meta, file, &inode));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
}

static void test_links_are_limited(void)
{
    uint64_t file = frame_make(1, "f", S_IFREG);
    struct meta_inode inode;
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_run(meta->db, "UPDATE inode SET nlink = 65000 WHERE ino = $1", DB_INTEGER(file)));
    }
    CHECK_EQUAL(-EMLINK, meta_link(meta, file, 1, "g", 1, 1, 0, &inode));
    CHECK_EQUAL(0, frame_find(1, "g"));
    META_LOCKED(meta);
    CHECK_EQUAL(0, db_run(meta->db, "UPDATE inode SET nlink = 1 WHERE ino = $1", DB_INTEGER(file)));
}

static void test_unlink_while_open(void)
{
    uint64_t file = frame_make_object(1, "f");
    uint64_t object = frame_get(file).object;
    cleanup_ids struct ids freed = {0}, found = {0};
    CHECK_EQUAL(0, frame_unlink(1, "f", false, &freed));
    CHECK_EQUAL(0, freed.count);
    CHECK_EQUAL(0, frame_get(file).nlink);
    CHECK_EQUAL(0, meta_find_orphans(meta, &found));
    CHECK_EQUAL(1, found.count);
    CHECK(frame_has(&found, file));
    CHECK_EQUAL(0, meta_reap(meta, file, &freed));
    CHECK_EQUAL(1, freed.count);
    CHECK(frame_has(&freed, object));
    CHECK_EQUAL(0, meta_reap(meta, file, &freed)); /* gone already */
    CHECK_EQUAL(1, freed.count);
    found.count = 0;
    CHECK_EQUAL(0, meta_find_unreferenced(meta, &found));
    CHECK_EQUAL(1, found.count); /* the row stays until the object itself is gone */
    CHECK_EQUAL(0, meta_object_forget(meta, &freed));
    found.count = 0;
    CHECK_EQUAL(0, meta_find_objects(meta, &found));
    CHECK_EQUAL(0, found.count);
    uint64_t kept = frame_make(1, "k", S_IFREG);
    CHECK_EQUAL(0, meta_reap(meta, kept, &freed)); /* it has a name: nothing happens */
    CHECK_EQUAL(kept, frame_find(1, "k"));
}

static void test_nameless_file_gets_a_name(void)
{
    struct meta_new new = {.mode = S_IFREG | 0600, .object = meta_object_next(meta), .now = FRAME_NOW};
    struct meta_inode inode, linked;
    CHECK_EQUAL(0, meta_create(meta, &new, 0, &inode));
    CHECK_EQUAL(0, inode.nlink);
    CHECK_EQUAL(0, meta_link(meta, inode.ino, 1, "t", 1, FRAME_NOW + 1, 0, &linked));
    CHECK_EQUAL(1, linked.nlink);
    CHECK_EQUAL(inode.ino, frame_find(1, "t"));
    new.mode = S_IFDIR;
    new.object = 0;
    CHECK_EQUAL(-EINVAL, meta_create(meta, &new, 0, &inode));
}

/* -- listing ----------------------------------------------------------------------------------------------
 */

struct listing {
    char names[64][16];
    uint64_t cookies[64];
    uint64_t inos[64];
    size_t count, limit;
};

static bool listing_add(void *context, const char *name, size_t length, uint64_t cookie,
                        const struct meta_inode *inode)
{
    struct listing *listing = context;
    if (listing->count == listing->limit)
        return false;
    snprintf(listing->names[listing->count], sizeof listing->names[0], "%.*s", (int)length, name);
    listing->inos[listing->count] = inode->ino;
    listing->cookies[listing->count++] = cookie;
    return true;
}

static bool listing_has(const struct listing *listing, const char *name)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (strcmp(listing->names[i], name) == 0)
            return true;
    }
    return false;
}

static void test_list(void)
{
    struct listing listing = {.limit = 64};
    uint64_t d = frame_make(1, "d", S_IFDIR), inos[20];
    CHECK_EQUAL(0, meta_list(meta, d, 0, listing_add, &listing));
    CHECK_EQUAL(0, listing.count);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%02d", 19 - i);
        inos[i] = frame_make(d, name, i % 2 ? S_IFREG : S_IFDIR);
    }
    CHECK_EQUAL(0, meta_list(meta, d, 0, listing_add, &listing));
    CHECK_EQUAL(20, listing.count);
    for (size_t i = 0; i < listing.count; i++) {
        CHECK_EQUAL(inos[i], listing.inos[i]);
        CHECK(listing.cookies[i] > (i ? listing.cookies[i - 1] : META_COOKIE_FIRST - 1));
    }
    CHECK_EQUAL(-ENOTDIR, meta_list(meta, inos[1], 0, listing_add, &listing));
    CHECK_EQUAL(-ENOENT, meta_list(meta, 999999, 0, listing_add, &listing));
    listing.count = 0;
    CHECK_EQUAL(0, meta_list(meta, d, UINT64_MAX, listing_add, &listing));
    CHECK_EQUAL(0, listing.count);
}

/* As a reader of a directory sees it that takes two entries at a time while others work in it. */
static void test_list_while_it_changes(void)
{
    struct listing listing = {.limit = 2};
    uint64_t d = frame_make(1, "d", S_IFDIR);
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        frame_make(d, name, S_IFREG);
    }
    CHECK_EQUAL(0, meta_list(meta, d, 0, listing_add, &listing));
    CHECK_EQUAL(2, listing.count);
    CHECK_EQUAL(0, frame_unlink(d, "f0", true, NULL)); /* behind */
    CHECK_EQUAL(0, frame_unlink(d, "f1", true, NULL)); /* where the reader stands */
    CHECK_EQUAL(0, frame_unlink(d, "f5", true, NULL)); /* ahead */
    frame_make(d, "new", S_IFREG);
    CHECK_EQUAL(0,
                frame_rename(d, "f2", d, "f3", 0, NULL)); /* an entry keeps its place when it is replaced */
    while (listing.limit < 60) {
        listing.limit += 2;
        CHECK_EQUAL(0, meta_list(meta, d, listing.cookies[listing.count - 1], listing_add, &listing));
    }
    CHECK_EQUAL(9, listing.count);
    static const char *const expected[] = {"f0", "f1", "f3", "f4", "f6", "f7", "f8", "f9", "new"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        CHECK(listing_has(&listing, expected[i]));
    uint64_t last = listing.cookies[listing.count - 1];
    CHECK_EQUAL(0, frame_unlink(d, "new", true, NULL));
    frame_make(d, "newer", S_IFREG);
    listing.limit++;
    CHECK_EQUAL(0, meta_list(meta, d, last, listing_add, &listing));
    CHECK_TEXT("newer", listing.names[listing.count - 1]); /* its cookie is not the removed entry's */
}

/* -- attributes -------------------------------------------------------------------------------------------
 */

static void test_set(void)
{
    uint64_t file = frame_make(1, "f", S_IFREG | 0644);
    struct meta_inode values = {.mode = S_IFDIR | 01777,
                                .uid = 1,
                                .gid = 2,
                                .size = 33,
                                .atime = -4,
                                .mtime = 5,
                                .ctime = 6,
                                .state = META_TORN,
                                .synced_size = 8};
    struct meta_inode out;
    CHECK_EQUAL(-ENOENT, meta_set(meta, 999999, META_SET_UID, &values, 0, &out));
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_MODE | META_SET_ATIME, &values, 0, &out));
    CHECK_EQUAL(S_IFREG | 01777, out.mode); /* the type stays */
    CHECK_EQUAL(-4, out.atime);
    CHECK_EQUAL(FRAME_NOW, out.mtime);
    CHECK_EQUAL(1000, out.uid);
    unsigned rest =
        META_SET_UID | META_SET_GID | META_SET_MTIME | META_SET_CTIME | META_SET_STATE | META_SET_SYNCED_SIZE;
    CHECK_EQUAL(0, meta_set(meta, file, rest, &values, 0, NULL));
    out = frame_get(file);
    CHECK(out.uid == 1 && out.gid == 2 && out.mtime == 5 && out.ctime == 6 && out.state == META_TORN &&
          out.synced_size == 8 && out.size == 0);
    uint64_t object = frame_make_object(1, "o");
    CHECK_EQUAL(0, meta_set(meta, object, META_SET_SIZE, &values, 0, &out));
    CHECK_EQUAL(33, out.size);
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(33, totals.logical_bytes);
    CHECK_EQUAL(1, totals.torn);
    cleanup_ids struct ids torn = {0};
    CHECK_EQUAL(0, meta_find_torn(meta, 10, &torn));
    CHECK_EQUAL(1, torn.count);
    CHECK(frame_has(&torn, file));
    torn.count = 0;
    CHECK_EQUAL(0, meta_find_torn(meta, 0, &torn));
    CHECK_EQUAL(0, torn.count);
}

static void test_huge_sizes_are_counted(void)
{
    struct meta_totals totals;
    for (int i = 0; i < 3; i++) {
        char name[2] = {(char)('a' + i), '\0'};
        uint64_t file = frame_make(1, name, S_IFREG);
        CHECK_EQUAL(0, meta_truncate(meta, file, INT64_MAX, FRAME_NOW, 0, NULL));
    }
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(INT64_MAX, totals.logical_bytes);
    frame_reopen();
    CHECK_EQUAL(0, frame_unlink(1, "a", true, NULL));
    CHECK_EQUAL(0, frame_unlink(1, "b", true, NULL));
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(INT64_MAX, totals.logical_bytes);
    CHECK_EQUAL(0, frame_unlink(1, "c", true, NULL));
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(0, totals.logical_bytes);
}

static void test_xattr(void)
{
    uint64_t file = frame_make(1, "f", S_IFREG);
    char value[16], names[64];
    CHECK_EQUAL(-ENODATA, meta_xattr_get(meta, file, "user.a", NULL, 0));
    CHECK_EQUAL(-ENOENT, meta_xattr_get(meta, 999999, "user.a", NULL, 0));
    CHECK_EQUAL(-ENOENT, meta_xattr_list(meta, 999999, NULL, 0));
    CHECK_EQUAL(0, meta_xattr_list(meta, file, NULL, 0));
    CHECK_EQUAL(-ENODATA, meta_xattr_set(meta, file, "user.a", "x", 1, XATTR_REPLACE, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.b", "12345", 5, XATTR_CREATE, FRAME_NOW + 1, 0));
    CHECK_EQUAL(FRAME_NOW + 1, frame_get(file).ctime);
    CHECK_EQUAL(-EEXIST, meta_xattr_set(meta, file, "user.b", "x", 1, XATTR_CREATE, FRAME_NOW, 0));
    CHECK_EQUAL(-EINVAL, meta_xattr_set(meta, file, "user.b", "x", 1, 4, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.a", NULL, 0, 0, FRAME_NOW, 0));
    CHECK_EQUAL(-ENOENT, meta_xattr_set(meta, 999999, "user.a", "x", 1, 0, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_get(meta, file, "user.a", value, sizeof value));
    CHECK_EQUAL(5, meta_xattr_get(meta, file, "user.b", NULL, 0));
    CHECK_EQUAL(-ERANGE, meta_xattr_get(meta, file, "user.b", value, 4));
    CHECK_EQUAL(5, meta_xattr_get(meta, file, "user.b", value, 5));
    CHECK(memcmp(value, "12345", 5) == 0);
    CHECK_EQUAL(14, meta_xattr_list(meta, file, NULL, 0));
    CHECK_EQUAL(-ERANGE, meta_xattr_list(meta, file, names, 13));
    CHECK_EQUAL(14, meta_xattr_list(meta, file, names, 14));
    CHECK(memcmp(names, "user.a\0user.b", 14) == 0);
    CHECK_EQUAL(-ENODATA, meta_xattr_remove(meta, file, "user.c", FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_remove(meta, file, "user.b", FRAME_NOW + 2, 0));
    CHECK_EQUAL(FRAME_NOW + 2, frame_get(file).ctime);
    CHECK_EQUAL(-ENODATA, meta_xattr_get(meta, file, "user.b", NULL, 0));
    CHECK_EQUAL(0, frame_unlink(1, "f", true, NULL)); /* user.a goes with it */
}

static void test_xattr_limits(void)
{
    uint64_t file = frame_make(1, "f", S_IFREG);
    static char value[(64 << 10) + 1];
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    CHECK_EQUAL(-ERANGE, meta_xattr_set(meta, file, name, "x", 1, 0, FRAME_NOW, 0));
    CHECK_EQUAL(-ERANGE, meta_xattr_get(meta, file, name, NULL, 0));
    CHECK_EQUAL(-ERANGE, meta_xattr_remove(meta, file, "", FRAME_NOW, 0));
    name[255] = '\0';
    CHECK_EQUAL(0, meta_xattr_set(meta, file, name, "x", 1, 0, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_remove(meta, file, name, FRAME_NOW, 0));
    CHECK_EQUAL(-E2BIG, meta_xattr_set(meta, file, "user.big", value, sizeof value, 0, FRAME_NOW, 0));
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof name, "user.%d", i);
        CHECK_EQUAL(0, meta_xattr_set(meta, file, name, value, 64 << 10, 0, FRAME_NOW, 0));
    }
    CHECK_EQUAL(-ENOSPC, meta_xattr_set(meta, file, "user.one", "x", 1, 0, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.7", "x", 1, 0, FRAME_NOW, 0));
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.one", "x", 1, 0, FRAME_NOW, 0));
    uint64_t other = frame_make(1, "g", S_IFREG);
    errint error = 0;
    int made = 0;
    for (; !error && made < 1000; made++) {
        snprintf(name, sizeof name, "user.%0250d", made);
        error = meta_xattr_set(meta, other, name, NULL, 0, 0, FRAME_NOW, 0);
    }
    CHECK_EQUAL(-ENOSPC, error); /* as many names as listxattr(2) can return */
    ssize_t length = meta_xattr_list(meta, other, NULL, 0);
    CHECK(length <= 64 << 10 && length > 63 << 10);
}

static void test_path(void)
{
    uint64_t d = frame_make(1, "d", S_IFDIR), e = frame_make(d, "e f", S_IFDIR),
             file = frame_make(e, "g", S_IFREG);
    char *path = NULL;
    CHECK_EQUAL(0, meta_path(meta, file, &path));
    CHECK_TEXT("/d/e f/g", path);
    free(path);
    CHECK_EQUAL(0, meta_path(meta, META_ROOT_INO, &path));
    CHECK_TEXT("/", path);
    free(path);
    CHECK_EQUAL(0, frame_unlink(e, "g", false, NULL));
    CHECK_EQUAL(0, meta_path(meta, file, &path));
    CHECK_TEXT("/?", path);
    free(path);
}

static void test_names_of_an_inode(void)
{
    enum { COUNT = 150, PAGE = 64 };
    uint64_t file = frame_make(1, "0", S_IFREG), directory = frame_make(1, "d", S_IFDIR);
    struct meta_inode inode;
    for (int i = 1; i < COUNT; i++) {
        char name[16];
        int length = snprintf(name, sizeof name, "%d", i);
        CHECK_EQUAL(0, meta_link(meta, file, i % 2 ? directory : 1, name, (size_t)length, 1, 0, &inode));
    }
    struct meta_name names[PAGE], *last = NULL;
    bool seen[COUNT] = {false};
    size_t count, total = 0;
    do {
        CHECK_EQUAL(0, meta_find_names(meta, file, last, names, PAGE, &count));
        for (size_t i = 0; i < count; i++) {
            int number = atoi(names[i].bytes);
            CHECK_EQUAL(names[i].length, strlen(names[i].bytes));
            CHECK_EQUAL(number % 2 ? directory : 1, names[i].parent);
            CHECK(number >= 0 && number < COUNT && !seen[number]);
            seen[number] = true;
        }
        total += count;
        last = &names[PAGE - 1];
    } while (count == PAGE);
    CHECK_EQUAL(COUNT, total);
    CHECK_EQUAL(0, meta_find_names(meta, 999999, NULL, names, PAGE, &count));
    CHECK_EQUAL(0, count);
}

int main(void)
{
    frame_run("a new namespace has a root", test_root);
    frame_run("a file is made as it is asked for", test_create_file);
    frame_run("a file on a new object is dirty", test_create_object);
    frame_run("every type of inode is made, others are refused", test_create_kinds);
    frame_run("symlinks keep their targets", test_create_symlink);
    frame_run("names that cannot be are refused", test_names_refused);
    frame_run("parents that cannot be are refused", test_parents_refused);
    frame_run("directories count their subdirectories", test_directories);
    frame_run("setgid directories hand on their group", test_setgid);
    frame_run("links and unlinks", test_link_and_unlink);
    frame_run("at most 65,000 links", test_links_are_limited);
    frame_run("an unlinked open file stays until it is reaped", test_unlink_while_open);
    frame_run("a file without a name gets one", test_nameless_file_gets_a_name);
    frame_run("directories are listed in the order of cookies", test_list);
    frame_run("a listing goes on while the directory changes", test_list_while_it_changes);
    frame_run("attributes are set one by one", test_set);
    frame_run("sizes whose sum is too great are counted", test_huge_sizes_are_counted);
    frame_run("extended attributes", test_xattr);
    frame_run("extended attributes are limited", test_xattr_limits);
    frame_run("paths are told", test_path);
    frame_run("all names of an inode are found, page by page", test_names_of_an_inode);
    return check_done();
}
