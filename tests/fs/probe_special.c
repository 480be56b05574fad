/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of what is not a file or a directory: fifos, sockets, device nodes; and of running programs. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void fifo_writer(void *argument)
{
    (void)argument;
    int fd = (int)CHECK_OK(open("fifo", O_WRONLY));
    CHECK_EQUAL(write(fd, "through the fifo", 16), 16);
    CHECK_OK(close(fd));
}

static void special_fifo(void)
{
    CHECK_OK(mkfifo("fifo", 0640));
    CHECK_EQUAL(probe_stat("fifo").st_mode & S_IFMT, S_IFIFO);
    CHECK_ERRNO(mkfifo("fifo", 0640), EEXIST);
    CHECK_ERRNO(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    pid_t child = probe_child_start(fifo_writer, NULL);
    int fd = (int)CHECK_OK(open("fifo", O_RDONLY));
    char found[32];
    CHECK_EQUAL(read(fd, found, sizeof(found)), 16);
    CHECK(memcmp(found, "through the fifo", 16) == 0);
    CHECK_EQUAL(read(fd, found, sizeof(found)), 0);
    CHECK_OK(close(fd));
    probe_child_join(child);
    CHECK_OK(rename("fifo", "moved"));
    CHECK_OK(link("moved", "linked"));
    CHECK_OK(unlink("moved"));
    CHECK_OK(unlink("linked"));
}

static void special_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int server = (int)CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_OK(bind(server, (struct sockaddr *)&address, sizeof(address)));
    CHECK_EQUAL(probe_stat("socket").st_mode & S_IFMT, S_IFSOCK);
    CHECK_OK(listen(server, 1));
    CHECK_ERRNO(
        bind((int)CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof(address)),
        EADDRINUSE);
    int client = (int)CHECK_OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_OK(connect(client, (struct sockaddr *)&address, sizeof(address)));
    int accepted = (int)CHECK_OK(accept(server, NULL, NULL));
    CHECK_EQUAL(write(client, "hello", 5), 5);
    char found[8];
    CHECK_EQUAL(read(accepted, found, sizeof(found)), 5);
    CHECK_ERRNO(open("socket", O_RDWR), ENXIO);
    CHECK_OK(unlink("socket"));
}

static void special_device(void)
{
    if (geteuid() != 0) {
        CHECK_ERRNO(mknod("null", S_IFCHR | 0600, makedev(1, 3)), EPERM);
        return;
    }
    CHECK_OK(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    CHECK_OK(mknod("block", S_IFBLK | 0600, makedev(4095, 1048575)));
    struct stat status = probe_stat("null");
    CHECK_EQUAL(status.st_mode & S_IFMT, S_IFCHR);
    CHECK_EQUAL(status.st_rdev, makedev(1, 3));
    CHECK_EQUAL(probe_stat("block").st_rdev, makedev(4095, 1048575));
    CHECK_EQUAL(probe_stat("block").st_mode, S_IFBLK | 0600);
    struct statvfs filesystem;
    CHECK_OK(statvfs(".", &filesystem));
    if (filesystem.f_flag & ST_NODEV) {
        CHECK_ERRNO(open("null", O_RDWR), EACCES);
        return;
    }
    int fd = (int)CHECK_OK(open("null", O_RDWR));
    CHECK_EQUAL(write(fd, "into the void", 13), 13);
    char byte;
    CHECK_EQUAL(read(fd, &byte, 1), 0);
    CHECK_OK(close(fd));
}

static void special_mknod_file(void)
{
    umask(0);
    CHECK_OK(mknod("file", S_IFREG | 0640, 0));
    CHECK_EQUAL(probe_stat("file").st_mode, S_IFREG | 0640);
    CHECK_ERRNO(mknod("file", S_IFREG | 0640, 0), EEXIST);
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    probe_pwrite(fd, "made by mknod", 13, 0);
    CHECK_OK(close(fd));
    probe_file_expect("file", "made by mknod", 13);
    CHECK_ERRNO(mknod("directory", S_IFDIR | 0700, 0), EPERM);
    CHECK_ERRNO(mknod("odd", S_IFLNK | 0700, 0), EINVAL);
}

static void copy_program(const char *from, const char *to)
{
    int source = (int)CHECK_OK(open(from, O_RDONLY));
    int target = (int)CHECK_OK(open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
    char *buffer = probe_alloc(65536);
    ssize_t count;
    while ((count = CHECK_OK(read(source, buffer, 65536))) > 0)
        CHECK_EQUAL(write(target, buffer, (size_t)count), count);
    free(buffer);
    CHECK_OK(close(source));
    CHECK_OK(close(target));
}

static void run_cat(void *argument)
{
    const struct probe_gate *input = argument;
    CHECK_OK(dup2(input->read_fd, STDIN_FILENO));
    CHECK_OK(close(input->write_fd));
    execl("./cat", "cat", NULL);
    probe_fail(__FILE__, __LINE__, errno, "exec");
}

/* True once the process runs the program, no longer this one. */
static bool runs_program(pid_t process, ino_t number)
{
    char path[64];
    struct stat status;
    snprintf(path, sizeof(path), "/proc/%d/exe", process);
    return stat(path, &status) == 0 && status.st_ino == number;
}

/* A program on the mount runs; while it does nobody can open it to write, and while it is written nobody can
 * run it. */
static void special_execute(void)
{
    copy_program("/bin/cat", "cat");
    struct probe_gate input = probe_gate_make();
    CHECK_OK(fcntl(input.write_fd, F_SETFD, FD_CLOEXEC));
    pid_t child = probe_child_start(run_cat, &input);
    double deadline = probe_now() + 20;
    while (!runs_program(child, probe_stat("cat").st_ino))
        CHECK(probe_now() < deadline);
    CHECK_ERRNO(open("cat", O_WRONLY), ETXTBSY);
    CHECK_OK(close(input.write_fd));
    probe_child_join(child);
    int fd = (int)CHECK_OK(open("cat", O_WRONLY | O_CLOEXEC));
    child = (pid_t)CHECK_OK(fork());
    if (child == 0) {
        execl("./cat", "cat", "/dev/null", NULL);
        _exit(errno == ETXTBSY ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    probe_child_join(child);
    CHECK_OK(close(fd));
}

const struct probe probes_special[] = {
    {"special-fifo", special_fifo},       {"special-socket", special_socket},
    {"special-device", special_device},   {"special-mknod-file", special_mknod_file},
    {"special-execute", special_execute}, {NULL, NULL},
};
