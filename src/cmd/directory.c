/* SPDX-License-Identifier: Apache-2.0 */
/* Asking about a directory on a mount. */
#include "cmd/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "base/log.h"
#include "cmd/exit.h"

int directory_explain(const char *path, int error)
{
    switch (error) {
    case ENOTTY:
    case ENOSYS:
        log_error("%s is not on a mount of ckptfs, or its daemon is older than this command", path);
        return EXIT_NOT_MOUNTED;
    case ENOTCONN:
    case ECONNABORTED:
        log_error("%s is on a dead mount: its daemon is gone", path);
        return EXIT_MOUNTPOINT_DEAD;
    case EPERM:
        log_error("%s: only the directory's owner and root may do this", path);
        return EXIT_NOT_PERMITTED;
    default: log_error("%s: %s", path, strerror(error)); return EXIT_FAILED;
    }
}

int directory_open(const char *path, int *fd)
{
    struct statfs figures;
    cleanup_fd int opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0 || fstatfs(opened, &figures) < 0)
        return directory_explain(path, errno);
    /* Other programs' directories are not asked: what they would make of the question is not known. */
    if (figures.f_type != FUSE_SUPER_MAGIC)
        return directory_explain(path, ENOTTY);
    *fd = steal_fd(opened);
    return EXIT_FINE;
}

int directory_ask(int fd, unsigned long command, void *data)
{
    return ioctl(fd, command, data) < 0 ? errno : 0;
}

char *directory_above(const char *path, unsigned levels)
{
    char *real = realpath(path, NULL);
    for (; real && levels > 0; levels--) {
        char *slash = strrchr(real, '/');
        if (slash == real && real[1] == '\0') {
            free(real);
            return NULL;
        }
        slash[slash == real ? 1 : 0] = '\0';
    }
    return real;
}
