/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of link, symlink, unlink, rmdir, and of what a name may be. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void link_hard(void)
{
    probe_file_write("one", "bytes", 5);
    CHECK_OK(mkdir("directory", 0700));
    CHECK_OK(link("one", "directory/two"));
    CHECK_EQUAL(probe_stat("one").st_ino, probe_stat("directory/two").st_ino);
    CHECK_EQUAL(probe_stat("one").st_nlink, 2);
    probe_file_write("directory/two", "changed", 7);
    probe_file_expect("one", "changed", 7);
    CHECK_ERRNO(link("one", "directory/two"), EEXIST);
    CHECK_ERRNO(link("missing", "three"), ENOENT);
    CHECK_ERRNO(link("directory", "three"), EPERM);
    CHECK_ERRNO(link("one", "missing/three"), ENOENT);
    CHECK_OK(unlink("one"));
    CHECK_EQUAL(probe_stat("directory/two").st_nlink, 1);
    probe_file_expect("directory/two", "changed", 7);
}

/* Links made, and names removed, while the file is open for writing. */
static void link_while_open(void)
{
    int fd = (int)CHECK_OK(open("one", O_RDWR | O_CREAT, 0600));
    probe_pwrite(fd, "first", 5, 0);
    CHECK_OK(link("one", "two"));
    probe_pwrite(fd, "second", 6, 5);
    CHECK_OK(unlink("one"));
    CHECK_EQUAL(probe_fstat(fd).st_nlink, 1);
    probe_pwrite(fd, "third", 5, 11);
    CHECK_OK(close(fd));
    probe_file_expect("two", "firstsecondthird", 16);
}

static void link_to_symlink(void)
{
    probe_file_write("file", "x", 1);
    CHECK_OK(symlink("file", "soft"));
    CHECK_OK(linkat(AT_FDCWD, "soft", AT_FDCWD, "hard-soft", 0));
    CHECK(S_ISLNK(probe_lstat("hard-soft").st_mode));
    CHECK_EQUAL(probe_lstat("soft").st_nlink, 2);
    CHECK_OK(linkat(AT_FDCWD, "soft", AT_FDCWD, "hard-file", AT_SYMLINK_FOLLOW));
    CHECK_EQUAL(probe_lstat("hard-file").st_ino, probe_stat("file").st_ino);
}

static void link_many(void)
{
    enum { COUNT = 1000 };
    char name[32];
    probe_file_write("file", "x", 1);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "link-%d", i);
        CHECK_OK(link("file", name));
    }
    CHECK_EQUAL(probe_stat("file").st_nlink, COUNT + 1);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "link-%d", i);
        CHECK_OK(unlink(name));
    }
    CHECK_EQUAL(probe_stat("file").st_nlink, 1);
}

static void symlink_targets(void)
{
    char target[PATH_MAX + 1], found[PATH_MAX + 1];
    memset(target, 't', sizeof(target));
    target[PATH_MAX - 1] = '\0';
    CHECK_OK(symlink(target, "long"));
    CHECK_EQUAL(readlink("long", found, sizeof(found)), PATH_MAX - 1);
    CHECK(memcmp(target, found, PATH_MAX - 1) == 0);
    CHECK_EQUAL(probe_lstat("long").st_size, PATH_MAX - 1);
    CHECK_EQUAL(readlink("long", found, 10), 10);
    target[PATH_MAX - 1] = 't';
    target[PATH_MAX] = '\0';
    CHECK_ERRNO(symlink(target, "longer"), ENAMETOOLONG);
    CHECK_ERRNO(symlink("", "empty"), ENOENT);
    CHECK_OK(symlink("a b\n\xff", "odd"));
    CHECK_EQUAL(readlink("odd", found, sizeof(found)), 5);
    CHECK(memcmp(found, "a b\n\xff", 5) == 0);
    CHECK_ERRNO(symlink("x", "odd"), EEXIST);
    probe_file_write("file", "x", 1);
    CHECK_ERRNO(readlink("file", found, sizeof(found)), EINVAL);
    CHECK(S_ISLNK(probe_lstat("odd").st_mode));
    CHECK_EQUAL(probe_lstat("odd").st_mode & 07777, 0777);
}

/* A file without a name goes on working for whoever has it open. */
static void unlink_while_open(void)
{
    static const size_t lengths[] = {100, 200000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        probe_file_pattern("file", lengths[i], 3);
        int reader = (int)CHECK_OK(open("file", O_RDONLY));
        int writer = (int)CHECK_OK(open("file", O_RDWR));
        CHECK_OK(unlink("file"));
        CHECK(!probe_exists("file"));
        CHECK_EQUAL(probe_fstat(reader).st_nlink, 0);
        CHECK_EQUAL(probe_fstat(reader).st_size, lengths[i]);
        probe_pwrite(writer, "written", 7, 50);
        probe_pread_expect(reader, "written", 7, 50);
        CHECK_OK(ftruncate(writer, 300000));
        CHECK_EQUAL(probe_fstat(reader).st_size, 300000);
        CHECK_OK(fchmod(writer, 0400));
        CHECK_OK(futimens(writer, NULL));
        CHECK_OK(fsync(writer));
        CHECK_OK(close(writer));
        probe_pread_expect(reader, "written", 7, 50);
        probe_file_write("file", "a new one", 9);
        probe_pread_expect(reader, "written", 7, 50);
        CHECK_OK(close(reader));
        probe_file_expect("file", "a new one", 9);
    }
}

/* /proc/self/fd opens a nameless file again. */
static void unlink_and_reopen(void)
{
    int fd = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    probe_pwrite(fd, "kept", 4, 0);
    CHECK_OK(unlink("file"));
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = (int)CHECK_OK(open(path, O_RDWR));
    probe_pread_expect(again, "kept", 4, 0);
    probe_pwrite(again, "more", 4, 4);
    probe_pread_expect(fd, "keptmore", 8, 0);
    CHECK_OK(close(fd));
    probe_pread_expect(again, "keptmore", 8, 0);
    CHECK_EQUAL(probe_fstat(again).st_nlink, 0);
    CHECK_OK(close(again));
}

static void unlink_refusals(void)
{
    CHECK_OK(mkdir("directory", 0700));
    probe_file_write("directory/file", "x", 1);
    CHECK_ERRNO(unlink("directory"), EISDIR);
    CHECK_ERRNO(unlink("missing"), ENOENT);
    CHECK_ERRNO(unlink("directory/file/below"), ENOTDIR);
    CHECK_ERRNO(unlink("directory/file/"), ENOTDIR);
    CHECK_ERRNO(rmdir("directory"), ENOTEMPTY);
    CHECK_ERRNO(rmdir("directory/file"), ENOTDIR);
    CHECK_ERRNO(rmdir("missing"), ENOENT);
    CHECK_ERRNO(rmdir("directory/."), EINVAL);
    CHECK_ERRNO(rmdir("directory/.."), ENOTEMPTY);
    CHECK_ERRNO(mkdir("directory", 0700), EEXIST);
    CHECK_ERRNO(mkdir("directory/file", 0700), EEXIST);
    CHECK_ERRNO(mkdir("missing/directory", 0700), ENOENT);
    CHECK_OK(unlink("directory/file"));
    CHECK_OK(rmdir("directory"));
    CHECK(!probe_exists("directory"));
}

/* The working directory was removed: nothing can be made in it and it lists nothing. */
static void rmdir_working_directory(void)
{
    CHECK_OK(mkdir("gone", 0700));
    int directory = (int)CHECK_OK(open("gone", O_RDONLY | O_DIRECTORY));
    CHECK_OK(chdir("gone"));
    CHECK_OK(rmdir("../gone"));
    CHECK_ERRNO(open("file", O_RDWR | O_CREAT, 0600), ENOENT);
    CHECK_ERRNO(mkdir("directory", 0700), ENOENT);
    CHECK_ERRNO(symlink("x", "link"), ENOENT);
    CHECK_EQUAL(probe_fstat(directory).st_nlink, 0);
    CHECK_OK(fsync(directory));
    CHECK_OK(close(directory));
}

/* A name that Linux allows can be given in every way. */
static void name_expect_allowed(const char *name)
{
    probe_file_write(name, "x", 1);
    CHECK_OK(link(name, "other"));
    CHECK_OK(unlink(name));
    CHECK_OK(link("other", name));
    CHECK_OK(rename(name, "moved"));
    CHECK(probe_exists("other"));
    CHECK_OK(unlink("other"));
    CHECK_OK(rename("moved", name));
    probe_file_expect(name, "x", 1);
    CHECK_OK(unlink(name));
    CHECK_OK(symlink("x", name));
    CHECK_OK(unlink(name));
    CHECK_OK(mkdir(name, 0700));
    CHECK_OK(rmdir(name));
}

static void name_expect_too_long(const char *name)
{
    probe_file_write("source", "x", 1);
    CHECK_ERRNO(open(name, O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
    CHECK_ERRNO(link("source", name), ENAMETOOLONG);
    CHECK_ERRNO(symlink("x", name), ENAMETOOLONG);
    CHECK_ERRNO(mkdir(name, 0700), ENAMETOOLONG);
    CHECK_ERRNO(rename("source", name), ENAMETOOLONG);
    CHECK_ERRNO(unlink(name), ENAMETOOLONG);
    CHECK_ERRNO(rmdir(name), ENAMETOOLONG);
    CHECK_ERRNO(access(name, F_OK), ENAMETOOLONG);
    CHECK_OK(unlink("source"));
}

static void name_limits(void)
{
    char name[NAME_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[NAME_MAX + 1] = '\0';
    name_expect_too_long(name);
    name[NAME_MAX] = '\0';
    name_expect_allowed(name);
    for (int i = 0; i < NAME_MAX; i++)
        name[i] = "\xe2\x82\xac"[i % 3];
    name_expect_allowed(name);
}

/* A name is bytes: anything but '/' and NUL, not only text. */
static void name_bytes(void)
{
    static const char *const names[] = {" ",          "a b", "new\nline", "\xff\xfe", "-rf",
                                        "quote'\"`$", "\\",  "%s%n",      "*?["};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        name_expect_allowed(names[i]);
    char name[2] = "";
    for (int byte = 1; byte < 256; byte++) {
        if (byte == '/' || byte == '.')
            continue;
        name[0] = (char)byte;
        probe_file_write(name, &name[0], 1);
    }
    for (int byte = 1; byte < 256; byte++) {
        if (byte == '/' || byte == '.')
            continue;
        name[0] = (char)byte;
        probe_file_expect(name, &name[0], 1);
    }
    CHECK_ERRNO(open("", O_RDWR | O_CREAT, 0600), ENOENT);
}

/* A path longer than PATH_MAX is refused; the same place is reached step by step. */
static void name_deep_tree(void)
{
    enum { DEPTH = 400 };
    char part[] = "a-directory-in-a-deep-tree";
    char path[PATH_MAX + 100] = "";
    size_t used = 0;
    while (used < PATH_MAX)
        used += (size_t)snprintf(path + used, sizeof(path) - used, "%s/", part);
    CHECK_ERRNO(mkdir(path, 0700), ENAMETOOLONG);
    CHECK_ERRNO(access(path, F_OK), ENAMETOOLONG);
    int top = (int)CHECK_OK(open(".", O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < DEPTH; i++) {
        CHECK_OK(mkdir(part, 0700));
        CHECK_OK(chdir(part));
    }
    probe_file_write("bottom", "deep", 4);
    int bottom = (int)CHECK_OK(open("bottom", O_RDONLY));
    CHECK_OK(fchdir(top));
    probe_pread_expect(bottom, "deep", 4, 0);
    CHECK_OK(close(bottom));
    for (int i = 0; i < DEPTH; i++)
        CHECK_OK(chdir(part));
    probe_file_expect("bottom", "deep", 4);
    CHECK_OK(unlink("bottom"));
    for (int i = 0; i < DEPTH; i++) {
        CHECK_OK(chdir(".."));
        CHECK_OK(rmdir(part));
    }
    CHECK_EQUAL(probe_stat(".").st_ino, probe_fstat(top).st_ino);
    CHECK_OK(close(top));
}

const struct probe probes_link[] = {
    {"link-hard", link_hard},
    {"link-while-open", link_while_open},
    {"link-to-symlink", link_to_symlink},
    {"link-many", link_many},
    {"symlink-targets", symlink_targets},
    {"unlink-while-open", unlink_while_open},
    {"unlink-and-reopen", unlink_and_reopen},
    {"unlink-refusals", unlink_refusals},
    {"rmdir-working-directory", rmdir_working_directory},
    {"name-limits", name_limits},
    {"name-bytes", name_bytes},
    {"name-deep-tree", name_deep_tree},
    {NULL, NULL},
};
