/* SPDX-License-Identifier: Apache-2.0 */
/* What files and the mount tell of a run's checkpoints. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "cmd/ls.h"

char *ls_join(const char *path, const char *name)
{
    char *joined;
    size_t length = strlen(path);
    if (asprintf(&joined, "%s%s%s", path, length > 0 && path[length - 1] == '/' ? "" : "/", name) < 0)
        return NULL;
    return joined;
}

errint ls_ask(const char *path, const struct run_checkpoint *checkpoint, struct ls_mounted *out)
{
    struct statfs figures;
    cleanup_free char *joined = ls_join(path, *checkpoint->path ? checkpoint->path : ".");
    if (!joined)
        return -ENOMEM;
    cleanup_fd int fd = open(joined, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    out->known = fd >= 0 && fstatfs(fd, &figures) == 0 && figures.f_type == FUSE_SUPER_MAGIC &&
                 ioctl(fd, CKPTFS_IOCTL_LIFE, &out->life) == 0 &&
                 ioctl(fd, CKPTFS_IOCTL_USAGE, &out->usage) == 0;
    out->marked = out->known && ioctl(fd, CKPTFS_IOCTL_MARKS, &out->marks) == 0;
    return 0;
}

/* Whether the processes that wrote the run live, and when they began. */
static void ls_ask_writers(const char *path, struct run_asked *asked)
{
    struct control_writers writers;
    struct statfs figures;
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && fstatfs(fd, &figures) == 0 && figures.f_type == FUSE_SUPER_MAGIC &&
        ioctl(fd, CKPTFS_IOCTL_WRITERS, &writers) == 0 && writers.alive) {
        asked->awaited = true;
        asked->since = writers.since;
    }
}

errint ls_read(const char *path, struct ls_wish wish, struct run *run)
{
    cleanup_folder_plain struct folder folder = {0};
    cleanup_free char *real = realpath(path, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    struct run_asked asked = {.name = slash ? slash + 1 : "", .all_reasons = wish.why, .since = INT64_MAX};
    *run = (struct run){0};
    if (wish.awaits)
        ls_ask_writers(path, &asked);
    errint error = folder_plain(path, &folder);
    return error ? error : run_read(&folder, &asked, run);
}
