/* SPDX-License-Identifier: Apache-2.0 */
/* Keeping a checkpoint while it is exported. */
#include "cmd/export_hold.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file of a checkpoint lies no deeper. */
enum { HOLD_LEVELS = 3 };

static int hold_open(int directory, const char *name, int flags)
{
    return openat(directory, name, flags | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* Opens the first file below the directory that can be read; -1: there is none. Takes the descriptor. */
static int hold_find(int directory, unsigned levels)
{
    struct stat status;
    int found = -1;
    DIR *stream = directory < 0 ? NULL : fdopendir(directory);
    if (!stream) {
        if (directory >= 0)
            close(directory);
        return -1;
    }
    for (struct dirent *entry = readdir(stream); entry && found < 0; entry = readdir(stream)) {
        if (entry->d_name[0] == '.' ||
            fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(status.st_mode))
            found = hold_open(dirfd(stream), entry->d_name, 0);
        else if (S_ISDIR(status.st_mode) && levels > 0)
            found = hold_find(hold_open(dirfd(stream), entry->d_name, O_DIRECTORY), levels - 1);
    }
    closedir(stream);
    return found;
}

void export_hold_take(const char *path, struct export_hold *hold)
{
    struct stat status;
    hold->file = -1;
    hold->checkpoint = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (hold->checkpoint >= 0 && fstat(hold->checkpoint, &status) == 0 && S_ISDIR(status.st_mode))
        hold->file = hold_find(hold_open(hold->checkpoint, ".", O_DIRECTORY), HOLD_LEVELS);
}

bool export_hold_is_gone(const struct export_hold *hold, const char *path)
{
    struct stat held, there;
    if (hold->checkpoint < 0 || fstat(hold->checkpoint, &held) < 0)
        return false;
    if (stat(path, &there) < 0)
        return errno == ENOENT || errno == ENOTDIR;
    return held.st_dev != there.st_dev || held.st_ino != there.st_ino;
}

void export_hold_release(struct export_hold *hold)
{
    if (hold->file >= 0)
        close(hold->file);
    if (hold->checkpoint >= 0)
        close(hold->checkpoint);
    *hold = (struct export_hold){-1, -1};
}
