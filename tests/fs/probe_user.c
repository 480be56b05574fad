/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of several users on one filesystem. They start as root and become somebody else in a child process,
 * so the filesystem must be open to all users (allow_other).
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { OWNER = 65534, STRANGER = 65533, GROUP = 54321 };

struct identity {
    uid_t user;
    gid_t group;
    gid_t supplementary;
    void (*run)(void);
};

static void identity_take(void *argument)
{
    const struct identity *identity = argument;
    CHECK_OK(setgroups(identity->supplementary != 0, &identity->supplementary));
    CHECK_OK(setresgid(identity->group, identity->group, identity->group));
    CHECK_OK(setresuid(identity->user, identity->user, identity->user));
    identity->run();
}

static void run_as_group_member(uid_t user, gid_t supplementary, void (*run)(void))
{
    struct identity identity = {.user = user, .group = user, .supplementary = supplementary, .run = run};
    probe_child_join(probe_child_start(identity_take, &identity));
}

static void run_as(uid_t user, void (*run)(void))
{
    run_as_group_member(user, 0, run);
}

/* A directory for everybody in the working directory, which is then the working directory. */
static void enter_public_directory(void)
{
    probe_require_root();
    CHECK_OK(chmod(".", 0755));
    CHECK_OK(mkdir("public", 0777));
    CHECK_OK(chmod("public", 0777));
    CHECK_OK(chdir("public"));
    umask(022);
}

static void make_private_things(void)
{
    probe_file_write("file", "secret", 6);
    CHECK_OK(chmod("file", 0600));
    probe_file_write("readable", "public", 6);
    CHECK_OK(mkdir("closed", 0700));
    probe_file_write("closed/file", "x", 1);
    CHECK_OK(mkdir("searchable", 0711));
    probe_file_write("searchable/file", "x", 1);
    CHECK_OK(mkdir("listed", 0744));
    probe_file_write("listed/file", "x", 1);
}

static void meet_closed_doors(void)
{
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
    CHECK_ERRNO(open("file", O_WRONLY), EACCES);
    CHECK_ERRNO(open("readable", O_RDWR), EACCES);
    CHECK_ERRNO(open("readable", O_WRONLY | O_TRUNC), EACCES);
    CHECK_OK(close((int)CHECK_OK(open("readable", O_RDONLY))));
    CHECK_ERRNO(truncate("readable", 0), EACCES);
    CHECK_ERRNO(open("closed/file", O_RDONLY), EACCES);
    CHECK_ERRNO(open("closed", O_RDONLY | O_DIRECTORY), EACCES);
    CHECK_ERRNO(chdir("closed"), EACCES);
    CHECK_OK(close((int)CHECK_OK(open("searchable/file", O_RDONLY))));
    CHECK_ERRNO(open("searchable", O_RDONLY | O_DIRECTORY), EACCES);
    CHECK_OK(close((int)CHECK_OK(open("listed", O_RDONLY | O_DIRECTORY))));
    CHECK_ERRNO(open("listed/file", O_RDONLY), EACCES);
    CHECK_ERRNO(open("searchable/new", O_RDWR | O_CREAT, 0600), EACCES);
    CHECK_ERRNO(mkdir("searchable/new", 0700), EACCES);
    CHECK_ERRNO(symlink("x", "searchable/new"), EACCES);
    probe_file_write("own", "x", 1);
    CHECK_ERRNO(link("own", "searchable/new"), EACCES);
    CHECK_ERRNO(rename("own", "searchable/new"), EACCES);
    CHECK_ERRNO(unlink("searchable/file"), EACCES);
    CHECK_ERRNO(rename("searchable/file", "moved"), EACCES);
    CHECK_ERRNO(access("file", R_OK), EACCES);
    CHECK_OK(access("readable", R_OK));
    CHECK_ERRNO(access("readable", W_OK), EACCES);
    CHECK_ERRNO(setxattr("readable", "user.one", "1", 1, 0), EACCES);
    CHECK_ERRNO(getxattr("file", "user.one", NULL, 0), EACCES);
}

static void user_access(void)
{
    enter_public_directory();
    run_as(OWNER, make_private_things);
    CHECK_EQUAL(probe_stat("file").st_uid, OWNER);
    CHECK_EQUAL(probe_stat("file").st_gid, OWNER);
    run_as(STRANGER, meet_closed_doors);
    probe_file_expect("file", "secret", 6);
    CHECK(probe_exists("closed/file"));
}

static void try_to_change_attributes(void)
{
    CHECK_ERRNO(chmod("file", 0777), EPERM);
    CHECK_ERRNO(chown("file", STRANGER, (gid_t)-1), EPERM);
    CHECK_ERRNO(chown("file", (uid_t)-1, STRANGER), EPERM);
    struct timespec times[2] = {{1, 0}, {1, 0}};
    CHECK_ERRNO(utimensat(AT_FDCWD, "file", times, 0), EPERM);
    CHECK_OK(utimensat(AT_FDCWD, "file", NULL, 0));
    CHECK_ERRNO(utimensat(AT_FDCWD, "readable", NULL, 0), EACCES);
    CHECK_ERRNO(open("file", O_RDONLY | O_NOATIME), EPERM);
    CHECK_ERRNO(setxattr("file", "trusted.one", "1", 1, 0), EPERM);
    CHECK_OK(setxattr("file", "user.one", "1", 1, 0));
}

static void owner_changes_attributes(void)
{
    CHECK_OK(chmod("file", 0640));
    CHECK_ERRNO(chown("file", STRANGER, (gid_t)-1), EPERM);
    CHECK_ERRNO(chown("file", (uid_t)-1, STRANGER), EPERM);
    CHECK_OK(chown("file", (uid_t)-1, GROUP));
    CHECK_EQUAL(probe_stat("file").st_gid, GROUP);
    CHECK_OK(chown("file", OWNER, OWNER));
    struct timespec times[2] = {{1, 0}, {1, 0}};
    CHECK_OK(utimensat(AT_FDCWD, "file", times, 0));
    CHECK_OK(close((int)CHECK_OK(open("file", O_RDONLY | O_NOATIME))));
}

static void user_attributes(void)
{
    enter_public_directory();
    probe_file_write("file", "x", 1);
    CHECK_OK(chmod("file", 0666));
    CHECK_OK(chown("file", OWNER, OWNER));
    probe_file_write("readable", "x", 1);
    run_as(STRANGER, try_to_change_attributes);
    run_as_group_member(OWNER, GROUP, owner_changes_attributes);
}

static void read_as_member(void)
{
    probe_file_expect("file", "team", 4);
    CHECK_ERRNO(open("file", O_WRONLY), EACCES);
    probe_file_write("directory/new", "y", 1);
}

static void read_as_outsider(void)
{
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
    CHECK_ERRNO(open("directory/other", O_RDWR | O_CREAT, 0600), EACCES);
}

static void user_groups(void)
{
    enter_public_directory();
    probe_file_write("file", "team", 4);
    CHECK_OK(chown("file", 0, GROUP));
    CHECK_OK(chmod("file", 0640));
    CHECK_OK(mkdir("directory", 0700));
    CHECK_OK(chown("directory", 0, GROUP));
    CHECK_OK(chmod("directory", 02770));
    run_as_group_member(STRANGER, GROUP, read_as_member);
    run_as(STRANGER, read_as_outsider);
    CHECK_EQUAL(probe_stat("directory/new").st_gid, GROUP);
    CHECK_EQUAL(probe_stat("directory/new").st_uid, STRANGER);
}

static void tidy_sticky_directory(void)
{
    CHECK_ERRNO(unlink("sticky/theirs"), EPERM);
    CHECK_ERRNO(rename("sticky/theirs", "sticky/mine"), EPERM);
    CHECK_ERRNO(rename("sticky/theirs", "moved"), EPERM);
    CHECK_ERRNO(rmdir("sticky/directory"), EPERM);
    probe_file_write("sticky/own", "x", 1);
    CHECK_ERRNO(rename("sticky/own", "sticky/theirs"), EPERM);
    CHECK_OK(rename("sticky/own", "sticky/owned"));
    CHECK_OK(unlink("sticky/owned"));
}

static void user_sticky_directory(void)
{
    enter_public_directory();
    CHECK_OK(mkdir("sticky", 0777));
    CHECK_OK(chmod("sticky", 01777));
    probe_file_write("sticky/theirs", "x", 1);
    CHECK_OK(chmod("sticky/theirs", 0666));
    CHECK_OK(mkdir("sticky/directory", 0777));
    run_as(STRANGER, tidy_sticky_directory);
    CHECK(probe_exists("sticky/theirs"));
}

/* What a write by a stranger does to set-id bits; each case starts with mode 06777. */
static void strip_write(void)
{
    int fd = (int)CHECK_OK(open("file", O_WRONLY));
    probe_pwrite(fd, "y", 1, 0);
    CHECK_OK(close(fd));
}

static void strip_truncate(void)
{
    CHECK_OK(truncate("file", 2));
}

static void strip_ftruncate(void)
{
    int fd = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK_OK(ftruncate(fd, 3));
    CHECK_OK(close(fd));
}

static void strip_open_truncate(void)
{
    CHECK_OK(close((int)CHECK_OK(open("file", O_WRONLY | O_TRUNC))));
}

static void strip_allocate(void)
{
    int fd = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK_OK(fallocate(fd, 0, 0, 100000));
    CHECK_OK(close(fd));
}

static void strip_punch(void)
{
    int fd = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1));
    CHECK_OK(close(fd));
}

static void strip_copy(void)
{
    int from = (int)CHECK_OK(open("source", O_RDONLY));
    int to = (int)CHECK_OK(open("file", O_WRONLY));
    CHECK(CHECK_OK(copy_file_range(from, NULL, to, NULL, 100, 0)) > 0);
    CHECK_OK(close(from));
    CHECK_OK(close(to));
}

static void expect_stripped_to(void (*action)(void), const char *what, mode_t before, gid_t group,
                               unsigned after)
{
    CHECK_OK(chown("file", 0, GROUP));
    CHECK_OK(chmod("file", before));
    run_as_group_member(STRANGER, group, action);
    /* Asked for the mode alone, the kernel may answer by itself what it knew before. */
    struct statx found;
    CHECK_OK(statx(AT_FDCWD, "file", 0, STATX_MODE, &found));
    unsigned mode = found.stx_mode & 07777;
    if (mode != after)
        probe_fail(__FILE__, __LINE__, 0, "%s by another user made mode %04o %04o, expected %04o", what,
                   before, mode, after);
}

/* A setgid bit without execution by the group stays for its members. */
static void expect_stripped(void (*action)(void), const char *what)
{
    expect_stripped_to(action, what, 06777, 0, 0777);
    expect_stripped_to(action, what, 06777, GROUP, 0777);
    expect_stripped_to(action, what, 06666, 0, 0666);
    expect_stripped_to(action, what, 06666, GROUP, 02666);
}

static void user_set_id_data(void)
{
    static const size_t lengths[] = {1000, 50000};
    enter_public_directory();
    probe_file_pattern("source", 1000, 1);
    for (size_t i = 0; i < 2; i++) {
        probe_file_pattern("file", lengths[i], 1);
        expect_stripped(strip_write, "write");
        expect_stripped(strip_truncate, "truncate");
        expect_stripped(strip_ftruncate, "ftruncate");
        expect_stripped(strip_open_truncate, "O_TRUNC");
        probe_file_pattern("file", lengths[i], 1);
        expect_stripped(strip_allocate, "fallocate");
        expect_stripped(strip_punch, "punching a hole");
        expect_stripped(strip_copy, "copy_file_range");
    }
}

/* Root keeps the bits when it writes; chown drops them, and only the setgid bit without execution stays. */
static void user_set_id_owner(void)
{
    enter_public_directory();
    probe_file_write("file", "x", 1);
    CHECK_OK(chmod("file", 06777));
    strip_write();
    CHECK_EQUAL(probe_stat("file").st_mode & 07777, 06777);
    CHECK_OK(chown("file", OWNER, OWNER));
    CHECK_EQUAL(probe_stat("file").st_mode & 07777, 0777);
    CHECK_OK(chmod("file", 06666));
    CHECK_OK(chown("file", 0, 0));
    CHECK_EQUAL(probe_stat("file").st_mode & 07777, 02666);
}

static void set_group_bit(void)
{
    CHECK_OK(chmod("mine", 02755));
    CHECK_EQUAL(probe_stat("mine").st_mode & 07777, 0755);
    CHECK_OK(chmod("mine", 04755));
    CHECK_EQUAL(probe_stat("mine").st_mode & 07777, 04755);
}

/* An owner outside the file's group cannot give it the setgid bit: it is dropped without an error. */
static void user_set_id_chmod(void)
{
    enter_public_directory();
    probe_file_write("mine", "x", 1);
    CHECK_OK(chown("mine", OWNER, GROUP));
    run_as(OWNER, set_group_bit);
}

/* A descriptor opened by root goes on working in the hands of somebody who could not open the file. */
static int inherited_fd;

static void use_inherited(void)
{
    CHECK_ERRNO(open("file", O_RDONLY), EACCES);
    probe_pwrite(inherited_fd, "inherited", 9, 0);
    probe_pread_expect(inherited_fd, "inherited", 9, 0);
    CHECK_OK(ftruncate(inherited_fd, 5));
    CHECK_OK(fsync(inherited_fd));
}

static void user_inherited_descriptor(void)
{
    enter_public_directory();
    inherited_fd = (int)CHECK_OK(open("file", O_RDWR | O_CREAT, 0600));
    run_as(STRANGER, use_inherited);
    CHECK_OK(close(inherited_fd));
    probe_file_expect("file", "inheri", 5);
}

const struct probe probes_user[] = {
    {"user-access", user_access},
    {"user-attributes", user_attributes},
    {"user-groups", user_groups},
    {"user-sticky-directory", user_sticky_directory},
    {"user-set-id-data", user_set_id_data},
    {"user-set-id-owner", user_set_id_owner},
    {"user-set-id-chmod", user_set_id_chmod},
    {"user-inherited-descriptor", user_inherited_descriptor},
    {NULL, NULL},
};
