/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of which operation moves which time. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MODIFICATION = 1, CHANGE = 2 };

/* Looks at one path before and after an operation. */
struct watch {
    const char *path;
    struct stat before;
};

static bool is_later(struct timespec left, struct timespec right)
{
    return left.tv_sec > right.tv_sec || (left.tv_sec == right.tv_sec && left.tv_nsec > right.tv_nsec);
}

static bool is_same(struct timespec left, struct timespec right)
{
    return left.tv_sec == right.tv_sec && left.tv_nsec == right.tv_nsec;
}

/* Waits until the clock that file times are taken from has passed this time. */
static void wait_for_clock(struct timespec past)
{
    double deadline = probe_now() + 10;
    struct timespec now;
    do {
        CHECK(probe_now() < deadline);
        CHECK_OK(clock_gettime(CLOCK_REALTIME_COARSE, &now));
    } while (!is_later(now, past));
}

static struct watch watch_start(const char *path)
{
    struct watch watch = {.path = path, .before = probe_lstat(path)};
    wait_for_clock(watch.before.st_ctim);
    if (is_later(watch.before.st_mtim, watch.before.st_ctim))
        wait_for_clock(watch.before.st_mtim);
    return watch;
}

/* Just these times of the path must have moved since, and not into the future. */
static void watch_expect(const struct watch *watch, int moved, const char *operation)
{
    struct stat after = probe_lstat(watch->path);
    struct timespec now;
    CHECK_OK(clock_gettime(CLOCK_REALTIME, &now));
    bool modified = is_later(after.st_mtim, watch->before.st_mtim);
    bool changed = is_later(after.st_ctim, watch->before.st_ctim);
    if (modified != ((moved & MODIFICATION) != 0) ||
        (!modified && !is_same(after.st_mtim, watch->before.st_mtim)))
        probe_fail(__FILE__, __LINE__, 0, "%s: mtime of %s %s", operation, watch->path,
                   moved & MODIFICATION ? "did not move on" : "moved");
    if (changed != ((moved & CHANGE) != 0) || (!changed && !is_same(after.st_ctim, watch->before.st_ctim)))
        probe_fail(__FILE__, __LINE__, 0, "%s: ctime of %s %s", operation, watch->path,
                   moved & CHANGE ? "did not move on" : "moved");
    CHECK(!is_later(after.st_ctim, now));
    CHECK(!is_later(after.st_mtim, now));
}

#define WATCH(path, moved, operation)                                                                        \
    do {                                                                                                     \
        struct watch watch_ = watch_start(path);                                                             \
        CHECK_OK(operation);                                                                                 \
        watch_expect(&watch_, (moved), #operation);                                                          \
    } while (0)

/* The same for files under and over the inline limit, and open elsewhere or not. */
static void time_of_data(size_t length)
{
    enum { BOTH = MODIFICATION | CHANGE };
    probe_file_pattern("file", length, 1);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    char bytes[5] = "bytes";
    WATCH("file", BOTH, pwrite(fd, bytes, 5, 10));
    WATCH("file", 0, pread(fd, bytes, 5, 10));
    WATCH("file", 0, pwrite(fd, bytes, 0, 10));
    WATCH("file", BOTH, ftruncate(fd, (off_t)length / 2));
    WATCH("file", BOTH, ftruncate(fd, (off_t)length));
    WATCH("file", BOTH, ftruncate(fd, (off_t)length));
    WATCH("file", BOTH, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5, 50));
    WATCH("file", BOTH, fallocate(fd, 0, 0, (off_t)length + 100));
    WATCH("file", 0, fsync(fd));
    CHECK_OK(fchmod(fd, 0644));
    WATCH("file", CHANGE, fchmod(fd, 0600));
    WATCH("file", 0, close(fd));
    WATCH("file", BOTH, truncate("file", (off_t)length / 2));
    WATCH("file", CHANGE, chmod("file", 0640));
    fd = (int)CHECK_OK(open("file", O_RDWR));
    WATCH("file", 0, close(fd));
    WATCH("file", BOTH, open("file", O_WRONLY | O_TRUNC));
    WATCH("file", 0, open("file", O_WRONLY | O_APPEND));
}

static void time_of_small_file(void)
{
    time_of_data(1000);
}

static void time_of_large_file(void)
{
    time_of_data(100000);
}

static void time_of_names(void)
{
    enum { BOTH = MODIFICATION | CHANGE };
    CHECK_OK(mkdir("top", 0700));
    WATCH("top", BOTH, open("top/file", O_RDWR | O_CREAT, 0600));
    WATCH("top", 0, open("top/file", O_RDWR | O_CREAT, 0600));
    WATCH("top", 0, open("top/file", O_RDWR | O_TRUNC));
    WATCH("top", BOTH, link("top/file", "top/link"));
    WATCH("top/file", CHANGE, unlink("top/link"));
    WATCH("top", BOTH, mkdir("top/directory", 0700));
    WATCH("top", 0, mkdir("top/directory/deep", 0700));
    WATCH("top/directory", BOTH, rmdir("top/directory/deep"));
    WATCH("top", BOTH, rmdir("top/directory"));
    WATCH("top", BOTH, symlink("x", "top/soft"));
    WATCH("top", BOTH, unlink("top/soft"));
    WATCH("top", BOTH, mknod("top/fifo", S_IFIFO | 0600, 0));
    WATCH("top/file", CHANGE, link("top/file", "top/link"));
}

/* The file has another name afterwards, so the watch looks at that one. */
static void time_of_rename(void)
{
    enum { BOTH = MODIFICATION | CHANGE };
    CHECK_OK(mkdir("from", 0700));
    CHECK_OK(mkdir("to", 0700));
    probe_file_write("from/file", "x", 1);
    probe_file_write("to/old", "y", 1);
    CHECK_OK(link("to/old", "kept"));
    struct watch file = watch_start("from/file"), from = watch_start("from"), to = watch_start("to");
    struct watch replaced = watch_start("kept");
    CHECK_OK(rename("from/file", "to/old"));
    file.path = "to/old";
    watch_expect(&file, CHANGE, "rename");
    watch_expect(&from, BOTH, "rename");
    watch_expect(&to, BOTH, "rename");
    watch_expect(&replaced, CHANGE, "rename over it");
}

/* Writing into files does not touch their directory: a trainer rotates checkpoints by a directory's mtime. */
static void time_of_parent(void)
{
    CHECK_OK(mkdir("top", 0700));
    int fd = (int)CHECK_OK(open("top/file", O_RDWR | O_CREAT, 0600));
    WATCH("top", 0, pwrite(fd, "bytes", 5, 0));
    WATCH("top", 0, ftruncate(fd, 100000));
    WATCH("top", 0, fsync(fd));
    WATCH("top", 0, fchmod(fd, 0640));
    WATCH("top", 0, close(fd));
    WATCH("top", 0, chmod("top/file", 0600));
    WATCH("top", 0, open("top", O_RDONLY | O_DIRECTORY));
}

static void time_of_xattrs(void)
{
    probe_file_write("file", "x", 1);
    WATCH("file", CHANGE, setxattr("file", "user.test", "1", 1, 0));
    WATCH("file", 0, getxattr("file", "user.test", NULL, 0));
    WATCH("file", 0, listxattr("file", NULL, 0));
    WATCH("file", CHANGE, removexattr("file", "user.test"));
}

static void time_of_owner(void)
{
    probe_require_root();
    probe_file_write("file", "x", 1);
    WATCH("file", CHANGE, chown("file", 5, 6));
    struct timespec times[2] = {{1, 1}, {0, UTIME_OMIT}};
    WATCH("file", CHANGE, utimensat(AT_FDCWD, "file", times, 0));
}

/* Stores through a shared mapping move mtime: at once, or at the latest when the file is closed. */
static void time_of_mapping(void)
{
    probe_file_pattern("file", 100000, 2);
    struct timespec old[2] = {{100, 0}, {100, 0}};
    CHECK_OK(utimensat(AT_FDCWD, "file", old, 0));
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    char *map = probe_map(fd, 100000, PROT_READ | PROT_WRITE, MAP_SHARED);
    CHECK_EQUAL(probe_stat("file").st_mtim.tv_sec, 100);
    map[5000] = 'x';
    CHECK_OK(msync(map, 100000, MS_SYNC));
    CHECK_OK(munmap(map, 100000));
    CHECK_OK(close(fd));
    CHECK(probe_stat("file").st_mtim.tv_sec > 1000000);
}

/* What is made after another file was looked at is not older than that, whoever gives the times. */
static void time_order(void)
{
    enum { ROUNDS = 50, WRITES = 20 };
    const char bytes[1024] = "";
    char file[32], link[32];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(file, sizeof file, "file-%d", i);
        snprintf(link, sizeof link, "link-%d", i);
        int fd = (int)CHECK_OK(open(file, O_WRONLY | O_CREAT | O_EXCL, 0600));
        for (int j = 0; j < WRITES; j++)
            CHECK_EQUAL(write(fd, bytes, sizeof bytes), sizeof bytes);
        CHECK_OK(close(fd));
        struct timespec before = probe_stat(file).st_mtim;
        CHECK_OK(symlink("anywhere", link));
        struct timespec between = probe_lstat(link).st_mtim;
        fd = (int)CHECK_OK(open(file, O_WRONLY | O_APPEND));
        CHECK_EQUAL(write(fd, "x", 1), 1);
        CHECK_OK(close(fd));
        CHECK(!is_later(before, between));
        struct timespec after = probe_stat(file).st_mtim;
        CHECK(!is_later(between, after));
    }
}

static void time_of_copy(void)
{
    enum { BOTH = MODIFICATION | CHANGE };
    probe_file_pattern("from", 100000, 3);
    probe_file_write("to", "x", 1);
    int from = (int)CHECK_OK(open("from", O_RDONLY));
    int to = (int)CHECK_OK(open("to", O_RDWR));
    struct watch source = watch_start("from"), target = watch_start("to");
    CHECK(CHECK_OK(copy_file_range(from, NULL, to, NULL, 100000, 0)) > 0);
    watch_expect(&source, 0, "copy_file_range");
    watch_expect(&target, BOTH, "copy_file_range");
    CHECK_OK(close(from));
    CHECK_OK(close(to));
}

const struct probe probes_time[] = {
    {"time-of-small-file", time_of_small_file},
    {"time-of-large-file", time_of_large_file},
    {"time-of-names", time_of_names},
    {"time-of-rename", time_of_rename},
    {"time-of-parent", time_of_parent},
    {"time-of-xattrs", time_of_xattrs},
    {"time-of-owner", time_of_owner},
    {"time-of-mapping", time_of_mapping},
    {"time-of-copy", time_of_copy},
    {"time-order", time_order},
    {NULL, NULL},
};
