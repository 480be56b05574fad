/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of rename(2) and renameat2(2) in all their forms. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int rename_flags(const char *from, const char *to, unsigned flags)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

static void rename_file(void)
{
    probe_file_write("from", "bytes", 5);
    struct stat before = probe_stat("from");
    CHECK_OK(mkdir("directory", 0700));
    CHECK_OK(rename("from", "to"));
    CHECK(!probe_exists("from"));
    CHECK_EQUAL(probe_stat("to").st_ino, before.st_ino);
    CHECK_OK(rename("to", "directory/moved"));
    CHECK(!probe_exists("to"));
    CHECK_EQUAL(probe_stat("directory/moved").st_ino, before.st_ino);
    CHECK_EQUAL(probe_stat("directory/moved").st_nlink, 1);
    probe_file_expect("directory/moved", "bytes", 5);
    CHECK_OK(rename("directory/moved", "directory/moved"));
    CHECK(probe_exists("directory/moved"));
}

/* The replaced file lives on behind its open descriptor, for reading and for writing. */
static void rename_over_open_file(void)
{
    probe_file_write("old", "old bytes", 9);
    probe_file_write("new", "new", 3);
    int reader = (int)CHECK_OK(open("old", O_RDONLY));
    int writer = (int)CHECK_OK(open("old", O_WRONLY));
    CHECK_OK(rename("new", "old"));
    CHECK(!probe_exists("new"));
    probe_file_expect("old", "new", 3);
    CHECK_EQUAL(probe_fstat(reader).st_nlink, 0);
    probe_pread_expect(reader, "old bytes", 9, 0);
    probe_pwrite(writer, "OLD", 3, 0);
    probe_pread_expect(reader, "OLD bytes", 9, 0);
    CHECK_OK(close(reader));
    CHECK_OK(close(writer));
    probe_file_expect("old", "new", 3);
}

/* Many times: the moment when the successor is synced and the replaced file is being written back is short.
 */
static void rename_over_linked(void)
{
    for (int i = 0; i < 300; i++) {
        probe_file_pattern("replaced", 100000, 1);
        CHECK_OK(link("replaced", "other"));
        probe_file_pattern("new", 70000, 2);
        CHECK_OK(rename("new", "replaced"));
        int fd = (int)CHECK_OK(open("replaced", O_RDONLY));
        CHECK_OK(fsync(fd));
        CHECK_OK(close(fd));
        probe_file_expect_pattern("other", 100000, 1);
        CHECK_EQUAL(probe_stat("other").st_nlink, 1);
        CHECK_OK(unlink("other"));
        CHECK_OK(unlink("replaced"));
    }
}

/* safetensors writes a temporary file, renames it while it is open, and closes it later. */
static void rename_while_open(void)
{
    probe_file_pattern("model", 50000, 1);
    int fd = (int)CHECK_OK(open(".tmpAbCdEf", O_RDWR | O_CREAT | O_EXCL, 0600));
    CHECK_OK(ftruncate(fd, 200000));
    char data[1000];
    probe_pattern_fill(data, sizeof(data), 0, 2);
    probe_pwrite(fd, data, sizeof(data), 0);
    CHECK_OK(rename(".tmpAbCdEf", "model"));
    CHECK_EQUAL(probe_stat("model").st_ino, probe_fstat(fd).st_ino);
    CHECK_EQUAL(probe_stat("model").st_size, 200000);
    probe_pattern_fill(data, sizeof(data), 199000, 2);
    probe_pwrite(fd, data, sizeof(data), 199000);
    CHECK_OK(close(fd));
    fd = (int)CHECK_OK(open("model", O_RDONLY));
    probe_pread_expect(fd, data, sizeof(data), 199000);
    probe_pread_expect_byte(fd, 0, 198000, 1000);
    CHECK_OK(close(fd));
}

static void rename_hard_links(void)
{
    probe_file_write("one", "bytes", 5);
    CHECK_OK(link("one", "two"));
    CHECK_OK(rename("one", "two"));
    CHECK(probe_exists("one"));
    CHECK(probe_exists("two"));
    CHECK_EQUAL(probe_stat("one").st_nlink, 2);
    probe_file_write("three", "other", 5);
    CHECK_OK(rename("three", "two"));
    CHECK_EQUAL(probe_stat("one").st_nlink, 1);
    probe_file_expect("one", "bytes", 5);
    probe_file_expect("two", "other", 5);
}

static void rename_directory(void)
{
    CHECK_OK(mkdir("parent", 0700));
    CHECK_OK(mkdir("parent/child", 0700));
    CHECK_OK(mkdir("other", 0700));
    probe_file_write("parent/child/file", "bytes", 5);
    ino_t child = probe_stat("parent/child").st_ino;
    CHECK_EQUAL(probe_stat("parent").st_nlink, 3);
    CHECK_OK(rename("parent/child", "other/moved"));
    CHECK_EQUAL(probe_stat("parent").st_nlink, 2);
    CHECK_EQUAL(probe_stat("other").st_nlink, 3);
    CHECK_EQUAL(probe_stat("other/moved").st_ino, child);
    CHECK_EQUAL(probe_stat("other/moved/..").st_ino, probe_stat("other").st_ino);
    probe_file_expect("other/moved/file", "bytes", 5);
    CHECK_OK(mkdir("parent/empty", 0700));
    CHECK_OK(rename("other/moved", "parent/empty"));
    CHECK_EQUAL(probe_stat("parent/empty").st_ino, child);
    CHECK_EQUAL(probe_stat("parent").st_nlink, 3);
    CHECK_EQUAL(probe_stat("other").st_nlink, 2);
    probe_file_expect("parent/empty/file", "bytes", 5);
}

static void rename_refusals(void)
{
    CHECK_OK(mkdir("full", 0700));
    probe_file_write("full/file", "x", 1);
    CHECK_OK(mkdir("empty", 0700));
    CHECK_OK(mkdir("empty2", 0700));
    probe_file_write("file", "y", 1);
    int result = rename("empty", "full");
    CHECK(result < 0 && (errno == ENOTEMPTY || errno == EEXIST));
    CHECK_ERRNO(rename("file", "empty"), EISDIR);
    CHECK_ERRNO(rename("empty", "file"), ENOTDIR);
    CHECK_ERRNO(rename("missing", "file"), ENOENT);
    CHECK_ERRNO(rename("file", "missing/file"), ENOENT);
    CHECK_ERRNO(rename("file", "file/below"), ENOTDIR);
    CHECK_ERRNO(rename("full", "full/inside"), EINVAL);
    CHECK_OK(mkdir("full/deep", 0700));
    CHECK_ERRNO(rename("full", "full/deep/inside"), EINVAL);
    CHECK_ERRNO(rename("full/.", "other"), EBUSY);
    CHECK_ERRNO(rename("full/deep/..", "other"), EBUSY);
    result = rename("full/deep", "full");
    CHECK(result < 0 && (errno == ENOTEMPTY || errno == EEXIST));
    CHECK(probe_exists("full/file") && probe_exists("empty") && probe_exists("file"));
    CHECK_OK(rename("empty", "empty2"));
    CHECK(!probe_exists("empty"));
}

static void rename_noreplace(void)
{
    probe_file_write("one", "1", 1);
    probe_file_write("two", "2", 1);
    CHECK_OK(mkdir("directory", 0700));
    CHECK_ERRNO(rename_flags("one", "two", RENAME_NOREPLACE), EEXIST);
    CHECK_ERRNO(rename_flags("one", "directory", RENAME_NOREPLACE), EEXIST);
    CHECK_OK(rename_flags("one", "three", RENAME_NOREPLACE));
    probe_file_expect("three", "1", 1);
    probe_file_expect("two", "2", 1);
    CHECK(!probe_exists("one"));
    CHECK_OK(rename_flags("directory", "moved", RENAME_NOREPLACE));
    CHECK_ERRNO(rename_flags("two", "three", RENAME_NOREPLACE | RENAME_EXCHANGE), EINVAL);
    CHECK_ERRNO(rename_flags("two", "three", 1U << 20), EINVAL);
}

static void rename_exchange(void)
{
    CHECK_OK(mkdir("left", 0700));
    CHECK_OK(mkdir("right", 0700));
    CHECK_OK(mkdir("left/directory", 0700));
    probe_file_write("left/directory/inside", "i", 1);
    probe_file_write("right/file", "f", 1);
    probe_file_write("left/other", "o", 1);
    ino_t directory = probe_stat("left/directory").st_ino;
    int held = (int)CHECK_OK(open("right/file", O_RDWR));
    CHECK_OK(rename_flags("left/directory", "right/file", RENAME_EXCHANGE));
    CHECK_EQUAL(probe_stat("right/file").st_ino, directory);
    CHECK_EQUAL(probe_stat("left").st_nlink, 2);
    CHECK_EQUAL(probe_stat("right").st_nlink, 3);
    CHECK_EQUAL(probe_stat("right/file/..").st_ino, probe_stat("right").st_ino);
    probe_file_expect("right/file/inside", "i", 1);
    probe_file_expect("left/directory", "f", 1);
    CHECK_EQUAL(probe_fstat(held).st_nlink, 1);
    probe_pwrite(held, "F", 1, 0);
    CHECK_OK(close(held));
    CHECK_OK(rename_flags("left/directory", "left/other", RENAME_EXCHANGE));
    probe_file_expect("left/directory", "o", 1);
    probe_file_expect("left/other", "F", 1);
    CHECK_ERRNO(rename_flags("left/other", "missing", RENAME_EXCHANGE), ENOENT);
    CHECK_ERRNO(rename_flags("missing", "left/other", RENAME_EXCHANGE), ENOENT);
    CHECK_ERRNO(rename_flags("right", "right/file", RENAME_EXCHANGE), EINVAL);
}

/* A directory that is open, and that is the working directory, can move; names below it are found from there.
 */
static void rename_open_directory(void)
{
    CHECK_OK(mkdir("first", 0700));
    CHECK_OK(mkdir("second", 0700));
    CHECK_OK(mkdir("first/here", 0700));
    int directory = (int)CHECK_OK(open("first/here", O_RDONLY | O_DIRECTORY));
    int top = (int)CHECK_OK(open(".", O_RDONLY | O_DIRECTORY));
    CHECK_OK(chdir("first/here"));
    CHECK_OK(renameat(top, "first/here", top, "second/there"));
    CHECK_OK(close((int)CHECK_OK(openat(directory, "file", O_RDWR | O_CREAT, 0600))));
    CHECK(probe_exists("file"));
    CHECK(probe_exists("../there/file"));
    struct stat status;
    CHECK_OK(fstatat(top, "second/there/file", &status, 0));
    CHECK_EQUAL(probe_stat("..").st_nlink, 3);
    CHECK_OK(close(directory));
    CHECK_OK(close(top));
}

static void rename_symlinks(void)
{
    probe_file_write("file", "x", 1);
    CHECK_OK(symlink("file", "link"));
    CHECK_OK(symlink("nowhere", "dangling"));
    CHECK_OK(rename("link", "moved"));
    CHECK(S_ISLNK(probe_lstat("moved").st_mode));
    CHECK_OK(rename("dangling", "moved"));
    char target[20] = "";
    CHECK_EQUAL(readlink("moved", target, sizeof(target)), 7);
    CHECK(memcmp(target, "nowhere", 7) == 0);
    CHECK_OK(rename("file", "moved"));
    CHECK(S_ISREG(probe_lstat("moved").st_mode));
    CHECK(!probe_exists("nowhere"));
}

const struct probe probes_rename[] = {
    {"rename-file", rename_file},
    {"rename-over-open-file", rename_over_open_file},
    {"rename-while-open", rename_while_open},
    {"rename-hard-links", rename_hard_links},
    {"rename-over-linked", rename_over_linked},
    {"rename-directory", rename_directory},
    {"rename-refusals", rename_refusals},
    {"rename-noreplace", rename_noreplace},
    {"rename-exchange", rename_exchange},
    {"rename-open-directory", rename_open_directory},
    {"rename-symlinks", rename_symlinks},
    {NULL, NULL},
};
