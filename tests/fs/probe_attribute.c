/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of modes, owners, set times, link counts of directories, and statfs. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define GROUP_OTHER 12345

static void attribute_mode(void)
{
    probe_file_write("file", "x", 1);
    CHECK_OK(mkdir("directory", 0755));
    static const mode_t modes[] = {0, 0400, 0123, 0777, 04755, 02755, 01777, 0644};
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        CHECK_OK(i % 2 ? fchmod(fd, modes[i]) : chmod("file", modes[i]));
        CHECK_EQUAL(probe_stat("file").st_mode, S_IFREG | modes[i]);
        CHECK_EQUAL(probe_fstat(fd).st_mode, S_IFREG | modes[i]);
        CHECK_OK(chmod("directory", modes[i] | 0700));
        CHECK_EQUAL(probe_stat("directory").st_mode, S_IFDIR | modes[i] | 0700);
    }
    CHECK_OK(close(fd));
    CHECK_ERRNO(chmod("missing", 0600), ENOENT);
    CHECK_OK(symlink("file", "link"));
    CHECK_OK(chmod("link", 0600));
    CHECK_EQUAL(probe_stat("file").st_mode, S_IFREG | 0600);
    CHECK_EQUAL(probe_lstat("link").st_mode, S_IFLNK | 0777);
}

static void attribute_owner(void)
{
    probe_require_root();
    probe_file_write("file", "x", 1);
    CHECK_OK(symlink("file", "link"));
    CHECK_OK(chown("file", 1000, GROUP_OTHER));
    CHECK_EQUAL(probe_stat("file").st_uid, 1000);
    CHECK_EQUAL(probe_stat("file").st_gid, GROUP_OTHER);
    CHECK_OK(chown("file", (uid_t)-1, 7));
    CHECK_EQUAL(probe_stat("file").st_uid, 1000);
    CHECK_EQUAL(probe_stat("file").st_gid, 7);
    CHECK_OK(chown("file", 4000000000U, (gid_t)-1));
    CHECK_EQUAL(probe_stat("file").st_uid, 4000000000U);
    CHECK_OK(lchown("link", 5, 6));
    CHECK_EQUAL(probe_lstat("link").st_uid, 5);
    CHECK_EQUAL(probe_stat("file").st_uid, 4000000000U);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    CHECK_OK(fchown(fd, 8, 9));
    CHECK_EQUAL(probe_fstat(fd).st_gid, 9);
    CHECK_OK(close(fd));
}

static void expect_times(const char *path, struct timespec access, struct timespec modification)
{
    struct stat status = probe_lstat(path);
    CHECK_EQUAL(status.st_atim.tv_sec, access.tv_sec);
    CHECK_EQUAL(status.st_atim.tv_nsec, access.tv_nsec);
    CHECK_EQUAL(status.st_mtim.tv_sec, modification.tv_sec);
    CHECK_EQUAL(status.st_mtim.tv_nsec, modification.tv_nsec);
}

static void attribute_times(void)
{
    static const struct timespec times[][2] = {
        {{1, 1}, {2, 999999999}},           {{0, 0}, {0, 0}},
        {{-1, 999999999}, {-1000000, 1}},   {{1700000000, 123456789}, {1700000001, 987654321}},
        {{4294967296, 5}, {6000000000, 6}},
    };
    probe_file_write("file", "x", 1);
    CHECK_OK(mkdir("directory", 0700));
    CHECK_OK(symlink("file", "link"));
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        CHECK_OK(utimensat(AT_FDCWD, "file", times[i], 0));
        expect_times("file", times[i][0], times[i][1]);
        CHECK_OK(utimensat(AT_FDCWD, "directory", times[i], 0));
        expect_times("directory", times[i][0], times[i][1]);
        CHECK_OK(utimensat(AT_FDCWD, "link", times[i], AT_SYMLINK_NOFOLLOW));
        expect_times("link", times[i][0], times[i][1]);
        struct timespec turned[2] = {times[i][1], times[i][0]};
        CHECK_OK(futimens(fd, turned));
        expect_times("file", turned[0], turned[1]);
    }
    CHECK_OK(close(fd));
    struct timespec wrong[2] = {{0, 1000000000}, {0, 0}};
    CHECK_ERRNO(utimensat(AT_FDCWD, "file", wrong, 0), EINVAL);
}

static void attribute_times_omitted(void)
{
    probe_file_write("file", "x", 1);
    struct timespec base[2] = {{100, 1}, {200, 2}};
    CHECK_OK(utimensat(AT_FDCWD, "file", base, 0));
    struct timespec access_only[2] = {{300, 3}, {0, UTIME_OMIT}};
    CHECK_OK(utimensat(AT_FDCWD, "file", access_only, 0));
    expect_times("file", access_only[0], base[1]);
    struct timespec modification_only[2] = {{0, UTIME_OMIT}, {400, 4}};
    CHECK_OK(utimensat(AT_FDCWD, "file", modification_only, 0));
    expect_times("file", access_only[0], modification_only[1]);
    struct timespec neither[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    CHECK_OK(utimensat(AT_FDCWD, "file", neither, 0));
    expect_times("file", access_only[0], modification_only[1]);
    struct timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    time_t before = time(NULL);
    CHECK_OK(utimensat(AT_FDCWD, "file", now, 0));
    struct stat status = probe_stat("file");
    CHECK_EQUAL(status.st_atim.tv_sec, 300);
    CHECK(status.st_mtim.tv_sec >= before - 1 && status.st_mtim.tv_sec <= time(NULL) + 1);
    CHECK_OK(utimensat(AT_FDCWD, "file", base, 0));
    CHECK_OK(utimensat(AT_FDCWD, "file", NULL, 0));
    status = probe_stat("file");
    CHECK(status.st_atim.tv_sec >= before - 1 && status.st_mtim.tv_sec >= before - 1);
}

/* Times that were set stay, though the file is open for writing and is closed later; a write moves them. */
static void attribute_times_while_open(void)
{
    struct timespec times[2] = {{100, 1}, {200, 2}};
    int fd = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    probe_pwrite(fd, "bytes", 5, 0);
    CHECK_OK(futimens(fd, times));
    expect_times("file", times[0], times[1]);
    CHECK_OK(fsync(fd));
    expect_times("file", times[0], times[1]);
    probe_pwrite(fd, "bytes", 5, 5);
    CHECK(probe_stat("file").st_mtim.tv_sec > 1000);
    CHECK_OK(futimens(fd, times));
    CHECK_OK(close(fd));
    expect_times("file", times[0], times[1]);
    fd = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK_OK(close(fd));
    expect_times("file", times[0], times[1]);
}

static void attribute_directory_links(void)
{
    CHECK_OK(mkdir("top", 0700));
    CHECK_EQUAL(probe_stat("top").st_nlink, 2);
    CHECK_OK(mkdir("top/one", 0700));
    CHECK_OK(mkdir("top/two", 0700));
    CHECK_EQUAL(probe_stat("top").st_nlink, 4);
    probe_file_write("top/file", "x", 1);
    CHECK_OK(symlink("one", "top/link"));
    CHECK_EQUAL(probe_stat("top").st_nlink, 4);
    CHECK_OK(rmdir("top/one"));
    CHECK_EQUAL(probe_stat("top").st_nlink, 3);
    CHECK_OK(rename("top/two", "two"));
    CHECK_EQUAL(probe_stat("top").st_nlink, 2);
    CHECK_OK(rename("two", "top/two"));
    CHECK_EQUAL(probe_stat("top").st_nlink, 3);
}

static void attribute_setgid_directory(void)
{
    probe_require_root();
    CHECK_OK(mkdir("shared", 0777));
    CHECK_OK(chown("shared", 0, GROUP_OTHER));
    CHECK_OK(chmod("shared", 02777));
    umask(022);
    probe_file_write("shared/file", "x", 1);
    CHECK_EQUAL(probe_stat("shared/file").st_gid, GROUP_OTHER);
    CHECK_EQUAL(probe_stat("shared/file").st_mode & 07777, 0644);
    CHECK_OK(mkdir("shared/directory", 0777));
    CHECK_EQUAL(probe_stat("shared/directory").st_gid, GROUP_OTHER);
    CHECK_EQUAL(probe_stat("shared/directory").st_mode & 07777, 02755);
    CHECK_OK(mkdir("shared/directory/below", 0700));
    CHECK_EQUAL(probe_stat("shared/directory/below").st_mode & 07777, 02700);
    CHECK_OK(symlink("x", "shared/link"));
    CHECK_EQUAL(probe_lstat("shared/link").st_gid, GROUP_OTHER);
    CHECK_OK(mkfifo("shared/fifo", 0600));
    CHECK_EQUAL(probe_stat("shared/fifo").st_gid, GROUP_OTHER);
    probe_file_write("outside", "x", 1);
    CHECK_OK(rename("outside", "shared/outside"));
    CHECK_EQUAL(probe_stat("shared/outside").st_gid, getegid());
}

static void attribute_statfs(void)
{
    struct statvfs found;
    CHECK_OK(statvfs(".", &found));
    CHECK_EQUAL(found.f_namemax, 255);
    CHECK(found.f_bsize >= 512 && found.f_frsize >= 512);
    CHECK(found.f_blocks > 0);
    CHECK(found.f_bfree <= found.f_blocks && found.f_bavail <= found.f_bfree);
    CHECK(found.f_files > 0 && found.f_ffree <= found.f_files);
    probe_file_write("file", "x", 1);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    struct statvfs again;
    CHECK_OK(fstatvfs(fd, &again));
    CHECK_EQUAL(again.f_blocks, found.f_blocks);
    CHECK_EQUAL(again.f_frsize, found.f_frsize);
    CHECK_OK(close(fd));
}

/* A file that holds 8 MiB says so in its blocks, before and after it is closed. */
static void attribute_blocks(void)
{
    enum { LENGTH = 8 * 1024 * 1024 };
    probe_file_pattern("file", LENGTH, 1);
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_OK(fsync(fd));
    CHECK_OK(close(fd));
    struct stat status = probe_stat("file");
    CHECK(status.st_blocks >= LENGTH / 512 && status.st_blocks <= LENGTH / 512 + 128);
    CHECK(status.st_blksize >= 512);
}

static void attribute_statx(void)
{
    probe_file_write("file", "12345", 5);
    struct statx found;
    CHECK_OK(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS | STATX_BTIME, &found));
    struct stat status = probe_stat("file");
    CHECK_EQUAL(found.stx_size, 5);
    CHECK_EQUAL(found.stx_ino, status.st_ino);
    CHECK_EQUAL(found.stx_mtime.tv_nsec, status.st_mtim.tv_nsec);
    CHECK_EQUAL(found.stx_mode, status.st_mode);
    CHECK_EQUAL(makedev(found.stx_dev_major, found.stx_dev_minor), status.st_dev);
    CHECK_EQUAL(found.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
}

const struct probe probes_attribute[] = {
    {"attribute-mode", attribute_mode},
    {"attribute-owner", attribute_owner},
    {"attribute-times", attribute_times},
    {"attribute-times-omitted", attribute_times_omitted},
    {"attribute-times-while-open", attribute_times_while_open},
    {"attribute-directory-links", attribute_directory_links},
    {"attribute-setgid-directory", attribute_setgid_directory},
    {"attribute-statfs", attribute_statfs},
    {"attribute-blocks", attribute_blocks},
    {"attribute-statx", attribute_statx},
    {NULL, NULL},
};
