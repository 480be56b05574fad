/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of extended attributes. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static void expect_value(const char *path, const char *name, const void *value, size_t length)
{
    char *found = probe_alloc(XATTR_SIZE_MAX);
    CHECK_EQUAL(getxattr(path, name, found, XATTR_SIZE_MAX), length);
    CHECK(memcmp(found, value, length) == 0);
    CHECK_EQUAL(getxattr(path, name, NULL, 0), length);
    free(found);
}

/* Whether the list of a file names this attribute; counts the entries of the user namespace. */
static bool list_contains(const char *path, const char *name, int *user_count)
{
    char *list = probe_alloc(XATTR_LIST_MAX);
    ssize_t length = CHECK_OK(listxattr(path, list, XATTR_LIST_MAX));
    CHECK_EQUAL(listxattr(path, NULL, 0), length);
    bool found = false;
    *user_count = 0;
    for (char *entry = list; entry < list + length; entry += strlen(entry) + 1) {
        found = found || strcmp(entry, name) == 0;
        *user_count += strncmp(entry, "user.", 5) == 0;
    }
    free(list);
    return found;
}

static void xattr_basic(void)
{
    int count;
    probe_file_write("file", "x", 1);
    CHECK_OK(mkdir("directory", 0700));
    static const char *const paths[] = {"file", "directory"};
    for (size_t i = 0; i < 2; i++) {
        const char *path = paths[i];
        CHECK_ERRNO(getxattr(path, "user.none", NULL, 0), ENODATA);
        CHECK(!list_contains(path, "user.none", &count));
        CHECK_EQUAL(count, 0);
        CHECK_OK(setxattr(path, "user.one", "value", 5, 0));
        expect_value(path, "user.one", "value", 5);
        CHECK_OK(setxattr(path, "user.one", "", 0, 0));
        expect_value(path, "user.one", "", 0);
        CHECK_OK(setxattr(path, "user.two", "a\0b\xff", 4, 0));
        expect_value(path, "user.two", "a\0b\xff", 4);
        CHECK(list_contains(path, "user.one", &count));
        CHECK(list_contains(path, "user.two", &count));
        CHECK_EQUAL(count, 2);
        CHECK_OK(removexattr(path, "user.one"));
        CHECK_ERRNO(removexattr(path, "user.one"), ENODATA);
        CHECK_ERRNO(getxattr(path, "user.one", NULL, 0), ENODATA);
        CHECK(list_contains(path, "user.two", &count));
        CHECK_EQUAL(count, 1);
    }
    CHECK_ERRNO(setxattr("missing", "user.one", "x", 1, 0), ENOENT);
}

static void xattr_create_replace(void)
{
    probe_file_write("file", "x", 1);
    CHECK_ERRNO(setxattr("file", "user.one", "1", 1, XATTR_REPLACE), ENODATA);
    CHECK_OK(setxattr("file", "user.one", "1", 1, XATTR_CREATE));
    CHECK_ERRNO(setxattr("file", "user.one", "2", 1, XATTR_CREATE), EEXIST);
    expect_value("file", "user.one", "1", 1);
    CHECK_OK(setxattr("file", "user.one", "33", 2, XATTR_REPLACE));
    expect_value("file", "user.one", "33", 2);
    CHECK_ERRNO(setxattr("file", "user.one", "4", 1, 0x40), EINVAL);
}

static void xattr_limits(void)
{
    probe_file_write("file", "x", 1);
    char name[XATTR_NAME_MAX + 2], small[2];
    memset(name, 'n', sizeof(name));
    memcpy(name, "user.", 5);
    name[XATTR_NAME_MAX + 1] = '\0';
    CHECK_ERRNO(setxattr("file", name, "x", 1, 0), ERANGE);
    CHECK_ERRNO(getxattr("file", name, NULL, 0), ERANGE);
    name[XATTR_NAME_MAX] = '\0';
    CHECK_OK(setxattr("file", name, "long", 4, 0));
    expect_value("file", name, "long", 4);
    CHECK_ERRNO(getxattr("file", name, small, sizeof(small)), ERANGE);
    CHECK_ERRNO(listxattr("file", small, sizeof(small)), ERANGE);
    char *big = probe_alloc(XATTR_SIZE_MAX + 1);
    memset(big, 'b', XATTR_SIZE_MAX + 1);
    CHECK_ERRNO(setxattr("file", "user.big", big, XATTR_SIZE_MAX + 1, 0), E2BIG);
    CHECK_OK(setxattr("file", "user.big", big, 2000, 0));
    expect_value("file", "user.big", big, 2000);
    CHECK_ERRNO(setxattr("file", "user.", "x", 1, 0), EINVAL);
    CHECK_ERRNO(setxattr("file", "nonsense.name", "x", 1, 0), EOPNOTSUPP);
    free(big);
}

/* The largest value that Linux has. A plain ext4 has no room for it in its block. */
static void xattr_largest(void)
{
    if (probe_is_plain())
        probe_skip("a plain disk may hold only small values");
    probe_file_write("file", "x", 1);
    char *big = probe_alloc(XATTR_SIZE_MAX);
    probe_pattern_fill(big, XATTR_SIZE_MAX, 0, 1);
    CHECK_OK(setxattr("file", "user.big", big, XATTR_SIZE_MAX, 0));
    expect_value("file", "user.big", big, XATTR_SIZE_MAX);
    free(big);
}

static void xattr_many(void)
{
    enum { COUNT = 40 };
    char name[32];
    int count;
    probe_file_write("file", "x", 1);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "user.n%d", i);
        CHECK_OK(setxattr("file", name, name, strlen(name), 0));
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "user.n%d", i);
        expect_value("file", name, name, strlen(name));
        CHECK(list_contains("file", name, &count));
        CHECK_EQUAL(count, COUNT);
    }
}

/* Attributes belong to the inode: all its names, and its descriptors, show them; a new file at the name has
 * none. */
static void xattr_belong_to_inode(void)
{
    probe_file_write("file", "x", 1);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    CHECK_OK(fsetxattr(fd, "user.one", "1", 1, 0));
    CHECK_OK(link("file", "link"));
    CHECK_OK(rename("file", "moved"));
    expect_value("link", "user.one", "1", 1);
    expect_value("moved", "user.one", "1", 1);
    probe_file_write("new", "y", 1);
    CHECK_OK(rename("new", "moved"));
    CHECK_ERRNO(getxattr("moved", "user.one", NULL, 0), ENODATA);
    CHECK_OK(unlink("link"));
    char value;
    CHECK_EQUAL(fgetxattr(fd, "user.one", &value, 1), 1);
    CHECK_OK(fremovexattr(fd, "user.one"));
    CHECK_ERRNO(fgetxattr(fd, "user.one", &value, 1), ENODATA);
    CHECK_OK(close(fd));
}

/* user.* is for files and directories; trusted.* is for root, on everything. */
static void xattr_kinds(void)
{
    CHECK_OK(symlink("nowhere", "link"));
    CHECK_OK(mkfifo("fifo", 0600));
    CHECK_ERRNO(lsetxattr("link", "user.one", "1", 1, 0), EPERM);
    CHECK_ERRNO(setxattr("fifo", "user.one", "1", 1, 0), EPERM);
    probe_file_write("file", "x", 1);
    if (geteuid() != 0) {
        CHECK_ERRNO(setxattr("file", "trusted.one", "1", 1, 0), EPERM);
        CHECK_ERRNO(getxattr("file", "trusted.one", NULL, 0), ENODATA);
        return;
    }
    CHECK_OK(setxattr("file", "trusted.one", "1", 1, 0));
    expect_value("file", "trusted.one", "1", 1);
    CHECK_OK(lsetxattr("link", "trusted.one", "22", 2, 0));
    CHECK_EQUAL(lgetxattr("link", "trusted.one", NULL, 0), 2);
    int count;
    CHECK(list_contains("file", "trusted.one", &count));
}

const struct probe probes_xattr[] = {
    {"xattr-basic", xattr_basic},   {"xattr-create-replace", xattr_create_replace},
    {"xattr-limits", xattr_limits}, {"xattr-largest", xattr_largest},
    {"xattr-many", xattr_many},     {"xattr-belong-to-inode", xattr_belong_to_inode},
    {"xattr-kinds", xattr_kinds},   {NULL, NULL},
};
