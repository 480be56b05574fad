/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of readdir: positions that stay good while the directory changes, large directories, dot entries. */
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Entries are named entry-N; what is not (dots, others) has no number. */
static long entry_number(const char *name)
{
    long number;
    char end;
    return sscanf(name, "entry-%ld%c", &number, &end) == 1 ? number : -1;
}

static void entry_create(long number)
{
    char name[32];
    snprintf(name, sizeof(name), "entry-%ld", number);
    CHECK_OK(close((int)CHECK_OK(open(name, O_RDWR | O_CREAT | O_EXCL, 0600))));
}

static void entry_remove(long number)
{
    char name[32];
    snprintf(name, sizeof(name), "entry-%ld", number);
    CHECK_OK(unlink(name));
}

static DIR *directory_open(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        probe_fail(__FILE__, __LINE__, errno, "opendir %s", path);
    return directory;
}

/* The next entry, NULL at the end; an error fails the probe. */
static struct dirent *directory_next(DIR *directory)
{
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (entry == NULL && errno != 0)
        probe_fail(__FILE__, __LINE__, errno, "readdir");
    return entry;
}

/* Reads from the position of the stream to the end, counting each number below count. */
static void directory_count(DIR *directory, unsigned char *seen, long count)
{
    struct dirent *entry;
    while ((entry = directory_next(directory)) != NULL) {
        long number = entry_number(entry->d_name);
        if (number >= 0 && number < count)
            seen[number]++;
    }
}

static void directory_dots(void)
{
    CHECK_OK(mkdir("top", 0700));
    CHECK_OK(mkdir("top/directory", 0700));
    probe_file_write("top/file", "x", 1);
    CHECK_OK(symlink("x", "top/link"));
    CHECK_OK(mkfifo("top/fifo", 0600));
    static const struct {
        const char *name;
        unsigned char type;
    } expected[] = {{".", DT_DIR},    {"..", DT_DIR},   {"directory", DT_DIR},
                    {"file", DT_REG}, {"link", DT_LNK}, {"fifo", DT_FIFO}};
    enum { COUNT = sizeof(expected) / sizeof(expected[0]) };
    unsigned seen = 0, total = 0;
    DIR *directory = directory_open("top");
    struct dirent *entry;
    while ((entry = directory_next(directory)) != NULL) {
        total++;
        char path[300];
        snprintf(path, sizeof(path), "top/%s", entry->d_name);
        CHECK_EQUAL(entry->d_ino, probe_lstat(path).st_ino);
        for (size_t i = 0; i < COUNT; i++)
            if (strcmp(entry->d_name, expected[i].name) == 0) {
                CHECK_EQUAL(entry->d_type, expected[i].type);
                seen |= 1U << i;
            }
    }
    CHECK_OK(closedir(directory));
    CHECK_EQUAL(total, COUNT);
    CHECK_EQUAL(seen, (1U << COUNT) - 1);
}

/*
 * Every entry's position is written down; then entries go and come. From each position the stream must go on
 * with the entry that was there, or with a later one when that one is gone.
 */
static void directory_positions(void)
{
    enum { COUNT = 1000 };
    long positions[COUNT + 2], numbers[COUNT + 2];
    int length = 0;
    for (long i = 0; i < COUNT; i++)
        entry_create(i);
    DIR *directory = directory_open(".");
    struct dirent *entry;
    for (;;) {
        long position = telldir(directory);
        entry = directory_next(directory);
        if (entry == NULL)
            break;
        CHECK(length < COUNT + 2);
        positions[length] = position;
        numbers[length++] = entry_number(entry->d_name);
    }
    CHECK_EQUAL(length, COUNT + 2);
    bool removed[COUNT] = {false};
    for (long i = 0; i < COUNT; i += 3) {
        entry_remove(i);
        removed[i] = true;
        entry_create(COUNT + i);
    }
    for (int i = length - 1; i >= 0; i -= 7) {
        seekdir(directory, positions[i]);
        entry = directory_next(directory);
        if (numbers[i] >= 0 && removed[numbers[i]])
            continue;
        CHECK(entry != NULL);
        CHECK_EQUAL(entry_number(entry->d_name), numbers[i]);
    }
    CHECK_OK(closedir(directory));
}

/* What was there all the time is listed just once, though entries before and behind the reader come and go.
 */
static void directory_scan_while_changing(void)
{
    enum { COUNT = 3000 };
    unsigned char *seen = probe_alloc(COUNT);
    memset(seen, 0, COUNT);
    for (long i = 0; i < COUNT; i++)
        entry_create(i);
    DIR *directory = directory_open(".");
    struct dirent *entry;
    long step = 0;
    while ((entry = directory_next(directory)) != NULL) {
        long number = entry_number(entry->d_name);
        if (number >= 0 && number < COUNT)
            seen[number]++;
        if (step < COUNT / 5) {
            entry_remove(step * 5);
            entry_create(COUNT + step);
        }
        step++;
    }
    CHECK_OK(closedir(directory));
    for (long i = 0; i < COUNT; i++) {
        if (i % 5 != 0)
            CHECK_EQUAL(seen[i], 1);
        else
            CHECK(seen[i] <= 1);
    }
    free(seen);
}

/* rm -rf: what was read is removed, batch by batch, in one stream. */
static void directory_remove_while_reading(void)
{
    enum { COUNT = 5000 };
    for (long i = 0; i < COUNT; i++)
        entry_create(i);
    DIR *directory = directory_open(".");
    struct dirent *entry;
    long removed = 0;
    while ((entry = directory_next(directory)) != NULL) {
        long number = entry_number(entry->d_name);
        if (number < 0)
            continue;
        entry_remove(number);
        removed++;
    }
    CHECK_OK(closedir(directory));
    CHECK_EQUAL(removed, COUNT);
}

/* 20,000 entries: each listed once, before and after a hundred of them are replaced; then none is left. */
static void directory_huge(void)
{
    enum { COUNT = 20000 };
    unsigned char *seen = probe_alloc(2 * COUNT);
    memset(seen, 0, 2 * COUNT);
    for (long i = 0; i < COUNT; i++)
        entry_create(i);
    DIR *directory = directory_open(".");
    directory_count(directory, seen, 2 * COUNT);
    for (long i = 0; i < COUNT; i++)
        CHECK_EQUAL(seen[i], 1);
    for (long i = 0; i < 100; i++) {
        entry_remove(i * 100);
        entry_create(COUNT + i);
    }
    rewinddir(directory);
    memset(seen, 0, 2 * COUNT);
    directory_count(directory, seen, 2 * COUNT);
    for (long i = 0; i < COUNT; i++)
        CHECK_EQUAL(seen[i], i % 100 != 0 || i >= 10000);
    for (long i = 0; i < 100; i++)
        CHECK_EQUAL(seen[COUNT + i], 1);
    CHECK_OK(closedir(directory));
    for (long i = 0; i < COUNT; i++)
        if (i % 100 != 0 || i >= 10000)
            entry_remove(i);
    for (long i = 0; i < 100; i++)
        entry_remove(COUNT + i);
    free(seen);
}

/* Raw getdents64: a small buffer gets a few entries at a time, and lseek to a d_off goes on behind that
 * entry. */
static void directory_raw_offsets(void)
{
    enum { COUNT = 300 };
    unsigned char seen[COUNT] = {0};
    for (long i = 0; i < COUNT; i++)
        entry_create(i);
    int fd = (int)CHECK_OK(open(".", O_RDONLY | O_DIRECTORY));
    char buffer[512];
    int64_t offset = 0;
    for (;;) {
        CHECK_EQUAL(lseek(fd, offset, SEEK_SET), offset);
        long length = CHECK_OK(syscall(SYS_getdents64, fd, buffer, sizeof(buffer)));
        if (length == 0)
            break;
        /* Only the first entry is taken: the next round starts at its offset. */
        struct dirent64 *entry = (struct dirent64 *)buffer;
        long number = entry_number(entry->d_name);
        if (number >= 0)
            seen[number]++;
        CHECK(entry->d_off != offset);
        offset = entry->d_off;
    }
    for (long i = 0; i < COUNT; i++)
        CHECK_EQUAL(seen[i], 1);
    CHECK_EQUAL(lseek(fd, 0, SEEK_SET), 0);
    CHECK_ERRNO(syscall(SYS_getdents64, fd, buffer, 1), EINVAL);
    CHECK_OK(close(fd));
}

/* Names of every length, so that the buffers break at all places. */
static void directory_long_names(void)
{
    enum { COUNT = 255 };
    char name[COUNT + 1];
    bool seen[COUNT + 1] = {false};
    for (int length = 1; length <= COUNT; length++) {
        memset(name, 'n', (size_t)length);
        name[length] = '\0';
        probe_file_write(name, "", 0);
    }
    DIR *directory = directory_open(".");
    struct dirent *entry;
    int found = 0;
    while ((entry = directory_next(directory)) != NULL) {
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] != 'n')
            continue;
        CHECK(!seen[length]);
        seen[length] = true;
        found++;
    }
    CHECK_EQUAL(found, COUNT);
    CHECK_OK(closedir(directory));
}

/* A stream on a directory that is removed meanwhile ends; it does not fail. */
static void directory_removed_under_reader(void)
{
    CHECK_OK(mkdir("gone", 0700));
    probe_file_write("gone/file", "x", 1);
    DIR *directory = directory_open("gone");
    CHECK(directory_next(directory) != NULL);
    CHECK_OK(unlink("gone/file"));
    CHECK_OK(rmdir("gone"));
    rewinddir(directory);
    struct dirent *entry;
    while ((entry = directory_next(directory)) != NULL)
        CHECK(entry->d_name[0] == '.');
    CHECK_OK(closedir(directory));
}

/* Who renames every entry that a listing tells of comes to its end. */
static void directory_rename_while_reading(void)
{
    enum { COUNT = 3000 };
    char name[32], renamed[32];
    CHECK_OK(mkdir("many", 0700));
    CHECK_OK(chdir("many"));
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "file-%d", i);
        CHECK_OK(mknod(name, S_IFREG | 0600, 0));
    }
    DIR *directory = directory_open(".");
    struct dirent *entry;
    int seen = 0;
    while ((entry = directory_next(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        CHECK(++seen <= 2 * COUNT);
        snprintf(renamed, sizeof renamed, "renamed-%d", seen);
        CHECK_OK(rename(entry->d_name, renamed));
    }
    CHECK(seen >= COUNT);
    /* From the start again it shows what is there now. */
    rewinddir(directory);
    for (seen = 0; (entry = directory_next(directory)) != NULL;)
        seen += strncmp(entry->d_name, "renamed-", 8) == 0;
    CHECK_EQUAL(seen, COUNT);
    CHECK_OK(closedir(directory));
}

/* A file handle (as NFS uses it) finds its file when the kernel has forgotten everything about it. */
static void directory_file_handles(void)
{
    probe_require_root();
    static const char *const names[] = {"directory", "directory/file"};
    CHECK_OK(mkdir("directory", 0700));
    probe_file_write("directory/file", "content", 7);
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handles[2];
    int mount;
    for (int i = 0; i < 2; i++) {
        handles[i].head.handle_bytes = MAX_HANDLE_SZ;
        CHECK_OK(name_to_handle_at(AT_FDCWD, names[i], &handles[i].head, &mount, 0));
    }
    int fd = (int)CHECK_OK(open("/proc/sys/vm/drop_caches", O_WRONLY));
    CHECK_EQUAL(write(fd, "2", 1), 1);
    CHECK_OK(close(fd));
    int here = (int)CHECK_OK(open(".", O_RDONLY | O_DIRECTORY));
    CHECK_OK(close((int)CHECK_OK(open_by_handle_at(here, &handles[0].head, O_RDONLY | O_DIRECTORY))));
    fd = (int)CHECK_OK(open_by_handle_at(here, &handles[1].head, O_RDONLY));
    probe_pread_expect(fd, "content", 7, 0);
    CHECK_OK(close(fd));
    CHECK_OK(unlink("directory/file"));
    CHECK_ERRNO(open_by_handle_at(here, &handles[1].head, O_RDONLY), ESTALE);
    CHECK_OK(close(here));
}

const struct probe probes_directory[] = {
    {"directory-dots", directory_dots},
    {"directory-positions", directory_positions},
    {"directory-scan-while-changing", directory_scan_while_changing},
    {"directory-remove-while-reading", directory_remove_while_reading},
    {"directory-huge", directory_huge},
    {"directory-raw-offsets", directory_raw_offsets},
    {"directory-long-names", directory_long_names},
    {"directory-removed-under-reader", directory_removed_under_reader},
    {"directory-rename-while-reading", directory_rename_while_reading},
    {"directory-file-handles", directory_file_handles},
    {NULL, NULL},
};
