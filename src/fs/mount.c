/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting by mount(2) or fusermount3. */
#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "base/log.h"
#include "fs/mount_table.h"

#define FUSE_DEVICE "/dev/fuse"
#define FUSERMOUNT  "fusermount3"

enum { EXEC_FAILED = 127, MESSAGE_MAX = 512 };

/* -- as root --------------------------------------------------------------------------------------------- */

static enum mount_problem mount_explain_device(int error)
{
    if (error == ENOENT || error == ENODEV || error == ENXIO)
        log_error(
            "%s is missing or no FUSE device; load the module with `modprobe fuse`, or pass the device into "
            "the container",
            FUSE_DEVICE);
    else
        log_error("%s cannot be opened: %s; allow it for this user or run as root", FUSE_DEVICE,
                  strerror(error));
    return MOUNT_NO_FUSE;
}

static enum mount_problem mount_explain_syscall(const struct mount_request *request, int error)
{
    if (error == ENODEV) {
        log_error("the kernel has no FUSE; load it with `modprobe fuse`");
        return MOUNT_NO_FUSE;
    }
    log_error("%s cannot be mounted: %s; %s", request->mountpoint, strerror(error),
              error == EPERM ? "mounting needs CAP_SYS_ADMIN in this container" : "see the kernel's log");
    return error == EPERM || error == EACCES ? MOUNT_REFUSED : MOUNT_FAILED;
}

static enum mount_problem mount_open_device(int *out)
{
    cleanup_fd int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return mount_explain_device(errno);
    /* Containers hide devices under files like /dev/null. */
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(10, 229))
        return mount_explain_device(ENODEV);
    *out = steal_fd(fd);
    return MOUNT_FINE;
}

enum mount_problem mount_check_device(void)
{
    cleanup_fd int fd = -1;
    return geteuid() == 0 ? mount_open_device(&fd) : MOUNT_FINE;
}

static enum mount_problem mount_attach_direct(const struct mount_request *request, int *fuse_fd)
{
    cleanup_fd int fd = -1;
    enum mount_problem problem = mount_open_device(&fd);
    if (problem)
        return problem;
    char data[128];
    snprintf(data, sizeof data, "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions%s", fd,
             (unsigned)S_IFDIR, (unsigned)geteuid(), (unsigned)getegid(),
             request->allow_other ? ",allow_other" : "");
    if (mount(request->store, request->mountpoint, MOUNT_TYPE, request->flags, data) != 0)
        return mount_explain_syscall(request, errno);
    *fuse_fd = steal_fd(fd);
    return MOUNT_FINE;
}

/* -- through fusermount3 --------------------------------------------------------------------------------- */

/* What it prints is kept for the caller; `message` is emptied first. Returns its exit status or -errno. */
static int mount_run_fusermount(char *const arguments[], int socket_fd, char message[MESSAGE_MAX])
{
    int errors[2];
    if (pipe2(errors, O_CLOEXEC) != 0)
        return -errno;
    cleanup_fd int read_end = errors[0];
    cleanup_fd int write_end = errors[1];
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", socket_fd);
        /* Its messages are recognised: they must be English. */
        if (socket_fd >= 0 && (fcntl(socket_fd, F_SETFD, 0) != 0 || setenv("_FUSE_COMMFD", number, 1) != 0))
            _exit(EXEC_FAILED);
        if (setenv("LC_ALL", "C", 1) != 0 || dup2(write_end, STDERR_FILENO) < 0)
            _exit(EXEC_FAILED);
        execvp(FUSERMOUNT, arguments);
        _exit(EXEC_FAILED);
    }
    close(steal_fd(write_end));
    size_t used = 0;
    char dropped[256];
    for (;;) {
        size_t room = MESSAGE_MAX - 1 - used;
        ssize_t got = read(read_end, room ? message + used : dropped, room ? room : sizeof dropped);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += room ? (size_t)got : 0;
    }
    message[used] = '\0';
    message[strcspn(message, "\n")] = '\0';
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXEC_FAILED;
}

/* The descriptor that comes with one byte, or a negative errno. */
static int mount_receive_descriptor(int socket_fd)
{
    char byte;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec vector = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do {
        got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (got == 0 || !header || header->cmsg_type != SCM_RIGHTS)
        return -EPROTO;
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

/* fusermount3 splits its options at commas that no backslash precedes. The caller frees the result. */
static char *mount_escape_option(const char *text)
{
    char *escaped = malloc(strlen(text) * 2 + 1);
    char *to = escaped;
    for (; escaped && *text; text++) {
        if (*text == ',' || *text == '\\')
            *to++ = '\\';
        *to++ = *text;
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

/* nosuid and nodev are what fusermount3 insists on; it knows no words to ask for them twice. */
static char *mount_describe_options(const struct mount_request *request)
{
    char *options = NULL;
    cleanup_free char *source = mount_escape_option(request->store);
    if (!source)
        return NULL;
    if (asprintf(&options, "fsname=%s,subtype=ckptfs,default_permissions%s%s%s%s", source,
                 request->allow_other ? ",allow_other" : "", request->flags & MS_RDONLY ? ",ro" : "",
                 request->flags & MS_NOEXEC ? ",noexec" : "",
                 request->flags & MS_NOATIME ? ",noatime" : "") < 0)
        return NULL;
    return options;
}

static enum mount_problem mount_explain_fusermount(const struct mount_request *request, int status,
                                                   const char *message)
{
    if (status == EXEC_FAILED) {
        log_error("%s is missing: only root can mount without it; install the package fuse3", FUSERMOUNT);
        return MOUNT_NO_FUSE;
    }
    if (strstr(message, "user_allow_other")) {
        log_error("%s cannot be mounted with allow_other: it needs a line `user_allow_other` in "
                  "/etc/fuse.conf; add "
                  "it or leave the option out",
                  request->mountpoint);
        return MOUNT_REFUSED;
    }
    if (strstr(message, FUSE_DEVICE) || strstr(message, "fuse device not found")) {
        log_error("%s cannot be opened (%s); allow it for this user or run as root", FUSE_DEVICE, message);
        return MOUNT_NO_FUSE;
    }
    log_error("%s cannot be mounted (%s); choose a directory that you own", request->mountpoint,
              *message ? message : FUSERMOUNT " said nothing");
    return MOUNT_REFUSED;
}

static enum mount_problem mount_attach_as_user(const struct mount_request *request, int *fuse_fd)
{
    int pair[2];
    cleanup_free char *options = mount_describe_options(request);
    if (!options || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        log_error("%s cannot be mounted: %m", request->mountpoint);
        return MOUNT_FAILED;
    }
    cleanup_fd int ours = pair[0];
    cleanup_fd int theirs = pair[1];
    char *const arguments[] = {(char *)FUSERMOUNT,          (char *)"-o", options, (char *)"--",
                               (char *)request->mountpoint, NULL};
    char message[MESSAGE_MAX];
    int status = mount_run_fusermount(arguments, theirs, message);
    close(steal_fd(theirs));
    if (status != 0)
        return mount_explain_fusermount(request, status, message);
    int fd = mount_receive_descriptor(ours);
    if (fd < 0) {
        log_error("%s cannot be mounted: %s sent no descriptor: %s; mount again", request->mountpoint,
                  FUSERMOUNT, strerror(-fd));
        return MOUNT_FAILED;
    }
    *fuse_fd = fd;
    return MOUNT_FINE;
}

enum mount_problem mount_attach(const struct mount_request *request, int *fuse_fd)
{
    return geteuid() == 0 ? mount_attach_direct(request, fuse_fd) : mount_attach_as_user(request, fuse_fd);
}

/* -- unmounting ------------------------------------------------------------------------------------------ */

/* fusermount3 finds no mount of this user there: is there another's? */
static errint mount_explain_not_found(const char *mountpoint)
{
    cleanup_mount_table struct mount_table table = {0};
    errint error = mount_table_read(&table);
    if (error)
        return error;
    return mount_table_find(&table, mountpoint) ? -EPERM : -EINVAL;
}

static errint mount_detach_as_user(const char *mountpoint, bool lazy)
{
    char *const arguments[] = {(char *)FUSERMOUNT, (char *)"-u", lazy ? (char *)"-z" : (char *)"--",
                               (char *)mountpoint, NULL};
    char message[MESSAGE_MAX];
    int status = mount_run_fusermount(arguments, -1, message);
    if (status <= 0)
        return status;
    if (status == EXEC_FAILED)
        return -ENOENT;
    if (strstr(message, "busy"))
        return -EBUSY;
    return mount_explain_not_found(mountpoint);
}

errint mount_detach(const char *mountpoint, bool lazy)
{
    if (geteuid() != 0)
        return mount_detach_as_user(mountpoint, lazy);
    return umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0 ? 0 : -errno;
}
